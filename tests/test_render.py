"""Rendering, with stages that paint from the seed in the place of a model."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import weakref
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

import bench.render
from bench.errors import MachineError, OutOfMemory
from bench.machine import release_memory
from bench.pictures.png import encode_png
from bench.pipeline import denoise as stages
from bench.pipeline.switch import base_of
from bench.records import Audit, CheckpointFacts, Prompt, Render, Settings, Suite, Variant
from bench.render import render
from bench.store import RunFolder
from bench.suite import image_seed, protocol_digest
from bench.suite.planned_images import missing_batches

SETTINGS = Settings(width=64, height=32, steps=2, guidance_scale=3.0, sampler="ddim", batch=4)
SUITE = Suite(
    schema=2,
    name="painted",
    prompt_files=("p.jsonl",),
    prompts=tuple(Prompt(id=name, text=f"a {name}", negative="blur") for name in ("fox", "pier", "hen")),
    samples=3,
    seed=11,
    metrics=(),
    settings=SETTINGS,
    variants=(Variant(name="base", checkpoint="mini"), Variant(name="spo", checkpoint="mini")),
)
BATCHES = [
    [("fox", 0), ("fox", 1), ("fox", 2), ("pier", 0)],
    [("pier", 1), ("pier", 2), ("hen", 0), ("hen", 1)],
    [("hen", 2)],
]
AUDIT = Audit(checkpoint=CheckpointFacts(layout="diffusers", family="sdxl"), dtype="float32")
SEED_OF = {
    (prompt.id, n): image_seed(SUITE.seed, prompt.id, n) for prompt in SUITE.prompts for n in range(SUITE.samples)
}
IMAGE_OF = {seed: key for key, seed in SEED_OF.items()}


def paint(seed):
    """The image that a seed stands for, float32 (height, width, 3) in [0, 1]."""
    return np.random.default_rng(seed).random((SETTINGS.height, SETTINGS.width, 3), np.float32)


class Encoded(str):
    """Stands for an encoded prompt: its text, without tensors."""

    prompt = pooled = negative = negative_pooled = None

    def to(self, device):
        assert device == "cpu", "a device would not hold those of thousands of prompts"
        return self


class Paint:
    """Stands for ``bench.pipeline.denoise``: latents are seeds, pixels are painted from them.

    ``spoil`` says what comes out of an image instead; ``log`` keeps what was asked for.
    """

    def __init__(self):
        self.spoil = {}
        self.encoded, self.batches, self.decoded = [], [], []
        self.before_batch = lambda number: None

    def encode_each(self, pipe, prompts, negatives, settings):
        self.encoded += zip(prompts, negatives, strict=True)
        return [Encoded(prompt) for prompt in prompts]

    def stack(self, rows):
        return tuple(rows)

    def noise(self, pipe, settings, seeds):
        return list(seeds)

    def denoise(self, pipe, settings, conditions, latents, seeds):
        assert [f"a {IMAGE_OF[seed][0]}" for seed in seeds] == list(conditions)
        assert latents == list(seeds)
        self.before_batch(len(self.batches))
        self.batches.append([IMAGE_OF[seed] for seed in seeds])
        return latents

    def decode_levels(self, pipe, latents, dtype=None):
        self.decoded.append(([IMAGE_OF[seed] for seed in latents], dtype))
        images = np.stack(
            [self.spoil.get(IMAGE_OF[seed], lambda image, dtype: image)(paint(seed), dtype) for seed in latents]
        )
        bad = (~np.isfinite(images)).sum(axis=(1, 2, 3))
        levels = np.rint(np.nan_to_num(images, posinf=1).clip(0, 1) * 255).astype(np.uint8)
        name = "float16" if dtype is None else str(dtype).removeprefix("torch.")
        return stages.Decoded(torch.from_numpy(levels), torch.from_numpy(bad), name, lambda: None)


@pytest.fixture
def painted(monkeypatch):
    stand_in = Paint()
    monkeypatch.setattr(bench.render.images, "stages", stand_in)
    monkeypatch.setattr(bench.render, "switch_variant", switch_variant)
    monkeypatch.setattr(bench.render, "release_memory", lambda: None)  # a collection takes a second here
    return stand_in


class Loaded(NamedTuple):
    """Stands for a loaded model."""

    pipe: SimpleNamespace
    base: tuple


def switch_variant(model, variant, settings, *, device, weights_dir):
    return Loaded(SimpleNamespace(device=torch.device(device)), base_of(variant)), AUDIT


@pytest.fixture
def folder(tmp_path):
    with RunFolder.open(tmp_path / "run", suite=SUITE, protocol_digest=protocol_digest(SUITE)) as opened:
        yield opened


def render_base(folder, device="cuda", **flags):
    """Of a GPU in name only."""
    return render(SUITE, folder, variants=SUITE.variants[:1], device=device, **flags)


def records(folder):
    return {(one.prompt_id, one.sample): one for one in folder.renders()}


# --- what is drawn -------------------------------------------------------------------------


def test_all_images_are_drawn_in_planned_batches_and_kept_as_they_were_painted(painted, folder):
    assert render_base(folder) == 9
    assert painted.batches == BATCHES
    for key, one in records(folder).items():
        png = (folder.path / one.image).read_bytes()
        assert one.sha256 == hashlib.sha256(png).hexdigest()
        expected = np.floor(paint(SEED_OF[key]) * 255 + 0.5)
        assert np.abs(np.asarray(Image.open(io.BytesIO(png))) - expected).max() <= 1
        assert (one.seed, one.batch) == (SEED_OF[key], next(n for n, batch in enumerate(BATCHES) if key in batch))
        assert (one.decode_dtype, one.error) == ("float16", None)


def test_each_prompt_is_encoded_once(painted, folder):
    render_base(folder)
    assert painted.encoded == [("a fox", "blur"), ("a pier", "blur"), ("a hen", "blur")]


def record(key, batch=0, image=None):
    return Render(
        variant="base",
        prompt_id=key[0],
        sample=key[1],
        seed=0,
        batch=batch,
        decode_dtype="float32",
        image=image,
        sha256=None if image is None else "0" * 64,
        error="black image" if image is None else None,
    )


@given(there=st.sets(st.sampled_from(sorted(SEED_OF))))
@hypothesis_settings(max_examples=60, deadline=None)
def test_batches_are_those_of_the_suite_whatever_is_left(there, tmp_path_factory):
    found = missing_batches(SUITE, "base", [record(key) for key in sorted(there)], tmp_path_factory.getbasetemp())
    assert [[(key.prompt_id, key.sample) for key in batch] for batch in found] == [
        batch for batch in BATCHES if not set(batch) <= there
    ]
    assert not missing_batches(SUITE, "base", [record(key) for key in SEED_OF], tmp_path_factory.getbasetemp())


@given(there=st.sets(st.sampled_from(sorted(SEED_OF))), only=st.sets(st.sampled_from(sorted(SEED_OF))))
@hypothesis_settings(max_examples=60, deadline=None)
def test_with_only_some_images_wanted_batches_are_those_that_lack_one_of_them(there, only, tmp_path_factory):
    renders = [record(key) for key in sorted(there)]
    found = missing_batches(SUITE, "base", renders, tmp_path_factory.getbasetemp(), only)
    drawn = [[(key.prompt_id, key.sample) for key in batch] for batch in found]
    assert drawn == [batch for batch in BATCHES if set(batch) & only - there]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_of_a_batch_just_the_images_that_are_wanted_are_written_and_the_rest_comes_later(painted, folder, device):
    only = {("pier", 1), ("hen", 2)}
    assert render_base(folder, device, only=only) == 2
    assert painted.batches == BATCHES[1:]
    assert records(folder).keys() == only
    before = {path: path.read_bytes() for path in folder.path.rglob("*.png")}
    assert len(before) == 2
    assert render_base(folder, device, only=only) == 0
    painted.batches.clear()
    assert render_base(folder, device) == 8
    assert painted.batches == BATCHES[:2]
    assert len(records(folder)) == 9
    assert {path: path.read_bytes() for path in before} == before


def test_progress_counts_the_images_that_are_wanted(painted, folder):
    told = []
    render_base(
        folder, only={("fox", 0), ("fox", 1)}, progress=lambda stage, done, total, note="": told.append((done, total))
    )
    assert told[0] == (0, 2)
    assert told[-1] == (2, 2)


def test_an_image_without_its_file_and_another_variants_image_count_for_nothing(tmp_path):
    kept = [record(key, image=f"images/base/{key[0]}-{key[1]}.png") for key in BATCHES[2]]
    assert len(missing_batches(SUITE, "base", kept, tmp_path)) == 3
    (tmp_path / "images" / "base").mkdir(parents=True)
    (tmp_path / "images" / "base" / "hen-2.png").touch()
    assert [batch[0].batch for batch in missing_batches(SUITE, "base", kept, tmp_path)] == [0, 1]
    assert len(missing_batches(SUITE, "spo", kept, tmp_path)) == 3


def test_a_batch_with_one_image_missing_is_drawn_whole_and_gives_the_same_bytes(painted, folder):
    render_base(folder)
    before = {path: path.read_bytes() for path in folder.path.rglob("*.png")}
    folder.image_path("base", "pier", 2).unlink()
    painted.batches.clear()
    assert render_base(folder) == 4
    assert painted.batches == [BATCHES[1]]
    assert {path: path.read_bytes() for path in folder.path.rglob("*.png")} == before


def test_a_variant_with_nothing_missing_is_not_even_loaded(painted, folder, monkeypatch):
    render_base(folder)
    loaded = []

    def load(model, variant, settings, **flags):
        loaded.append(variant.name)
        return switch_variant(model, variant, settings, **flags)

    monkeypatch.setattr(bench.render, "switch_variant", load)
    assert render(SUITE, folder, variants=SUITE.variants, device="cpu") == 9
    assert loaded == ["spo"]
    assert render(SUITE, folder, variants=SUITE.variants, device="cpu") == 0


def test_progress_counts_the_images_of_all_variants(painted, folder):
    told = []
    render(
        SUITE,
        folder,
        variants=SUITE.variants,
        device="cpu",
        progress=lambda stage, done, total, note="": told.append((stage, done, total, note)),
    )
    assert {(stage, total) for stage, _, total, _ in told} == {("render", 18)}
    assert [done for _, done, _, _ in told] == [0, 4, 8, 9, 9, 13, 17, 18]
    assert [note for *_, note in told] == ["loading base", *["base"] * 3, "loading spo", *["spo"] * 3]


# --- images that cannot be had -------------------------------------------------------------


def test_nan_is_decoded_once_more_in_float32_alone(painted, folder):
    overflow = np.float32(np.nan)
    painted.spoil = {("pier", 2): lambda image, dtype: image if dtype == torch.float32 else image * overflow}
    render_base(folder)
    assert ([("pier", 2)], torch.float32) in painted.decoded
    assert len(painted.decoded) == len(BATCHES) + 1
    found = records(folder)
    assert {key for key, one in found.items() if one.decode_dtype == "float32"} == {("pier", 2)}
    assert {one.error for one in found.values()} == {None}
    with Image.open(folder.image_path("base", "pier", 2)) as image:
        assert np.abs(np.asarray(image) - paint(SEED_OF["pier", 2]) * 255).max() <= 1


def one_bad_value(value):
    def spoil(image, dtype):
        image[3, 5, 1] = value
        return image

    return spoil


BROKEN = {
    "nan": (one_bad_value(np.nan), "1 of 6144 decoded values are NaN or infinite", "float32"),
    "infinite": (one_bad_value(np.inf), "1 of 6144 decoded values are NaN or infinite", "float32"),
    "black": (lambda image, dtype: image * 0, "black image: no value is above 0 of 255", "float16"),
    "uniform": (lambda image, dtype: image * 0 + 0.5, "uniform image: every pixel is about (128, 128, 128)", "float16"),
    "black in float32": (
        lambda image, dtype: image * (0 if dtype == torch.float32 else np.nan),
        "black image: no value is above 0 of 255",
        "float32",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_a_record_with_its_reason_and_costs_no_other(kind, painted, folder):
    painted.spoil[("fox", 1)], reason, dtype = BROKEN[kind]
    assert render_base(folder) == 9
    found = records(folder)
    broken = found.pop(("fox", 1))
    assert (broken.image, broken.sha256, broken.decode_dtype) == (None, None, dtype)
    assert broken.error == reason
    assert broken.seed == SEED_OF["fox", 1]
    assert not folder.image_path("base", "fox", 1).exists()
    assert len(found) == 8
    assert all(one.error is None and (folder.path / one.image).is_file() for one in found.values())
    assert render_base(folder) == 0, "a failure is recorded: it is not tried again on every run"


def test_images_of_the_wrong_size_are_records(painted, folder):
    painted.spoil = {key: lambda image, dtype: image[:, 8:] for key in BATCHES[0]}
    render_base(folder)
    errors = {key: one.error for key, one in records(folder).items() if one.error is not None}
    assert errors == dict.fromkeys(BATCHES[0], "wrong size: rows x columns x channels are 32 x 56 x 3, not 32 x 64 x 3")


# --- the order of writes -------------------------------------------------------------------


def test_records_come_batch_by_batch_after_their_pngs(painted, folder, monkeypatch):
    write, append, appended = folder.write_image, folder.append_renders, []

    def slow_write(*arguments):
        time.sleep(0.02)
        return write(*arguments)

    def checked_append(batch):
        batch = list(batch)
        assert all((folder.path / one.image).read_bytes() for one in batch)
        appended.append([(one.prompt_id, one.sample) for one in batch])
        append(batch)

    monkeypatch.setattr(folder, "write_image", slow_write)
    monkeypatch.setattr(folder, "append_renders", checked_append)
    render_base(folder)
    assert appended == BATCHES


def test_a_batch_is_on_record_while_the_next_one_is_drawn(painted, folder):
    seen = []

    def wait(number):
        # As a kill in the middle of a batch finds it: only the batch that is being drawn may be lost.
        until = time.monotonic() + 10
        while len(folder.renders()) < 4 * number and time.monotonic() < until:
            time.sleep(0.005)
        seen.append(len(folder.renders()))

    painted.before_batch = wait
    render_base(folder)
    assert seen == [0, 4, 8]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_batch_is_drawn_while_the_one_before_is_written(painted, folder, monkeypatch, device):
    """But for the first, which is on record before the second is begun; and no two are unwritten behind one drawn."""
    write, drawing, seen = folder.write_image, threading.Event(), []

    def slow_write(variant, prompt_id, *rest):
        if (prompt_id, rest[0]) in BATCHES[1]:
            assert drawing.wait(10), "the third batch is begun before the second is on the disk"
        return write(variant, prompt_id, *rest)

    def begin(number):
        seen.append(len(folder.renders()))
        if number == 2:
            drawing.set()

    monkeypatch.setattr(folder, "write_image", slow_write)
    painted.before_batch = begin
    render_base(folder, device=device)
    assert seen == [0, 4, 4]
    assert len(folder.renders()) == 9


def test_batches_that_are_decoded_again_are_on_record_before_the_next_one_is_drawn(painted, folder, monkeypatch):
    """Whichever they are; and never do two threads append at once."""
    overflow = {key: lambda image, dtype: image * (1 if dtype == torch.float32 else np.nan) for key in SEED_OF}
    append, at_work, seen = folder.append_renders, threading.Lock(), []

    def alone(batch):
        assert at_work.acquire(blocking=False), "the journal has one writer"
        time.sleep(0.02)
        append(batch)
        at_work.release()

    monkeypatch.setattr(folder, "append_renders", alone)
    painted.spoil = overflow
    painted.before_batch = lambda number: seen.append(len(folder.renders()))
    render_base(folder)
    assert seen == [0, 4, 8]
    assert [(one.prompt_id, one.sample) for one in folder.renders()] == [key for batch in BATCHES for key in batch]
    assert {one.decode_dtype for one in folder.renders()} == {"float32"}


def test_one_batch_in_the_midst_is_decoded_again_by_one_writer(painted, folder, monkeypatch):
    painted.spoil = dict.fromkeys(BATCHES[1], lambda image, dtype: image * (1 if dtype == torch.float32 else np.nan))
    append, threads = folder.append_renders, set()

    def named(batch):
        threads.add(threading.current_thread().name)
        append(batch)

    monkeypatch.setattr(folder, "append_renders", named)
    assert render_base(folder) == 9
    assert len(threads) == 1
    assert set(records(folder)) == set(SEED_OF)
    again = {key for key, one in records(folder).items() if one.decode_dtype == "float32"}
    assert again == set(BATCHES[1])


@pytest.mark.parametrize("words", ["CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"])
def test_want_of_memory_says_what_needs_less(words, painted, folder):
    def fail(_):
        raise RuntimeError(words)

    painted.before_batch = fail
    with pytest.raises(OutOfMemory, match="A batch of 4 images of 64x32") as caught:
        render_base(folder)
    assert "batch = 2" in caught.value.hint


def test_another_error_of_the_device_is_itself(painted, folder):
    def fail(_):
        raise RuntimeError("an illegal memory access was encountered")

    painted.before_batch = fail
    with pytest.raises(RuntimeError, match="illegal"):
        render_base(folder)


def test_what_was_loaded_is_let_go_of_at_the_end(painted, folder, monkeypatch):
    held = []

    class FileCheckpoint:
        """Holds itself in a cycle, as pipelines do."""

        def __init__(self, variant):
            self.pipe, self.base, self.itself = SimpleNamespace(device=torch.device("cpu")), base_of(variant), self

    def load(model, variant, settings, **flags):
        fresh = FileCheckpoint(variant)
        held.append(weakref.ref(fresh))
        return fresh, AUDIT

    monkeypatch.setattr(bench.render, "switch_variant", load)
    monkeypatch.setattr(bench.render, "release_memory", release_memory)
    render_base(folder)
    assert [one() for one in held] == [None]


def test_an_interrupt_keeps_the_batches_that_were_drawn(painted, folder):
    def interrupt(number):
        if number == 2:
            raise KeyboardInterrupt

    painted.before_batch = interrupt
    with pytest.raises(KeyboardInterrupt):
        render_base(folder)
    assert list(records(folder)) == BATCHES[0] + BATCHES[1]
    painted.before_batch = lambda number: None
    painted.batches.clear()
    assert render_base(folder) == 1
    assert painted.batches == [BATCHES[2]]


def test_a_png_that_cannot_be_written_keeps_its_batch_off_the_record(painted, folder, monkeypatch):
    write = folder.write_image

    def full(variant, prompt_id, sample, png):
        if (prompt_id, sample) == ("hen", 0):
            raise MachineError("the disk is full")
        return write(variant, prompt_id, sample, png)

    monkeypatch.setattr(folder, "write_image", full)
    with pytest.raises(MachineError, match="the disk is full"):
        render_base(folder)
    assert set(BATCHES[0]) <= set(records(folder))
    assert not set(BATCHES[1]) & set(records(folder))


# --- PNG -----------------------------------------------------------------------------------


def test_a_png_is_its_pixels_and_nothing_that_changes():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    png = encode_png(pixels)
    assert png == encode_png(pixels.copy())
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert np.array_equal(np.asarray(image), pixels)
