"""Pictures that are put aside once decoded: the same pixels, within a limit, and gone with the scoring."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fake_metrics import FakeMetrics, facts, nulls, rendered, values
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from bench.metrics import Inputs, metric, registry_of
from bench.records import Render
from bench.score import score
from bench.score.decoded import DecodedPictures
from bench.score.images import ImageFileError, read_image

MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "JPEG": ("L", "RGB", "CMYK"), "WEBP": ("RGB", "RGBA")}
NAMED_MODES = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def saved(folder: Path, image: Image.Image, kind: str = "PNG", name: str = "a") -> Render:
    """The image as a file of the folder, and its record."""
    path = folder / name
    image.save(path, kind)
    return Render(
        variant="base",
        prompt_id="p",
        sample=0,
        seed=1,
        batch=1,
        decode_dtype="float32",
        image=name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        pixels_sha256="0" * 64,
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")


@given(st.sampled_from(NAMED_MODES), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_picture_that_was_put_aside_is_the_same_in_every_mode(
    named: tuple[str, str], width: int, height: int, seed: int
) -> None:
    kind, mode = named
    image = noise(width, height, seed)
    if "A" in mode:
        image.putalpha(255)
    with tempfile.TemporaryDirectory() as place:
        render = saved(Path(place), image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode), kind)
        expected = read_image(Path(place), render)
        with DecodedPictures(Path(place)) as pictures:
            pictures.read(render)
            (Path(place) / "a").unlink()
            found = pictures.read(render)
            assert pictures.pixels(render) == width * height
    assert (found.mode, found.size, found.tobytes()) == (expected.mode, expected.size, expected.tobytes())
    for wanted in ("RGB", "RGBA", "L"):
        assert found.convert(wanted).tobytes() == expected.convert(wanted).tobytes()
    assert found.resize((7, 5), 3).tobytes() == expected.resize((7, 5), 3).tobytes()


def test_what_does_not_fit_within_the_limit_is_decoded_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renders = [saved(tmp_path, noise(20, 10, seed).convert("RGB"), name=str(seed)) for seed in range(3)]
    decoded: list[str | None] = []

    def reading(folder: Path, render: Render) -> Image.Image:
        decoded.append(render.image)
        return read_image(folder, render)

    monkeypatch.setattr("bench.score.decoded.read_image", reading)
    with DecodedPictures(tmp_path, limit_bytes=2 * 600 + 599) as pictures:
        for _ in range(3):
            for render in renders:
                assert pictures.read(render).tobytes() == read_image(tmp_path, render).tobytes()
    assert sorted(decoded) == ["0", "1", "2", "2", "2"]


def test_nothing_is_put_aside_in_the_last_pass(tmp_path: Path) -> None:
    render = saved(tmp_path, noise(8, 8))
    with DecodedPictures(tmp_path) as pictures:
        pictures.keep_no_more()
        pictures.read(render)
        (tmp_path / "a").unlink()
        with pytest.raises(ImageFileError, match="missing"):
            pictures.read(render)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_full_disk_costs_only_time(tmp_path: Path) -> None:
    render = saved(tmp_path, noise(8, 8).convert("RGB"))
    with DecodedPictures(tmp_path) as pictures, Path("/dev/full").open("r+b", buffering=0) as full:
        os.dup2(full.fileno(), pictures._file.fileno())
        for _ in range(2):
            assert pictures.read(render).tobytes() == read_image(tmp_path, render).tobytes()


def test_a_picture_that_is_damaged_or_another_one_is_not_put_aside(tmp_path: Path) -> None:
    render = saved(tmp_path, noise(8, 8))
    with DecodedPictures(tmp_path) as pictures:
        for _ in range(2):
            with pytest.raises(ImageFileError, match="changed since"):
                pictures.read(replace(render, sha256="f" * 64))


def test_nothing_of_it_stays_in_the_run_folder_even_while_it_is_scored(tmp_path: Path) -> None:
    seen: list[set[Path]] = []
    with rendered(tmp_path) as folder:
        before = set(tmp_path.iterdir())
        score(folder, registry=FakeMetrics().registry, progress=lambda *told: seen.append(set(tmp_path.iterdir())))
    assert set.union(*seen) <= before | {tmp_path / "scores.jsonl"}


def test_scores_do_not_depend_on_what_was_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rendered(tmp_path / "kept") as folder:
        score(folder, registry=FakeMetrics().registry)
        expected = values(folder)
    monkeypatch.setattr("bench.score.decoded.SHARE", 2**80)
    with rendered(tmp_path / "not") as folder:
        score(folder, registry=FakeMetrics().registry)
        assert values(folder) == expected


def test_each_pair_of_samples_is_compared_once_and_each_sample_has_all_its_pairs(tmp_path: Path) -> None:
    compared: list[tuple[float, float]] = []

    def gap(image, other):  # type: ignore[no-untyped-def]
        compared.append((float(image.mean()), float(other.mean())))
        image.zero_()  # what one call does to its pixels must not be seen by the next
        return (image.mean() + compared[-1][0] - compared[-1][1]).abs().reshape(1)

    def mean_gap(inputs: Inputs):  # type: ignore[no-untyped-def]
        assert inputs.pair_values is not None
        return sum(inputs.pair_values) / len(inputs.pair_values)

    declared = metric(facts("gap"), needs_other_samples=True, of_pair=gap)(mean_gap)
    with rendered(tmp_path, metrics=("gap",), prompts=2, samples=3) as folder:
        score(folder, registry=registry_of(declared))
        assert set(nulls(folder, "gap").values()) == set()
        found = values(folder)
        means = {
            key[:3]: float(np.asarray(Image.open(folder.image_path(*key[:3])).convert("RGB"), np.float32).mean() / 255)
            for key in found
        }
    assert len(compared) == 3 * 2 * 3  # variants, prompts, pairs
    for (variant, prompt_id, sample, _), value in found.items():
        others = [means[variant, prompt_id, other] for other in range(3) if other != sample]
        assert value == pytest.approx(
            np.mean([abs(means[variant, prompt_id, sample] - one) for one in others]), abs=1e-5
        )
