"""What the first batch of a variant tells: said at once, and kept as a note of the run."""

from __future__ import annotations

import msgspec
import pytest
import tiny
import torch

from bench.pipeline import denoise as stages
from bench.records import RunOptions, Settings
from bench.render.images import Drawn, first_batch_warning
from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite

HALF = Settings(width=64, height=64, steps=1, guidance_scale=1.0, sampler="ddim", dtype="float16", batch=2)
GOOD, AGAIN = Drawn(None, "float16", None), Drawn(None, "float32", None)
BLACK = Drawn(None, "float32", "black image: no value is above 0 of 255")


def test_a_good_batch_tells_nothing() -> None:
    assert first_batch_warning([GOOD, GOOD], HALF, "float16") == ""
    upcast = "float32"  # a VAE that says of itself that it overflows
    assert first_batch_warning([AGAIN, AGAIN], HALF, upcast) == ""
    one_broken = first_batch_warning([GOOD, Drawn(None, "float16", "uniform image")], HALF, "float16")
    assert one_broken == "", "one broken image is no reason to expect more"


@pytest.mark.parametrize("images", [[AGAIN, GOOD], [AGAIN, AGAIN]])
def test_an_overflow_is_told_with_its_remedy(images: list[Drawn]) -> None:
    told = first_batch_warning(images, HALF, "float16")
    assert f"overflows in float16: {images.count(AGAIN)} of the first 2 images" in told
    assert "madebyollin/sdxl-vae-fp16-fix" in told


def test_a_batch_without_any_image_is_told_with_its_reason() -> None:
    told = first_batch_warning([BLACK, BLACK], HALF, "float16")
    assert told.startswith("every image of the first batch is broken (black image: no value is above 0 of 255)")
    assert "fp16-fix" in told
    assert "go together" in first_batch_warning([BLACK], msgspec.structs.replace(HALF, dtype="float32"), "float32")


def test_a_run_whose_vae_overflows_says_so_from_the_first_batch_on(tmp_path, monkeypatch) -> None:
    """The decoder overflows in half precision, as an fp16 VAE of SDXL does; in float32 it does not."""
    real = stages.decode_pixels

    def overflowing(pipe, latents, dtype):
        pixels = real(pipe, latents, dtype)
        return pixels if dtype == torch.float32 else pixels * float("nan")

    monkeypatch.setattr(stages, "decode_pixels", overflowing)
    suite = load_suite(str(tiny.write_tiny(tmp_path, "batch = 4", 'batch = 2\ndtype = "bfloat16"')))
    suite = msgspec.structs.replace(suite, variants=suite.variants[:1], prompts=suite.prompts[:2])
    told: list[str] = []
    folder = tmp_path / "run"
    run_stage(
        "render",
        suite,
        folder,
        RunOptions(device="cpu"),
        progress=lambda stage, done, total, note="": told.append(note),
    )
    run = load_run(folder)
    assert {(one.decode_dtype, one.error) for one in run.renders} == {("float32", None)}
    (note,) = [note for note in run.info.settings_notes if note.startswith("Variant base")]
    assert "overflows in bfloat16: 2 of the first 2 images were decoded again in float32" in note
    assert f"Variant {told[1]}." == note
    assert told[1] == told[2], "it stays in sight"
