"""How metrics and towers are declared, and which facts are refused."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
import torch

from bench.errors import UsageError
from bench.metrics import Inputs, Metric, Tower, metric, tower
from bench.records import MetricFacts

FACTS = MetricFacts(
    name="brightness",
    version="1",
    summary="Mean of all channels.",
    unit="share",
    higher_is_better=None,
    low=0.0,
    high=1.0,
    axis="pixels",
    tower=None,
    trained_on="nothing",
    standing="held-out",
    licence="Apache-2.0",
    reference="none",
)


def test_the_decorated_function_becomes_a_metric_that_is_called_as_before() -> None:
    @metric(FACTS)
    def brightness(inputs: Inputs) -> torch.Tensor:
        return inputs.pixels.mean(dim=(1, 2, 3))

    inputs = Inputs(("a", "b"), torch.full((2, 3, 4, 4), 0.5), None, None, None, 1.0, None)
    assert isinstance(brightness, Metric)
    assert brightness.facts is FACTS
    assert brightness(inputs).tolist() == brightness.compute(inputs).tolist() == [0.5, 0.5]
    assert (brightness.load_head, brightness.needs_reference, brightness.needs_text) == (None, False, True)


def test_a_metric_and_a_tower_cannot_change() -> None:
    declared = tower("vit")(lambda device: pytest.fail("a tower is not loaded when it is declared"))
    assert isinstance(declared, Tower)
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "Metric name ''"),
        ({"name": "Bright Ness"}, "Metric name 'Bright Ness': use lower-case"),
        ({"name": "../x"}, "Metric name '../x'"),
        ({"version": ""}, "empty version"),
        ({"version": 1}, "Expected `str`, got `int`"),
        ({"low": 1.0, "high": 0.0}, "low 1.0 is not below high 0.0"),
        ({"axis": "beauty"}, "Invalid enum value 'beauty'"),
        ({"standing": "good"}, "Invalid enum value 'good'"),
    ],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric(msgspec.structs.replace(FACTS, **change))


def test_a_metric_on_a_tower_has_no_reference_and_a_tower_a_proper_name() -> None:
    with pytest.raises(UsageError, match="needs_reference is for a metric without a tower"):
        metric(msgspec.structs.replace(FACTS, tower="vit"), needs_reference=True)
    with pytest.raises(UsageError, match="Tower name 'ViT'"):
        tower("ViT")
