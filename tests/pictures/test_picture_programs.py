"""What pictures of each program say, against files whose truth is written down, and small ones made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from drawn_pictures import a1111, comfy, comment, encoded, exif, graph, infotext, jpeg, png, write
from fakes import make_run

from bench.cli.inspect import picture_rows
from bench.pictures.folders import read_pictures
from bench.pictures.infotext import read_settings, split_infotext, tidy_without_tags
from bench.pictures.pairing import pair_pictures
from bench.pictures.parameters import Captions
from bench.pictures.png import with_text
from bench.pictures.read import our_names, read_file, read_picture
from bench.records import PictureFacts, PictureLora, RunInfo
from bench.suite import plan_images

FILES = Path(__file__).parent / "files"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FILES / "expected.json").read_text("utf-8"))["files"]
ABOUT_THE_FILE = ("pitfall", "same_request_as")
NOT_TOLD = "cannot be told"


def as_expected(found: PictureFacts, name: str) -> object:
    """A field in the form of expected.json."""
    if name == "loras":
        loras = found.loras or ()
        return [[one.name, one.text_weight, one.unet_weight, one.hash or NOT_TOLD] for one in loras]
    if name == "size" and found.size is not None:
        return list(found.size)
    if name == "hires":
        return msgspec.to_builtins(found.hires)
    if name == "full_prompt":
        return found.other[name].split("\n")
    if name in ("denoise", "batch_size"):
        return json.loads(found.other[name])
    if name == "template":
        return found.other["Template"]
    value = getattr(found, name) if hasattr(found, name) else found.other[name]
    return NOT_TOLD if value is None else value


@pytest.mark.parametrize("name", EXPECTED)
def test_sample_pictures_say_what_is_written_down_of_them(name: str) -> None:
    found, truth = read_file(FILES / name), EXPECTED[name]
    said = {field: as_expected(found, field) for field in truth if field not in ABOUT_THE_FILE}
    assert said == {field: value for field, value in truth.items() if field not in ABOUT_THE_FILE}
    for field, value in truth.items():
        if value == NOT_TOLD:
            assert found.unknown[field], field


@pytest.mark.parametrize("name", ["prompt", "parameters", "invokeai_metadata", "sd-metadata"])
@pytest.mark.parametrize("text", ['{"3": {"class_type": ', '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_json_that_is_broken_or_nested_too_deeply_is_named(name: str, text: str) -> None:
    for more in ({}, {"workflow": "{}"}):
        found = read_picture(png({name: text, **more}))
        assert found.unknown["prompt"] == f"its text {name!r} is no JSON that can be read"


@pytest.mark.parametrize(
    ("key", "value", "field", "words"),
    [
        ("Seed", "-1", "seed", "it says '-1', which is no whole number from 0 to 2^64 - 1"),
        ("Seed", "1" * 30, "seed", f"it says '{'1' * 30}', which is no whole number from 0 to 2^64 - 1"),
        ("CFG scale", "nan", "cfg", "it says 'nan', which is no number"),
        ("Size", "0x0", "size", "it says '0x0', which is no width and height above 0"),
        ("Steps", "many", "steps", "it says 'many', which is no whole number, 0 or more"),
    ],
)
def test_what_is_said_and_is_no_number_is_told_from_what_is_not_said(key, value, field, words) -> None:
    found = read_picture(a1111(1, infotext("a fox", **{key: value})))
    assert (getattr(found, field), found.unknown[field]) == (None, words)
    silent = read_picture(a1111(1, infotext("a fox", **{key: None})))
    assert silent.unknown[field] == "the picture does not say"


def test_a_graph_with_numbers_that_are_none_says_which() -> None:
    found = read_picture(comfy(graph(sampler={"seed": -1, "cfg": float("nan")}, latent={"width": 0})))
    assert found.unknown["seed"] == "it says '-1', which is no whole number from 0 to 2^64 - 1"
    assert found.unknown["cfg"] == "it says 'nan', which is no number"
    assert found.unknown["size"] == "it says '0x48', which is no width and height above 0"


@pytest.mark.parametrize(
    ("keyword", "table", "said"),
    [
        ("invokeai_metadata", {"positive_prompt": "a fox", "seed": -1}, "-1"),
        ("parameters", {"sui_image_params": {"prompt": "a fox", "seed": "x"}}, "x"),
        ("parameters", {"base_model": "m", "full_prompt": "a fox", "prompt": "a fox", "seed": "2.5"}, "2.5"),
    ],
)
def test_every_program_with_json_says_what_is_no_seed(keyword, table, said) -> None:
    found = read_picture(png({keyword: json.dumps(table)}))
    assert found.unknown["seed"] == f"it says '{said}', which is no whole number from 0 to 2^64 - 1"


def test_one_request_written_with_one_name_and_with_two_is_the_same() -> None:
    old, new = read_file(FILES / "dev_01_a1111_plain.png"), read_file(FILES / "dev_04_forge.png")
    assert our_names(old) == our_names(new) == ("dpmpp_2m", "karras")
    assert (old.program, new.program) == ("A1111", "Forge")


@pytest.mark.parametrize(
    ("version", "schedule"), [("v1.6.0", "normal"), ("v1.8.0", "normal"), ("v1.9.0", "karras"), ("v1.10.1", "karras")]
)
def test_a_sampler_without_a_schedule_means_what_its_version_meant(version: str, schedule: str) -> None:
    found = read_picture(a1111(1, infotext("a fox", Sampler="DPM++ 2M", Version=version)))
    assert (found.sampler, found.schedule) == ("DPM++ 2M", "Automatic")
    assert our_names(found).schedule == schedule


# A1111's text.


def test_an_empty_negative_prompt_is_told_and_no_settings_are_no_picture_of_a_program() -> None:
    assert read_picture(a1111(1, infotext("a fox", negative=""))).negative == ""
    assert read_picture(a1111(1, "a holiday, by the sea: nice")).program == "unknown"


def test_a_line_with_too_few_pairs_belongs_to_the_prompt() -> None:
    found = split_infotext("a fox\nSteps: 20, Seed: 3")
    assert (found.prompt, found.settings) == ("a fox\nSteps: 20, Seed: 3", {})


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('Model: "a, b: c", Steps: 2', "Model", "a, b: c"),
        ('Model: my "best" mix, Steps: 2', "Model", 'my "best" mix'),
        ('Model: "x" mix, Steps: 2', "Model", '"x" mix'),
        ('Civitai resources: [{"type":"checkpoint","modelVersionId":1}], Steps: 2', "Steps", "2"),
        ('Hashes: {"model": "a", "lora:b": "c"}', "Hashes", '{"model": "a", "lora:b": "c"}'),
        ("Negative Template: {red|blue} x, Steps: 2", "Negative Template", "{red|blue} x"),
        ("Created Date: 2024-05-01T10:11:12.5Z, Steps: 2", "Created Date", "2024-05-01T10:11:12.5Z"),
        ('ControlNet 0: "Module: none, Weight: 1", Steps: 2', "ControlNet 0", "Module: none, Weight: 1"),
        ("Steps: 2, Steps: 3", "Steps", "3"),
        ("Prompt: " + "[" * 5000, "Prompt", "[" * 5000),
    ],
)
def test_values_are_quoted_json_or_reach_to_the_comma(line: str, key: str, value: str) -> None:
    assert read_settings(line)[key] == value


def test_half_of_a_surrogate_pair_in_quotes_does_not_get_through() -> None:
    found = read_picture(a1111(1, infotext("a fox", Model=r'"x \ud800, y"')))
    msgspec.json.encode(found)


@pytest.mark.parametrize("place", ["before", "after"])
def test_templates_on_lines_of_their_own_are_not_the_prompt(place: str) -> None:
    prompt, negative, line = infotext("a red fox", Version="v1.5.0").split("\n")
    templates = ["Template: a {red|blue} fox", "Negative Template: blurry"]
    lines = [prompt, negative, *templates, line] if place == "before" else [prompt, negative, line, *templates]
    found = read_picture(a1111(1, "\n".join(lines)))
    assert (found.prompt, found.negative, found.seed) == ("a red fox", "blurry", 1)


@pytest.mark.parametrize(
    ("tag", "lora"),
    [
        ("<lora:a:0.8>", ("a", 0.8, 0.8)),
        ("<lora:a>", ("a", 1.0, 1.0)),
        ("<lora:a:0.5:1>", ("a", 0.5, 1.0)),
        ("<lora:a:te=0.25:unet=0.5>", ("a", 0.25, 0.5)),
        ("<lyco:a:-0.5>", ("a", -0.5, -0.5)),
    ],
)
def test_lora_tags_give_both_weights(tag: str, lora: tuple[str, float, float]) -> None:
    found = read_picture(a1111(1, infotext(f"a fox {tag}", Lora_hashes='"a: 0123456789ab"')))
    name, text_weight, unet_weight = lora
    assert found.loras == (
        PictureLora(name=name, text_weight=text_weight, unet_weight=unet_weight, hash="0123456789ab"),
    )


def test_a_lora_whose_weight_is_no_number_is_not_guessed() -> None:
    found = read_picture(a1111(1, infotext("a fox <lora:a:strong>")))
    assert found.loras is None
    assert "not a number" in found.unknown["loras"]


def test_tags_leave_the_prompt_with_the_space_about_them() -> None:
    assert tidy_without_tags("a fox <lora:x:1>, red <lora:y:1> dog\n<lora:z:1>") == "a fox , red dog"


def test_pictures_of_this_program_are_told() -> None:
    found = read_picture(a1111(1, infotext("a fox", Version="0.1.0", Generator="hotart-bench", Schedule_type="Simple")))
    assert (found.program, found.schedule, found.clip_skip) == ("hotart-bench", "Simple", None)


def own_pictures(folder: Path, *, mixed: bool) -> RunInfo:
    """Pictures of every variant, prompt and sample of a run, as it writes them."""
    info = make_run("run", prompts=2, samples=2).info
    for shift, variant in enumerate(info.suite.variants):
        for number, planned in enumerate(plan_images(info.suite)):
            data = with_text(encoded(100 * shift + number), Captions(info).of(variant.name, planned))
            place = folder if mixed else folder / variant.name
            write(place / f"{100 * shift + number}.png", data)
    return info


@pytest.mark.parametrize("mixed", [False, True])
def test_our_own_pictures_are_pairs_again(mixed: bool, tmp_path: Path) -> None:
    info = own_pictures(tmp_path, mixed=mixed)
    found = pair_pictures(read_pictures(tmp_path), tmp_path)
    assert {one.variant for one in found.pairs} == {one.name for one in info.suite.variants}
    assert len(found.pairs) == len(info.suite.variants) * 4
    said = read_picture(found.pairs[0].image.read_bytes())
    planned = {one.seed for one in plan_images(info.suite)}
    assert (said.program, said.prompt in {one.text for one in info.suite.prompts}) == ("hotart-bench", True)
    assert said.seed in planned
    assert our_names(said).sampler == info.suite.settings.sampler


def test_loras_of_our_pictures_stand_in_a_key_and_not_in_the_prompt() -> None:
    weights = '"glow: 0.8; te 0.5, ink: 1; IN01 0.25"'
    text = infotext("a <lora:word:1>", Version=None, Lora_weights=weights, Generator="hotart-bench", Variant="spo")
    found = read_picture(a1111(1, text))
    assert found.loras == (
        PictureLora(name="glow", text_weight=0.5, unet_weight=0.8),
        PictureLora(name="ink (IN01 0.25)", text_weight=1.0, unet_weight=1.0),
    )


def test_sd_next_writes_the_same_frame_with_keys_of_its_own() -> None:
    text = (
        "a fox\nNegative prompt: \nTemplate: a __animal__\nSteps: 20, Size: 48x48, Seed: 7, Sampler: UniPC, "
        "CFG scale: 6, CLiP-skip: 2, Model: alpha, Model hash: 0123456789, App: SD.Next, Version: 8a3b7b1, "
        "Pipeline: StableDiffusionXL"
    )
    found = read_picture(a1111(1, text))
    assert (found.program, found.prompt, found.negative, found.clip_skip) == ("SD.Next", "a fox", "", 2)
    assert found.schedule is None
    assert found.other["Pipeline"] == "StableDiffusionXL"


def test_a_text_without_version_is_of_no_program_in_particular() -> None:
    found = read_picture(a1111(1, infotext("a fox", Version=None)))
    assert (found.program, found.clip_skip, found.schedule) == ("A1111-like", None, "Karras")


# Others.


def test_fooocus_writes_the_typed_prompt_as_raw_one_in_its_a1111_scheme() -> None:
    text = (
        "a fox, intricate\nNegative prompt: ugly, noise\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 8, Size: "
        "48x48, CFG scale: 4, Sharpness: 2, Model: theta, Model hash: dfb10d406f, Raw prompt: a fox, Raw negative "
        'prompt: noise, Lora hashes: "offset: 0fbd817459", Lora weights: "offset: 0.1", Version: Fooocus v2.5.5'
    )
    found = read_picture(png({"parameters": text, "fooocus_scheme": "a1111"}))
    assert (found.program, found.prompt, found.negative) == ("Fooocus", "a fox", "noise")
    assert picture_rows(found)[0] == ("program", "Fooocus v2.5.5")
    assert found.loras == (PictureLora(name="offset", text_weight=0.1, unet_weight=0.1, hash="0fbd817459"),)
    assert found.other["full_prompt"] == "a fox, intricate"


def test_invokeai_names_karras_in_the_scheduler() -> None:
    said = {
        "app_version": "4.2.0", "generation_mode": "sdxl_txt2img", "positive_prompt": "a fox", "negative_prompt": "",
        "width": 48, "height": 48, "seed": 3, "rand_device": "cpu", "cfg_scale": 5.5, "steps": 20,
        "scheduler": "dpmpp_2m_k", "clip_skip": 0,
        "model": {"key": "x", "hash": "blake3:abc", "name": "alpha", "base": "sdxl", "type": "main"},
        "loras": [{"model": {"key": "y", "hash": "blake3:d", "name": "glow"}, "weight": 0.75}],
    }  # fmt: skip
    found = read_picture(png({"invokeai_metadata": json.dumps(said)}))
    assert (found.program, found.sampler, found.schedule, found.rng) == ("InvokeAI", "dpmpp_2m", "karras", "CPU")
    assert (found.prompt, found.negative, found.seed, found.cfg, found.clip_skip) == ("a fox", "", 3, 5.5, 1)
    assert (found.model, found.model_hash) == ("alpha", None)
    assert found.loras == (PictureLora(name="glow", text_weight=0.75, unet_weight=0.75),)
    assert our_names(found) == ("dpmpp_2m", "karras")


def test_old_pictures_of_invokeai_hide_their_negative_prompt() -> None:
    image = {"prompt": [{"prompt": "a fox [blurry]", "weight": 1.0}], "steps": 20, "cfg_scale": 7.5, "seed": 3}
    image |= {"sampler": "k_euler_a", "width": 48, "height": 48}
    said = {"app_id": "invoke-ai/InvokeAI", "app_version": "2.3.0", "model_weights": "alpha", "image": image}
    found = read_picture(png({"sd-metadata": json.dumps(said)}))
    assert (found.program, found.prompt, found.seed, found.model) == ("InvokeAI", "a fox [blurry]", 3, "alpha")
    assert "in square brackets" in found.unknown["negative"]
    assert our_names(found).sampler == "euler_a"


def test_novelai_keeps_the_prompt_in_its_description() -> None:
    said = {"steps": 28, "height": 48, "width": 48, "scale": 5.0, "uncond_scale": 1.0, "seed": 9, "uc": "lowres"}
    said |= {"sampler": "k_euler_ancestral", "noise_schedule": "karras"}
    texts = {"Title": "AI generated image", "Description": "{a fox}", "Software": "NovelAI", "Source": "SDXL 7BCCAA2C"}
    found = read_picture(png({**texts, "Comment": json.dumps(said)}))
    assert (found.program, found.prompt, found.negative, found.seed) == ("NovelAI", "{a fox}", "lowres", 9)
    assert (found.model, found.model_hash, found.cfg) == ("SDXL 7BCCAA2C", None, 5.0)
    assert our_names(found) == ("euler_a", "karras")


def test_swarmui_gives_numbers_as_texts_and_loras_as_two_lists() -> None:
    said = {"prompt": "a fox", "negativeprompt": "", "seed": "3", "steps": "20", "cfgscale": "7", "width": "48"}
    said |= {"height": "48", "loras": ["glow", "ink"], "loraweights": ["0.5", "1"], "clipstopatlayer": "-2"}
    found = read_picture(png({"parameters": json.dumps({"sui_image_params": said})}))
    assert (found.seed, found.steps, found.cfg, found.size, found.clip_skip) == (3, 20, 7.0, (48, 48), 2)
    assert [(one.name, one.unet_weight) for one in found.loras or ()] == [("glow", 0.5), ("ink", 1.0)]
    said["loraweights"] = ["0.5"]
    found = read_picture(png({"parameters": json.dumps({"sui_image_params": said})}))
    assert found.loras is None
    assert "not as many" in found.unknown["loras"]


@pytest.mark.parametrize("key", ["postprocessing", "extras"])
def test_a_picture_that_was_upscaled_after_says_so(key: str) -> None:
    found = read_picture(png({"parameters": infotext("a fox"), key: "Postprocess upscale by: 4"}))
    assert found.prompt == "a fox"
    assert key in str(found.edited)


def test_an_editor_that_keeps_the_exif_keeps_what_it_says() -> None:
    found = read_picture(jpeg(exif(comment(infotext("a fox")))))
    assert (found.program, found.prompt, found.seed) == ("A1111", "a fox", 1)


@pytest.mark.parametrize("value", ["-1", "1e400", "9" * 5000, "x", "", "1.5", "18446744073709551617"])
def test_a_seed_that_is_no_seed_cannot_be_told(value: str) -> None:
    found = read_picture(a1111(1, infotext("a fox", Seed=value)))
    assert found.seed is None
    assert found.unknown["seed"]


def test_a_prompt_of_megabytes_is_none() -> None:
    found = read_picture(a1111(1, infotext("x" * 200_000)))
    assert found.prompt is None
    assert "200,000 characters" in found.unknown["prompt"]
    assert found.seed == 1
