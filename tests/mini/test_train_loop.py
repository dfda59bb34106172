"""The training loop: learning rate, averaging, and going on after an interruption as if nothing had been."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.mini.train import loop
from bench.mini.train.loop import Dice, Recipe, learning_rate, train

RECIPE = Recipe(stage="toy", iterations=12, batch=4, learning_rate=0.05, warmup=3, weight_decay=0.1, ema=0.9)


class Toy(nn.Module):
    """A layer, and running statistics that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.layer(x))
        return normed


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def step_of(module: nn.Module, stop_at: int | None = None) -> Callable[[int, Dice], Tensor]:
    def step(iteration: int, dice: Dice) -> Tensor:
        if iteration == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, generator=dice.torch) + float(dice.numpy.random())
        loss: Tensor = (module(x) - x[:, :2]).square().mean()
        return loss

    return step


def trained(work: Path, recipe: Recipe, stop_at: int | None = None, module: Toy | None = None) -> dict[str, Tensor]:
    module = module or toy()
    train(recipe, {"toy": module}, step_of(module, stop_at), work)
    return module.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_interrupted_run_ends_bit_for_bit_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None, stop_at: int
) -> None:
    recipe = dataclasses.replace(RECIPE, ema=ema)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = trained(tmp_path / "whole", recipe)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)  # a checkpoint after every iteration
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", recipe, stop_at=stop_at)
    torch.manual_seed(99)
    other = Toy()  # other weights at the start: all must come from the checkpoint
    assert same(trained(tmp_path / "broken", recipe, module=other), whole)


def test_run_that_lost_iterations_since_its_checkpoint_repeats_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = trained(tmp_path / "whole", RECIPE)
    saved = loop._save

    def seldom(path: Path, iteration: int, *rest: object) -> None:
        if iteration % 4 == 0:
            saved(path, iteration, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(loop, "_save", seldom)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, RECIPE, stop_at=7)
    assert same(trained(tmp_path, RECIPE), whole)


def test_finished_stage_returns_at_once_with_its_weights(tmp_path: Path) -> None:
    first = trained(tmp_path, RECIPE)
    assert same(trained(tmp_path, RECIPE, stop_at=0), first)


def test_interrupted_writing_of_a_checkpoint_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, RECIPE)
    before = (tmp_path / "toy.ckpt").read_bytes()

    def torn(_: object, path: Path) -> None:
        path.write_bytes(b"torn")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, RECIPE)
    assert (tmp_path / "toy.ckpt").read_bytes() == before


def test_averaged_weights_are_left_in_the_module(tmp_path: Path) -> None:
    """rate_i = min(0.9, (1 + i) / (10 + i)), average <- rate average + (1 - rate) weights, from the start's weights."""
    module = toy()
    states: list[dict[str, Tensor]] = []
    plain_step = step_of(module)

    def step(iteration: int, dice: Dice) -> Tensor:
        states.append({key: value.clone() for key, value in module.state_dict().items()})
        return plain_step(iteration, dice)

    train(RECIPE, {"toy": module}, step, tmp_path)
    last = torch.load(tmp_path / "toy.ckpt", weights_only=True)["modules"]["toy"]
    average = {key: value.double() for key, value in states[0].items()}
    for iteration, state in enumerate([*states[1:], last]):
        rate = min(0.9, (1 + iteration) / (10 + iteration))
        average = {key: rate * value + (1 - rate) * state[key].double() for key, value in average.items()}
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[key], rtol=1e-4, atol=1e-6)
            assert not torch.equal(value, last[key])


def test_given_parameters_alone_are_trained(tmp_path: Path) -> None:
    module = toy()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    recipe = dataclasses.replace(RECIPE, ema=None)
    train(recipe, {"toy": module}, step_of(module), tmp_path, parameters=[module.layer.weight])
    assert not torch.equal(module.layer.weight, before["layer.weight"])
    assert torch.equal(module.layer.bias, before["layer.bias"])
    assert torch.equal(module.norm.weight, before["norm.weight"])


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = toy()
    recipe = dataclasses.replace(RECIPE, iterations=60, ema=None, weight_decay=0.0)
    train(recipe, {"toy": module}, step_of(module), tmp_path, log_every=20)
    lines = [json.loads(line) for line in (tmp_path / "toy.log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [20, 40, 60]
    assert {line["stage"] for line in lines} == {"toy"}
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "toy 60/60 loss" in capsys.readouterr().out


def test_learning_rate_warms_up_linearly_then_falls_by_a_cosine_to_2_percent() -> None:
    recipe = Recipe(stage="x", iterations=110, batch=1, learning_rate=2.0, warmup=10)
    assert [learning_rate(recipe, i) for i in range(10)] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    for iteration in range(10, 110):
        share = (iteration - 10) / 100
        expected = 2.0 * (0.02 + 0.98 * (math.cos(math.pi * share) + 1) / 2)
        assert learning_rate(recipe, iteration) == pytest.approx(expected)
    assert learning_rate(recipe, 10) == 2.0
    assert learning_rate(recipe, 60) == pytest.approx(2.0 * 0.51)
    assert learning_rate(recipe, 110) == pytest.approx(0.04)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_networks_compute_in_bfloat16_where_the_processor_can(monkeypatch, native, dtype) -> None:
    monkeypatch.setattr(loop, "has_bfloat16", lambda: native)
    with loop.half():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_torch_that_cannot_tell_is_taken_for_a_processor_without(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not loop.has_bfloat16()
