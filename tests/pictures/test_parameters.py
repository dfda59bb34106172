"""What our pictures say of themselves, read by the rules of A1111 and of Civitai, written out here a second time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.pictures.folders import Picture
from bench.pictures.keys import key_of
from bench.pictures.parameters import Captions
from bench.pictures.read import read_texts
from bench.records import Embedding, Fingerprint, Lora, PlannedImage, Prompt, RunInfo, Variant, WeightFile

FILE = "c0ffee" + "0" * 58
LORA = WeightFile(component="lora:0", name="spo.safetensors", sha256="ab" * 32, size_bytes=1, autov3="0123456789ab")
CHECKPOINT = WeightFile(component="checkpoint", name="hotArt_v4.safetensors", sha256=FILE, size_bytes=1)
PLANNED = PlannedImage(prompt_id="p", sample=0, seed=4294967296, batch=0)


def caption(
    prompt: str = "a lake, evening",
    negative: str = "",
    variant: Variant | None = None,
    files: tuple[WeightFile, ...] = (CHECKPOINT,),
    **settings: object,
) -> str:
    used = variant or Variant(name="base", checkpoint="/models/of a person/hotArt_v4.safetensors")
    run = make_run("run", prompts=1).info
    suite = msgspec.structs.replace(
        run.suite,
        prompts=(Prompt(id="p", text=prompt, negative=negative),),
        variants=(used,),
        settings=msgspec.structs.replace(
            run.suite.settings, **{"width": 832, "height": 1216, "steps": 24, "guidance_scale": 6.5, **settings}
        ),
    )
    known = Fingerprint(name=used.name, digest="d", checkpoint=used.checkpoint, pipeline="p", files=files)
    info: RunInfo = msgspec.structs.replace(run, suite=suite, variants=(known,))
    return Captions(info).of(used.name, PLANNED)


def read_as_a1111(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative and fields by A1111's ``parse_generation_parameters`` (its regular expressions)."""
    pattern = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = text.strip().split("\n")
    if len(pattern.findall(last)) < 3:
        lines, last = [*lines, last], ""
    prompt, negative, inside = [], [], False
    for line in (line.strip() for line in lines):
        if line.startswith("Negative prompt:"):
            inside, line = True, line[16:].strip()
        (negative if inside else prompt).append(line)
    fields = {
        key: json.loads(value) if value.startswith('"') and value.endswith('"') else value
        for key, value in pattern.findall(last)
    }
    return "\n".join(prompt), "\n".join(negative), fields


def hashes_as_civitai(text: str) -> dict[str, str]:
    """The map that Civitai's reader takes: ``, Hashes: {...}`` in the line that begins with ``Steps: ``."""
    line = text.split("\n")[-1]
    assert line.startswith("Steps: ")
    found = re.search(r", Hashes:\s*({[^}]+})$", line)
    return {} if found is None else json.loads(found[1])


def test_a1111_reads_prompt_negative_and_settings() -> None:
    prompt, negative, fields = read_as_a1111(caption(negative="blurry, text", sampler="dpmpp_2m", schedule="karras"))
    assert (prompt, negative) == ("a lake, evening", "blurry, text")
    assert list(fields)[:7] == ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "RNG"]
    assert [fields[name] for name in ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "RNG")] == [
        *("24", "DPM++ 2M", "Karras", "6.5", "4294967296", "832x1216", "CPU")
    ]


def test_a_file_has_name_and_the_first_ten_digits_of_its_sha256() -> None:
    text = caption()
    fields = read_as_a1111(text)[2]
    assert (fields["Model"], fields["Model hash"]) == ("hotArt_v4", FILE[:10])
    assert hashes_as_civitai(text) == {"model": FILE[:10]}


def test_a_folder_has_no_hash_of_its_own_and_gets_none() -> None:
    unet = msgspec.structs.replace(CHECKPOINT, component="unet")
    text = caption(variant=Variant(name="base", checkpoint="owner/model-xl"), files=(unet,))
    assert read_as_a1111(text)[2]["Model"] == "model-xl"
    assert "hash" not in text.lower()


def test_loras_stand_beside_the_prompt_with_hash_and_weight() -> None:
    variant = Variant(
        name="spo", checkpoint="x.safetensors", loras=(Lora(path="C:/loras/spo.safetensors", weight=0.8),)
    )
    text = caption(variant=variant, files=(CHECKPOINT, LORA))
    prompt, _, fields = read_as_a1111(text)
    assert prompt == "a lake, evening"
    assert (fields["Lora hashes"], fields["Lora weights"]) == ("spo: 0123456789ab", "spo: 0.8")
    assert hashes_as_civitai(text)["lora:spo"] == "0123456789ab"


def test_weights_of_parts_and_steps_are_told() -> None:
    lora = Lora(path="spo.safetensors", weight=1.0, text_encoder=0.5, step_factors=((0.0, 1.0), (0.4, 0.0)))
    fields = read_as_a1111(caption(variant=Variant(name="spo", checkpoint="x", loras=(lora,)), files=(LORA,)))[2]
    assert fields["Lora weights"] == "spo: 1; te 0.5; from 0 of the steps 1 times; from 0.4 of the steps 0 times"


def test_nothing_tells_where_a_file_lay_when_it_was_drawn_or_by_which_version() -> None:
    text = caption()
    assert "person" not in text
    assert "/" not in text
    assert "Version" not in text
    assert not re.search(r"20\d\d-", text)


@pytest.mark.parametrize(
    ("syntax", "prompt", "told"),
    [
        ("plain", "a lake", {}),
        ("plain", "a (lake:1.2)", {"Emphasis": "None"}),
        ("a1111", "a (lake:1.2)", {}),
        ("comfyui", "a (lake:1.2)", {"Prompt syntax": "ComfyUI"}),
    ],
)
def test_brackets_that_were_drawn_as_words_are_not_read_as_weights(
    syntax: str, prompt: str, told: dict[str, str]
) -> None:
    fields = read_as_a1111(caption(prompt, prompt_syntax=syntax))[2]
    assert {name: fields[name] for name in ("Emphasis", "Prompt syntax") if name in fields} == told


CONDITIONING = {
    "Timesteps": ("timesteps", (999, 500, 20), "999 500 20"),
    "Original size": ("original_size", (1024, 768), "1024x768"),
    "Target size": ("target_size", (640, 512), "640x512"),
    "Crop": ("crop", (64, 0), "64x0"),
}


@pytest.mark.parametrize("key", CONDITIONING)
def test_timesteps_and_what_sdxl_is_told_of_sizes_are_written_and_part_of_the_pair(key: str) -> None:
    field, value, words = CONDITIONING[key]
    text = caption(**{field: value})
    assert read_as_a1111(text)[2][key] == words
    assert CONDITIONING.keys() & read_as_a1111(caption())[2].keys() == set()
    plain, told = (
        key_of(
            Picture(Path("1.png"), "1.png", "", "1.png", read_texts({"parameters": one}), "picture", "", None),
            with_loras=True,
        )
        for one in (caption(), text)
    )
    assert set(told) - set(plain) == {(key, words)}


def test_a_prompt_of_several_lines_with_quotes_is_read_back() -> None:
    text = caption('says "OPEN, LATE: 24h"\n\nnight', "watermark\nblurry")
    assert read_as_a1111(text)[:2] == ('says "OPEN, LATE: 24h"\n\nnight', "watermark\nblurry")


def test_embeddings_that_a_prompt_uses_have_their_hashes() -> None:
    used = (
        Embedding(name="hands", path="/x/hands.pt", sha256="ab" * 32),
        Embedding(name="sky", path="", sha256="c" * 64),
    )
    text = caption("a man, Hands", prompt_syntax="a1111", embeddings=used)
    assert read_as_a1111(text)[2]["TI hashes"] == "hands: abababababab"
    assert hashes_as_civitai(text)["embed:hands"] == "ababababab"
    assert "sky" not in text
    assert "/x/" not in text


def test_tags_that_were_left_out_are_not_told_as_if_they_were_drawn() -> None:
    text = caption("a lake <lora:spo:0.8>", "fog<lora:x:1>", prompt_syntax="a1111", prompt_loras="ignore")
    assert "<lora" not in text
    assert read_as_a1111(text)[:2] == ("a lake", "fog")
