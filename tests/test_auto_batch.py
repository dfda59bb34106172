"""``batch = "auto"``: chosen once, part of the run's identity, and halved only while nothing was drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import tiny
import torch

import bench.render
import bench.run
from bench.errors import InvalidError, OutOfMemory, SuiteError
from bench.render import auto_batch as fitting
from bench.render.auto_batch import UNMEASURED_BATCH, largest_batch
from bench.run import RunOptions, run_stage
from bench.store import load_run
from bench.suite import load_suite, plan_images

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory):
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"), "batch = 4", 'batch = "auto"')))


def test_a_suite_leaves_the_batch_open(auto) -> None:
    assert auto.settings.batch is None
    with pytest.raises(ValueError, match="not chosen yet"):
        plan_images(auto)


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"settings\.batch"):
        load_suite(str(tiny.write_tiny(tmp_path, "batch = 4", 'batch = "large"')))


def test_without_a_device_of_its_own_memory_it_is_a_fixed_one(auto) -> None:
    assert largest_batch(auto, device="cpu", weights_dir=None) == UNMEASURED_BATCH
    assert largest_batch(replace(auto, prompts=auto.prompts[:1]), device="cpu", weights_dir=None) == 2


class Card:
    """Stands for a GPU of 24 GiB of which another process holds 8; a batch needs 5 GiB and 1.5 an image."""

    def __init__(self, monkeypatch, error: Exception | None = None) -> None:
        self.error, self.held, self.peak = error, 5.0, 0.0
        self.drawn: list[int] = []
        self.eager: list[bool] = []
        self.network = torch.nn.Linear(1, 1)
        self.network._compiled_call_impl = lambda *_: None  # type: ignore[assignment]
        model = SimpleNamespace(pipe=SimpleNamespace(unet=self.network, vae=torch.nn.Linear(1, 1)))
        monkeypatch.setattr(fitting, "switch_variant", lambda *_, **__: (model, None))
        monkeypatch.setattr(fitting, "encode_prompts", lambda *_: {})
        monkeypatch.setattr(fitting, "draw_batch", self.draw)
        monkeypatch.setattr(fitting, "release_memory", lambda: setattr(self, "held", 5.0))
        bytes_of = {
            "mem_get_info": lambda _: (int((16 - self.held) * 2**30), 24 * 2**30),
            "memory_reserved": lambda _: int(self.held * 2**30),
            "max_memory_reserved": lambda _: int(self.peak * 2**30),
            "reset_peak_memory_stats": lambda _: setattr(self, "peak", self.held),
        }
        for name, function in bytes_of.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def draw(self, pipe, settings, cells, encoded) -> None:
        self.drawn.append(len(cells))
        self.eager.append(self.network._compiled_call_impl is None)
        if self.error is not None:
            raise self.error
        self.held = self.peak = 5 + 1.5 * len(cells)


def test_the_largest_batch_leaves_a_margin_of_what_is_free_or_ours(auto, monkeypatch) -> None:
    card = Card(monkeypatch)
    many = replace(auto, samples=32)
    assert largest_batch(many, device="cuda", weights_dir=None) == 4  # 11 of 16 GiB; 8 images would need 17
    assert card.drawn == [1, 2, 4, 8]
    assert all(card.eager), "compiling for each size would take minutes"
    assert card.network._compiled_call_impl is not None


def test_no_batch_fits_in_words_of_whatever_library(auto, monkeypatch) -> None:
    card = Card(monkeypatch, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    with pytest.raises(OutOfMemory):
        largest_batch(auto, device="cuda", weights_dir=None)
    assert card.network._compiled_call_impl is not None


def test_an_error_that_is_not_of_memory_is_itself(auto, monkeypatch) -> None:
    Card(monkeypatch, RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        largest_batch(auto, device="cuda", weights_dir=None)


class Renderer:
    """Stands for rendering: out of memory above a batch."""

    def __init__(self, monkeypatch, most: int) -> None:
        self.asked: list[int] = []
        self.most = most
        monkeypatch.setattr(bench.render, "largest_batch", lambda suite, **_: 8)
        monkeypatch.setattr(bench.render, "render", self.render)

    def render(self, suite, folder, **_):
        self.asked.append(suite.settings.batch)
        if suite.settings.batch > self.most:
            raise OutOfMemory("does not fit")
        return 0


def test_out_of_memory_halves_the_batch_and_the_run_remembers_it(auto, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    renderer = Renderer(monkeypatch, most=2)
    with pytest.raises(InvalidError, match="12 images still to render"):  # this one draws nothing
        run_stage(
            "render",
            auto,
            tmp_path / "run",
            RunOptions(device="cpu"),
            progress=lambda stage, done, total, note="": told.append(note),
        )
    assert renderer.asked == [8, 4, 2]
    info = load_run(tmp_path / "run").info
    assert info.suite.settings.batch == 2
    assert "Batches are of 2: the memory did not hold 4." in info.settings_notes
    assert "out of memory: going on with batches of 4" in told
    renderer.asked.clear()
    with pytest.raises(InvalidError):
        run_stage("render", auto, tmp_path / "run", RunOptions(device="cpu"))
    assert renderer.asked == [2], "a run that is continued keeps its batch"


def test_not_even_one_image_fits(auto, tmp_path, monkeypatch) -> None:
    renderer = Renderer(monkeypatch, most=0)
    with pytest.raises(OutOfMemory):
        run_stage("render", auto, tmp_path / "run", RunOptions(device="cpu"))
    assert renderer.asked == [8, 4, 2, 1]


def test_a_suite_that_names_its_batch_keeps_it(auto, tmp_path, monkeypatch) -> None:
    renderer = Renderer(monkeypatch, most=2)
    named = replace(auto, settings=replace(auto.settings, batch=4))
    with pytest.raises(OutOfMemory):
        run_stage("render", named, tmp_path / "run", RunOptions(device="cpu"))
    assert renderer.asked == [4]
