"""Folders of pictures: whose they are, which are pairs, and what is said of the others."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from drawn_pictures import a1111, comfy, drawn, encoded, graph, infotext, node, png, write
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import IncomparableError, SuiteError, UsageError
from bench.pictures.folders import read_pictures, says_nothing
from bench.pictures.pairing import Pairing, pair_pictures

PROMPTS = ("a fox", "a pier at dawn", "two red cups")


def paired(folder: Path, chosen: Sequence[str] | None = None) -> Pairing:
    return pair_pictures(read_pictures(folder), folder, chosen)


def lines(found: Pairing) -> set[tuple[str, str, int, str]]:
    return {(one.variant, one.prompt, int(one.sample or 0), one.where) for one in found.pairs}


def notes(found: Pairing) -> str:
    return " ".join(found.notes)


def fill(folder: Path, model: str, *, seeds: Sequence[int] = (1, 2), start: int = 0, **said: object) -> None:
    """Pictures of every prompt and seed by one model, named as A1111 names them."""
    numbers = iter(range(start, start + 1000))
    for prompt in PROMPTS:
        for seed in seeds:
            number = next(numbers)
            text = infotext(prompt, model=model, Seed=seed, **said)
            write(folder / f"{number:05}-{seed}.png", a1111(number, text))


# Variants.


def test_a_folder_for_each_model(tmp_path: Path) -> None:
    fill(tmp_path / "old", "alpha")
    fill(tmp_path / "new" / "2024-05-01", "beta", start=100)
    found = paired(tmp_path)
    assert len(found.pairs) == 12
    assert [one.variant for one in found.pairs[:4]] == ["new", "new", "old", "old"]
    by_place = {(one.prompt, one.sample): set() for one in found.pairs}
    for one in found.pairs:
        by_place[one.prompt, one.sample].add(one.image.stem.split("-")[1])
    assert all(len(seeds) == 1 for seeds in by_place.values())  # a pair has one seed
    assert "6 pictures of each of new and old, paired" in notes(found)
    assert {one.negative for one in found.pairs} == {"blurry"}


def test_the_reference_is_chosen_by_the_order_of_the_variants(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fill(tmp_path / name, name)
    found = paired(tmp_path, ("c", "a"))
    assert list(dict.fromkeys(one.variant for one in found.pairs)) == ["c", "a"]
    with pytest.raises(UsageError, match="did you mean 'b'"):
        paired(tmp_path, ("bb",))


def test_one_folder_of_several_models_is_told_apart_by_the_model(tmp_path: Path) -> None:
    fill(tmp_path / "2024-05-01", "alpha")
    fill(tmp_path / "2024-05-02", "beta", start=100)
    found = paired(tmp_path)
    assert list(dict.fromkeys(one.variant for one in found.pairs)) == ["alpha", "beta"]
    assert "told apart by model;" in notes(found)


def test_a_model_is_its_hash_whatever_its_file_is_called(tmp_path: Path) -> None:
    for name, number in (("alpha", 0), ("alpha renamed", 100)):
        fill(tmp_path, name, start=number, seeds=(number,), Model_hash="0123456789")
    found = paired(tmp_path)
    assert len({one.variant for one in found.pairs}) == 1


def test_models_of_one_name_and_two_hashes_are_two(tmp_path: Path) -> None:
    for digest, number in (("0123456789", 0), ("abcdef0123", 100)):
        fill(tmp_path, "a/b\\mix, v1 (é)", start=number, Model_hash=digest, Model='"a/b\\\\mix, v1 (é)"')
    found = paired(tmp_path)
    assert list(dict.fromkeys(one.variant for one in found.pairs)) == ["mix-v1", "mix-v1-2"]


def test_folders_that_name_one_model_are_said_and_those_of_two_are_not(tmp_path: Path) -> None:
    for place, second in (("one", "alpha"), ("two", "beta")):
        fill(tmp_path / place / "a", "alpha", seeds=(1,))
        fill(tmp_path / place / "b", second, seeds=(1,), start=100)
    assert "a and b name the same model (616c706861)" in notes(paired(tmp_path / "one"))
    assert "the same model" not in notes(paired(tmp_path / "two"))


def test_folders_of_one_model_with_other_loras_are_two_models(tmp_path: Path) -> None:
    for number, tag in enumerate(("<lora:glow:0.5>", "<lora:glow:1>")):
        write(tmp_path / "ab"[number] / "1.png", a1111(number, infotext(f"a fox {tag}")))
    assert "the same model" not in notes(paired(tmp_path))


def test_loras_tell_apart_what_is_equal_without_them(tmp_path: Path) -> None:
    for number, tag in enumerate(("", " <lora:glow:0.5>", " <lora:glow:1>")):
        for place, prompt in enumerate(PROMPTS):
            picture = a1111(10 * number + place, infotext(prompt + tag))
            write(tmp_path / f"{number}-{place}.png", picture)
    found = paired(tmp_path)
    names = list(dict.fromkeys(one.variant for one in found.pairs))
    assert names == ["alphaMix", "alphaMix_glow-0.5", "alphaMix_glow-1"]
    assert {one.prompt for one in found.pairs} == set(PROMPTS)
    assert len(found.pairs) == 9


def test_loras_of_one_name_and_two_hashes_are_two(tmp_path: Path) -> None:
    for number, digest in enumerate(("0123456789ab", "cdef01234567")):
        text = infotext("a fox <lora:glow:1>", Lora_hashes=f'"glow: {digest}"')
        write(tmp_path / f"{number}.png", a1111(number, text))
    found = paired(tmp_path)
    assert [one.variant for one in found.pairs] == ["alphaMix_glow-1", "alphaMix_glow-1-2"]


def test_a_prompts_own_loras_tell_no_variants_apart(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        for place, (prompt, tag) in enumerate(zip(PROMPTS, ("", " <lora:glow:0.5>", " <lora:ink:1>"), strict=True)):
            picture = a1111(place + 10 * (name == "beta"), infotext(prompt + tag, model=name))
            write(tmp_path / f"{name}-{place}.png", picture)
    found = paired(tmp_path)
    assert list(dict.fromkeys(one.variant for one in found.pairs)) == ["alpha", "beta"]
    assert len(found.pairs) == 6
    assert "LoRAs that change from prompt to prompt" in notes(found)


def test_pictures_of_one_model_are_one_variant_with_samples_by_seed(tmp_path: Path) -> None:
    fill(tmp_path, "alpha", seeds=(9, 10, 2))
    found = paired(tmp_path)
    order = {one.sample: one.image.stem.split("-")[1] for one in found.pairs if one.prompt == "a fox"}
    assert order == {0: "2", 1: "9", 2: "10"}
    assert "all of one variant" in notes(found)


def test_the_syntax_of_prompts_is_that_of_their_program(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", a1111(1, infotext("a fox")))
    write(tmp_path / "c" / "1.png", comfy(graph()))
    write(tmp_path / "e" / "1.png", a1111(1, infotext("a (fox", Emphasis="None")))
    assert [paired(tmp_path / name).syntax for name in "ace"] == ["a1111", "comfyui", "plain"]
    write(tmp_path / "b" / "1.png", comfy(graph(model={"ckpt_name": "x"}), seed=2))
    write(tmp_path / "b" / "2.png", a1111(1, infotext("a fox")))
    found = paired(tmp_path / "b")
    assert found.syntax == "plain"
    assert "in the syntax of several programs" in notes(found)


# What is no pair.


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"Sampler": "Euler a"}, "sampler (dpmpp_2m, there euler_a)"),
        ({"CFG_scale": 5}, "CFG (7.0, there 5.0)"),
        ({"Steps": 30}, "steps (20, there 30)"),
        ({"Clip_skip": 2}, "clip skip (1, there 2)"),
        ({"RNG": "CPU"}, "RNG (GPU, there CPU)"),
        ({"Version": "f2.0.1v1.10.1-previous"}, "program (A1111, there Forge)"),
        ({"VAE_hash": "0123456789"}, "VAE hash (none, there 0123456789)"),
        ({"Seed": 77}, "none of this prompt has its seed"),
    ],
)
def test_what_differs_in_a_setting_is_no_pair_and_the_setting_is_named(said, words, tmp_path: Path) -> None:
    for name, number in (("old", 0), ("new", 100)):
        fill(tmp_path / name, name, start=number)
        odd = {"Seed": 3} | (said if name == "new" else {})
        write(tmp_path / name / "odd.png", a1111(number + 50, infotext("a fox", model=name, **odd)))
    found = paired(tmp_path)
    assert len(found.pairs) == 12
    assert f"of old, without a partner in new: {'it differs in ' if '(' in words else ''}{words}" in notes(found)
    assert "1 picture left out, of new, without a partner in old" in notes(found)


def test_folders_with_nothing_in_common_are_refused_with_what_each_has(tmp_path: Path) -> None:
    fill(tmp_path / "old", "old", seeds=(1,))
    fill(tmp_path / "new", "new", seeds=(2, 3))
    with pytest.raises(IncomparableError) as refused:
        paired(tmp_path)
    said = str(refused.value)
    assert "new has 6 pictures of 3 prompts, such as 'a fox', seeds 2, 3" in said
    assert "old has 3 pictures of 3 prompts, such as 'a fox', seeds 1" in said
    assert "none of this prompt has its seed" in said


def test_automatic_of_another_program_is_no_difference_of_its_own(tmp_path: Path) -> None:
    said = {"Sampler": "Euler", "Schedule_type": "Automatic"}
    write(tmp_path / "old" / "1.png", a1111(1, infotext("a fox", Version="neo", **said)))
    write(tmp_path / "new" / "1.png", a1111(2, infotext("a fox", Sampler="Euler")))
    with pytest.raises(IncomparableError, match=re.escape("it differs in program (A1111, there Forge).")):
        paired(tmp_path)


def test_a_collection_of_pictures_that_are_no_pairs_is_one_variant(tmp_path: Path) -> None:
    for number, prompt in enumerate(PROMPTS):
        write(tmp_path / f"{number}.png", a1111(number, infotext(prompt, model=f"{number}model")))
    found = paired(tmp_path)
    assert [(one.variant, one.prompt) for one in found.pairs] == [("images", prompt) for prompt in PROMPTS]
    assert "No picture of 0model, 1model and 2model is a pair with one of another" in notes(found)
    assert "several models: 0model" in notes(found)
    with pytest.raises(IncomparableError):
        paired(tmp_path, ("0model", "1model"))


def test_a_third_model_with_nothing_in_common_is_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path / "a", "a")
    fill(tmp_path / "b", "b", start=100)
    write(tmp_path / "c" / "1.png", a1111(900, infotext("a whale", model="c")))
    found = paired(tmp_path)
    assert {one.variant for one in found.pairs} == {"a", "b"}
    assert "of c, which has no picture in common with a: c/1.png" in notes(found)


def test_pictures_without_seeds_have_no_partners(tmp_path: Path) -> None:
    for name in ("old", "new"):
        fill(tmp_path / name, name, start=100 * (name == "new"))
        write(tmp_path / name / "x.png", a1111(500 + (name == "new"), infotext("a whale", model=name, Seed=None)))
    found = paired(tmp_path)
    assert len(found.pairs) == 12
    assert "the seed cannot be told: the picture does not say: new/x.png, old/x.png" in notes(found)


def test_a_batch_of_comfyui_cannot_be_paired_and_one_picture_can(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for place, changes in enumerate(({}, {"latent": {"width": 48, "height": 48, "batch_size": 4}})):
            found = graph(model={"ckpt_name": f"{name}.safetensors"}, **changes)
            write(tmp_path / name / f"{place}.png", comfy(found, seed=10 * place + (name == "two")))
    pairing = paired(tmp_path)
    assert {one.where for one in pairing.pairs} == {"one/0.png", "two/0.png"}
    assert "one of a batch, and which one is not stored: one/1.png, two/1.png" in notes(pairing)


def test_graphs_that_differ_beside_the_model_are_no_pair(tmp_path: Path) -> None:
    one = graph()
    two = graph(sampler={"model": ["f", 0]}) | {"f": node("FreeU", model=["model", 0], b1=1.1)}
    write(tmp_path / "one" / "1.png", comfy(one, seed=1))
    write(tmp_path / "two" / "1.png", comfy(two, seed=2))
    with pytest.raises(IncomparableError, match="another part of the graph"):
        paired(tmp_path)


def test_equal_settings_with_other_pixels_are_told_of_and_used_by_no_side(tmp_path: Path) -> None:
    for name in ("old", "new"):
        fill(tmp_path / name, name, start=100 * (name == "new"))
    text = infotext("a fox", model="new", Seed=1)
    write(tmp_path / "new" / "again.png", a1111(700, text))
    found = paired(tmp_path)
    assert len(found.pairs) == 10
    why = "equal to another in all that is said, and yet of other pixels"
    assert f"{why}: new/00100-1.png, new/again.png" in notes(found)


def test_many_reasons_are_counted_together(tmp_path: Path) -> None:
    for name in ("old", "new"):
        fill(tmp_path / name, name, start=100 * (name == "new"))
    for steps in range(30, 60):
        write(tmp_path / "old" / f"{steps}.png", a1111(steps, infotext("a fox", model="old", Steps=steps, Seed=1)))
    found = paired(tmp_path)
    assert sum("left out" in note for note in found.notes) == 13
    assert "18 more pictures left out, for other reasons" in notes(found)


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_the_names_of_files_do_not_count(order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        wanted = {}
        for number, name in enumerate(order):
            prompt, seed = PROMPTS[number % 3], number // 3
            for model in ("old", "new"):
                data = a1111(number + 50 * (model == "new"), infotext(prompt, model=model, Seed=seed))
                write(folder / model / f"{name}.png", data)
                wanted[model, prompt, seed] = data
        found = pair_pictures(read_pictures(folder), folder)
        assert {(one.variant, one.prompt, one.sample): one.image.read_bytes() for one in found.pairs} == wanted


# What is no picture of its own.


def test_grids_extras_and_copies_are_left_out_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "alpha")
    text = infotext("a fox", model="alpha", Seed=1)
    write(tmp_path / "xyz_grid-0000-1.png", a1111(50, text))
    write(tmp_path / "00050-1.png", a1111(51, text + ", Script: X/Y/Z plot, X Type: Seed"))
    write(tmp_path / "00051-1.png", a1111(52, text, size=(96, 96)))
    write(tmp_path / "00052-1.png", png({"parameters": text, "postprocessing": "x"}, seed=53))
    write(tmp_path / "00053-1.png", (tmp_path / "00000-1.png").read_bytes())
    write(tmp_path / "txt2img-grids" / "2024-05-01" / "grid-0000.png", a1111(54, text))
    drawn(55).save(tmp_path / "00054-1.jpg")
    (tmp_path / "00054-1.txt").write_text(text)
    drawn(56).save(tmp_path / "holiday.png")
    found = paired(tmp_path)
    assert len(found.pairs) == 6
    for words in (
        "a grid of pictures: 00050-1.png, xyz_grid-0000-1.png",
        "far larger than what was asked for: a grid, or upscaled after being drawn: 00051-1.png",
        "changed after being drawn (A1111's Extras): 00052-1.png",
        "the same picture under another name: 00053-1.png",
        "a folder of grids or of pictures changed after being drawn: txt2img-grids",
        "a copy of a picture in another format: 00054-1.jpg",
        "the prompt cannot be told: the picture carries no text of a program that is known: holiday.png",
    ):
        assert words in notes(found), words


def test_a_hires_picture_is_as_large_as_it_should_be(tmp_path: Path) -> None:
    text = infotext("a fox", Hires_upscale=2, Hires_upscaler="Latent", Denoising_strength=0.5)
    write(tmp_path / "1.png", a1111(1, text, size=(96, 96)))
    assert len(paired(tmp_path).pairs) == 1


def test_pictures_of_another_picture_are_paired_only_if_it_is_named(tmp_path: Path) -> None:
    for name in ("old", "new"):
        shift = 100 * (name == "new")
        for place, more in enumerate(({}, {"Init_image_hash": "0123456789"})):
            text = infotext("a fox", model=name, Denoising_strength=0.5, Seed=place, **more)
            write(tmp_path / name / f"{place}.png", a1111(shift + place, text))
    found = paired(tmp_path)
    assert {one.where for one in found.pairs} == {"old/1.png", "new/1.png"}
    assert "drawn from another picture, which is not named" in notes(found)


def test_links_and_hidden_files_are_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", a1111(1, infotext("a secret")))
    folder = tmp_path / "mine"
    fill(folder, "alpha", seeds=(1,))
    (folder / "link.png").symlink_to(secret)
    (folder / "more").symlink_to(tmp_path)
    write(folder / ".thumbnails" / "x.png", encoded(3))
    assert len(read_pictures(folder).found) == 3


# Layouts of benchmarks, and texts beside pictures.


def geneval(folder: Path, shift: int) -> None:
    for index, prompt in enumerate(PROMPTS):
        text = json.dumps({"tag": "two_object", "include": [], "prompt": prompt})
        write(folder / f"{index:05}" / "metadata.jsonl", text.encode())
        write(folder / f"{index:05}" / "grid.png", encoded(900 + index))
        for sample in range(2):
            write(folder / f"{index:05}" / "samples" / f"{sample:04}.png", encoded(shift + 10 * index + sample))


def test_genevals_folders(tmp_path: Path) -> None:
    geneval(tmp_path / "alone", 0)
    found = paired(tmp_path / "alone")
    assert {(one.prompt, one.sample) for one in found.pairs} == {(prompt, n) for prompt in PROMPTS for n in (0, 1)}
    assert {one.tags for one in found.pairs} == {("two_object",)}
    geneval(tmp_path / "both" / "base", 0)
    geneval(tmp_path / "both" / "spo", 500)
    found = paired(tmp_path / "both")
    assert len(found.pairs) == 12
    assert "place within the folder and settings" in notes(found)
    assert {(one.where.split("/", 1)[1], one.sample) for one in found.pairs if one.prompt == "a fox"} == {
        ("00000/samples/0000.png", 0),
        ("00000/samples/0001.png", 1),
    }


def test_hpdv2s_folders_of_styles(tmp_path: Path) -> None:
    for style in ("anime", "photo"):
        write(tmp_path / "benchmark" / f"{style}.json", json.dumps(list(PROMPTS)).encode())
        for number, model in enumerate(("base", "spo")):
            for index in (0, 2):
                data = encoded(100 * number + index + 50 * (style == "photo"), "JPEG")
                write(tmp_path / model / style / f"{index:05}.jpg", data)
    found = paired(tmp_path)
    assert {(one.variant, one.prompt) for one in found.pairs} == {
        (model, prompt) for model in ("base", "spo") for prompt in (PROMPTS[0], PROMPTS[2])
    }
    assert len(found.pairs) == 8
    write(tmp_path / "base" / "anime" / "00003.jpg", encoded(1, "JPEG"))
    with pytest.raises(SuiteError, match="has 3 prompts, and none of this number"):
        paired(tmp_path)


def test_hpdv2s_list_of_pictures(tmp_path: Path) -> None:
    entries = [{"prompt": PROMPTS[0], "image_path": ["1.jpg", "2.jpg"], "rank": [0, 1]}, {"prompt": PROMPTS[1]}]
    write(tmp_path / "test.json", json.dumps(entries).encode())
    for number in (1, 2):
        write(tmp_path / "test" / f"{number}.jpg", encoded(number, "JPEG"))
    assert lines(paired(tmp_path)) == {("test", PROMPTS[0], 0, "test/1.jpg"), ("test", PROMPTS[0], 1, "test/2.jpg")}


def test_texts_beside_pictures(tmp_path: Path) -> None:
    for name in ("old", "new"):
        for number, prompt in enumerate(PROMPTS):
            write(tmp_path / name / f"{number}.jpg", encoded(number + 10 * (name == "new"), "JPEG"))
            write(tmp_path / name / f"{number}.txt", f"{prompt}\n".encode())
    found = paired(tmp_path)
    assert len(found.pairs) == 6
    assert {one.prompt for one in found.pairs} == set(PROMPTS)


def test_a_layout_that_is_broken_is_named(tmp_path: Path) -> None:
    geneval(tmp_path, 0)
    (tmp_path / "00001" / "metadata.jsonl").write_text('{"prompt": 3}')
    with pytest.raises(SuiteError, match=r"metadata\.jsonl: is not GenEval's"):
        paired(tmp_path)


def test_pictures_that_say_nothing_say_so(tmp_path: Path) -> None:
    write(tmp_path / "a.png", encoded(1))
    assert says_nothing(read_pictures(tmp_path).found)
    with pytest.raises(SuiteError, match="holds no image by its name"):
        read_pictures(write(tmp_path / "none" / "x.txt", b"").parent)
