"""The figures of a full-size run, computed at a size that a CPU does in seconds: the code, not the numbers."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from figures import card_edges, card_memory, full_script, full_size
from figures.commands import GIB
from figures.figure import FailedFigure, Figure, figure_of, plain_figure
from figures.full_bench import FULL, TINY, Bench, Size, set_up, suite_of, timed
from figures.full_script import call_each
from figures.rendering import batches, denoise_and_decode, prepare
from figures.switching import figure_apply

from bench.metrics import Place
from bench.pipeline.switch import load_pipeline, switch_variant
from bench.records import Dtype, Settings, Variant
from bench.render import draw_batch
from bench.store import load_run


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, list[Figure | FailedFigure]]]:
    """What was set up for the small size, and every figure of it."""
    with set_up(TINY, tmp_path_factory.mktemp("figures")) as bench_:
        yield bench_, list(full_size.figures_of(bench_))


def test_every_figure_comes_out_at_a_small_size(computed) -> None:
    found = {figure.figure: figure for figure in computed[1]}
    assert list(found) == [
        "render_over_floor",
        "issue_over_draw",
        "gap_between_batches_s",
        "vae_peak_4_over_1",
        "vae_sliced_over_batched",
        "switch_s",
        "range_over_plain",
        "score_over_encoders",
        "script_same_batch_over_render",
        "script_over_render",
    ]
    for figure in found.values():
        assert 0 < figure.value < 1000
        assert figure.where == "cpu"


def test_the_script_gives_the_scores_of_the_panel(computed) -> None:
    """One image at a time, padded by nobody: the same numbers as ``score``, but for rounding."""
    bench_ = computed[0]
    scored = bench_.place / "scored-0"
    run = load_run(scored)
    prompts = {prompt.id: prompt.text for prompt in bench_.suite.prompts}
    drawn = {
        (item.variant, item.prompt_id, item.sample): (scored / item.image, prompts[item.prompt_id])
        for item in run.renders
    }
    place = Place("cpu", bench_.weights)
    for metric in bench_.registry.metrics.values():
        ours = [one for one in run.scores if one.metric == metric.facts.name]
        assert len(ours) == len(drawn) > 1
        files = [drawn[one.variant, one.prompt_id, one.sample] for one in ours]
        encoder = bench_.registry.encoders[metric.facts.encoder].load(place)
        head = None if metric.load_head is None else metric.load_head(place)
        assert call_each(metric, encoder, head, files, "cpu") == pytest.approx([one.value for one in ours], abs=2e-3)


def test_a_machine_without_cuda_is_told_so(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    full_size.main()
    assert capsys.readouterr().out.startswith("There is no CUDA device here")


def test_compiling_is_told_apart_and_no_part_of_what_is_timed(tmp_path, monkeypatch) -> None:
    """The script draws one image at a time with nothing compiled, as its users do."""
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        compiled.append(graph)
        return graph.forward

    def quiet(size: Size, work: Callable[[], Any]) -> float:
        before = len(compiled)
        seconds = timed(size, work)
        assert len(compiled) == before, "something was compiled while it was timed"
        return seconds

    def loading(variant: Variant, settings: Settings, *, device: str) -> Any:
        loaded.append(settings.compile)
        return load_pipeline(variant, settings, device=device)

    loaded: list[bool] = []
    real, whole = UNet2DConditionModel.compile_repeated_blocks, torch.nn.Module.compile
    monkeypatch.setattr(
        UNet2DConditionModel, "compile_repeated_blocks", lambda unet, **given: real(unet, backend=backend, **given)
    )
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **given: whole(module, **{"backend": backend, **given})
    )
    monkeypatch.setattr(full_script, "timed", quiet)
    monkeypatch.setattr(full_script, "load_pipeline", loading)
    torch._dynamo.reset()
    with set_up(dataclasses.replace(TINY, prompts=1, compile=True), tmp_path) as bench_:
        assert "compiled" in os.environ["TORCHINDUCTOR_CACHE_DIR"]
        assert card_edges.compile_s(bench_).value > 0
        blocks = len(compiled)
        assert blocks > 0
        assert card_edges.whole_compile_s(bench_).value > 0
        assert len(compiled) == blocks + 2, "the UNet and the decoder"
        assert card_edges.whole_over_blocks(bench_).value > 0
        assert len(compiled) == blocks + 2
        torch._dynamo.reset()
        assert full_script.script_over_render(bench_).value > 0
    torch._dynamo.reset()
    assert loaded == [False] * 3
    assert TINY.compile is False
    assert FULL.compile is True


def test_the_time_of_compiling_comes_first_where_anything_is_compiled(tmp_path, monkeypatch) -> None:
    def named(name: str) -> Any:
        figure = partial(lambda name, _: plain_figure(name, [1.0]), name)
        figure.__name__ = name  # type: ignore[attr-defined]
        return figure

    names = ("render_over_floor", "switch", "range_over_plain")
    names += ("score_over_encoders", "script_same_batch_over_render", "script_over_render")
    for name in names:
        monkeypatch.setattr(full_size, name, named(name))
    monkeypatch.setattr(full_size, "COMPILING", (named("compile_s"), named("whole_compile_s")))
    monkeypatch.setattr(full_size, "EDGES", (named("issue_over_draw"),))
    monkeypatch.setattr(full_size, "set_up", lambda size, _: nullcontext(SimpleNamespace(size=size)))
    compiling = dataclasses.replace(TINY, compile=True)
    names = (names[0], "issue_over_draw", *names[1:])
    assert [one.figure for one in full_size.figures(compiling)] == ["compile_s", "whole_compile_s", *names]
    assert [one.figure for one in full_size.figures(TINY)] == [*names]


def test_a_figure_that_fails_loses_no_other(capsys, monkeypatch) -> None:
    """One that raises in the midst of the others, one that ends as a command does, and the last one."""

    def broken(_: object) -> Figure:
        raise RuntimeError("Expected all tensors to be\non the same device")

    def no_score(_: object) -> Figure:
        raise SystemExit("No score: black")

    def good(_: object) -> Figure:
        return figure_of("switch_s", [0.25], "<=", 0.5)

    for name, figure in {"render_over_floor": broken, "score_over_encoders": no_score}.items():
        figure.__name__ = name
        monkeypatch.setattr(full_size, name, figure)
    monkeypatch.setattr(full_size, "switch", good)
    monkeypatch.setattr(full_size, "range_over_plain", good)
    monkeypatch.setattr(full_size, "script_over_render", good)
    monkeypatch.setattr(full_size, "script_same_batch_over_render", good)
    monkeypatch.setattr(full_size, "EDGES", ())
    monkeypatch.setattr(full_size, "figure_switch", lambda: (figure_of("reload_over_switch", [12.0], ">=", 10),))
    monkeypatch.setattr(full_size, "FULL", TINY)
    monkeypatch.setattr(full_size, "ON_GPU", ())
    monkeypatch.setattr(full_size, "CARDS", {"peak_12gb_batch1": (12, 1)})
    monkeypatch.setattr(full_size, "peak_figure", lambda name, _: figure_of(name, [9.5], "<=", 12))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(SystemExit) as ended:
        full_size.main()
    assert ended.value.code == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [one["figure"] for one in found] == [
        "peak_12gb_batch1",
        "render_over_floor",
        "switch_s",
        "switch_s",
        "score_over_encoders",
        "switch_s",
        "switch_s",
        "reload_over_switch",
    ]
    assert found[1]["error"] == "RuntimeError: Expected all tensors to be on the same device"
    assert found[4]["error"] == "SystemExit: No score: black"
    assert "Traceback" in told.err


def test_each_runtime_is_held_against_the_same_model_as_it_is_written(monkeypatch) -> None:
    monkeypatch.setattr(full_size, "ON_GPU", ("deepcache:1", "torchao-int8-weights", "torchao-fp8+compile"))
    cached, quantised, lost = full_size.of_runtimes(TINY)
    assert (cached.figure, quantised.figure) == ("deepcache_1_over_plain", "torchao_int8_weights_over_plain")
    assert min(cached.value, quantised.value) > 0
    assert isinstance(lost, FailedFigure)
    assert "products of 8-bit floats need" in lost.error


def test_what_is_lost_before_the_first_figure_is_said(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(full_size, "set_up", full)
    (lost,) = full_size.attempt("full_size", lambda: full_size.figures(TINY))
    assert lost == FailedFigure(figure="full_size", error="OSError: No space left on device")


def test_a_lora_is_applied_and_taken_out_by_both() -> None:
    (figure,) = figure_apply("tiny")
    assert (figure.figure, figure.n, figure.where) == ("lora_apply_over_diffusers", 3, "cpu")
    assert 0 < figure.min <= figure.value


# --- memory on a smaller card --------------------------------------------------------------


@pytest.fixture
def card(monkeypatch) -> SimpleNamespace:
    """A CUDA of 80 GiB made of numbers; ``limits`` are the GiB that the process was allowed, one after another."""
    made = SimpleNamespace(limits=[], kept=[], asked=[], peak=9.25)
    answers = {
        "current_device": lambda: 0,
        "get_device_properties": lambda device: SimpleNamespace(total_memory=80 * GIB),
        "set_per_process_memory_fraction": lambda fraction: made.limits.append(round(80 * fraction, 6)),
        "mem_get_info": lambda device=None: (70 * GIB, 80 * GIB),
        "memory_reserved": lambda device=None: 5 * GIB,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "max_memory_reserved": lambda: made.peak * GIB,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)

    def turning(*given: Any, **named: Any) -> Any:
        made.asked.append([one // GIB for one in torch.cuda.mem_get_info("cuda:0")])
        model, audit = switch_variant(*given, **named)
        made.kept.append(len(model.original))
        return model, audit

    monkeypatch.setattr(card_memory, "switch_variant", turning)
    return made


def test_the_peak_is_of_a_changed_variant_within_the_memory_of_the_card(card, monkeypatch) -> None:
    drawn: list[int] = []

    def drawing(pipe: Any, settings: Settings, cells: Any, encoded: Any) -> Any:
        assert (settings.steps, settings.compile) == (2, False)
        drawn.append(len(cells))
        return draw_batch(pipe, settings, cells, encoded)

    monkeypatch.setattr(card_memory, "draw_batch", drawing)
    size = dataclasses.replace(TINY, prompts=4, compile=True, steps=30)
    small, large = (card_memory.peak_figure(name, size) for name in card_memory.CARDS)
    assert (small.figure, small.value, small.goal, small.holds) == ("peak_12gb_batch1", 9.25, "<= 12", True)
    assert (large.figure, large.value, large.goal, large.holds) == ("peak_24gb_batch4", 9.25, "<= 24", True)
    assert drawn == [1, 4]
    assert card.limits == [12, 80, 24, 80]
    assert card.asked == [[7, 12], [19, 24]], "what is free is what such a card would have left"
    assert min(card.kept) > 0, "no weights were kept beside"
    assert torch.cuda.mem_get_info() == (70 * GIB, 80 * GIB)


def test_a_card_that_is_too_small_is_let_go_of(card, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(card_memory, "draw_batch", full)
    with pytest.raises(torch.OutOfMemoryError):
        card_memory.peak_figure("peak_12gb_batch1", TINY)
    assert card.limits == [12, 80]
    assert torch.cuda.mem_get_info() == (70 * GIB, 80 * GIB)


# --- the bare loop -------------------------------------------------------------------------


def floor(dtype: Dtype, device: str, tmp_path) -> tuple[Any, torch.Tensor]:
    """The pipeline, and what the bare loop makes of its first batch."""
    suite = suite_of(dataclasses.replace(TINY, dtype=dtype), tmp_path)
    pipe = load_pipeline(suite.variants[0], suite.settings, device="cpu").to(device)
    if device == "meta":
        pipe.scheduler = Countdown()
    return pipe, denoise_and_decode(pipe, suite, **prepare(pipe, suite, next(batches(suite)), device))


class Countdown:
    """A scheduler that asks for no values, which a device without numbers could not give."""

    init_noise_sigma = 1.0

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        self.timesteps = torch.arange(steps).to(device)

    def scale_model_input(self, latents: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return latents

    def step(self, guided: torch.Tensor, step: torch.Tensor, latents: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(prev_sample=latents - guided)


def test_the_bare_loop_starts_from_noise_of_the_pipelines_dtype(tmp_path) -> None:
    _, pixels = floor("bfloat16", "cpu", tmp_path)
    assert pixels.dtype == torch.bfloat16
    assert bool(pixels.isfinite().all())
    _, whole = floor("float32", "cpu", tmp_path)
    assert torch.corrcoef(torch.stack([whole.flatten(), pixels.float().flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(("dtype", "decoded"), [("bfloat16", torch.bfloat16), ("float16", torch.float32)])
def test_the_bare_loop_is_all_on_the_device_and_decodes_as_rendering_does(dtype, decoded, tmp_path) -> None:
    """Tensors of another device beside those of meta are an error, as they are with CUDA."""
    pipe, pixels = floor(dtype, "meta", tmp_path)
    assert (pixels.device.type, pixels.dtype, pixels.shape[0]) == ("meta", decoded, 2)
    assert pipe.vae.dtype == getattr(torch, dtype)
