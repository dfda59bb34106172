"""How metrics and encoders are declared, and which facts are refused."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
import torch
from fake_metrics import ConvTower

from bench.errors import UsageError
from bench.metrics import Encoder, Inputs, LoadedRewardModel, Metric, encoder, metric, registry_of
from bench.records import MetricFacts

FACTS = MetricFacts(
    name="brightness",
    version="1",
    summary="Mean of all channels.",
    unit="share",
    higher_is_better=None,
    low=0.0,
    high=1.0,
    category="pixels",
    encoder=None,
    trained_on=(),
    training_data="nothing",
    licence="Apache-2.0",
    reference="none",
)


def test_the_decorated_function_becomes_a_metric_that_is_called_as_before() -> None:
    @metric(FACTS)
    def brightness(inputs: Inputs) -> torch.Tensor:
        return inputs.pixels.mean(dim=(1, 2, 3))

    inputs = Inputs(("a", "b"), torch.full((2, 3, 4, 4), 0.5), None, None, None, 1.0, None)
    assert isinstance(brightness, Metric)
    assert brightness.facts == FACTS
    assert brightness(inputs).tolist() == brightness.compute(inputs).tolist() == [0.5, 0.5]
    assert (brightness.load_head, brightness.needs_reference, brightness.needs_text) == (None, False, True)


def test_a_metric_and_an_encoder_cannot_change() -> None:
    declared = encoder("vit")(lambda device: pytest.fail("an encoder is not loaded when it is declared"))
    assert isinstance(declared, Encoder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "Metric name ''"),
        ({"name": "votes"}, "Metric name 'votes': it is that of people's votes"),
        ({"name": "Bright Ness"}, "Metric name 'Bright Ness': use lower-case"),
        ({"name": "../x"}, "Metric name '../x'"),
        ({"version": ""}, "empty version"),
        ({"version": 1}, "Expected `str`, got `int`"),
        ({"low": 1.0, "high": 0.0}, "low 1.0 is not below high 0.0"),
        ({"category": "beauty"}, "Invalid enum value 'beauty'"),
        ({"trained_on": "pick-a-pic"}, r"Expected `array \| null`, got `str`"),
    ],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric(msgspec.structs.replace(FACTS, **change))


def test_a_metric_on_an_encoder_has_no_reference_and_an_encoder_a_proper_name() -> None:
    with pytest.raises(UsageError, match="needs_reference is for a metric without an encoder"):
        metric(msgspec.structs.replace(FACTS, encoder="vit"), needs_reference=True)
    with pytest.raises(UsageError, match="Encoder name 'ViT'"):
        encoder("ViT")


def test_weights_and_preprocessing_are_stated_where_the_metric_and_the_encoder_are() -> None:
    declared = encoder("vit", weights=("openai-vit-l14",), dtypes=("float32",))(lambda place: pytest.fail("not loaded"))
    judged = metric(FACTS, weights=["aesthetic-v2"], preprocessing="torchvision")(lambda inputs: inputs.pixels)
    assert (declared.weights, declared.dtypes) == (("openai-vit-l14",), ("float32",))
    assert (judged.weights, judged.preprocessing, judged.facts.metric_dtype) == (
        ("aesthetic-v2",),
        "torchvision",
        "float32",
    )
    assert registry_of(judged, declared).metrics["brightness"] is judged


def test_weights_that_the_catalogue_does_not_have_leave_the_registry_unmade() -> None:
    judged = metric(FACTS, weights=("aesthetic-v3",))(lambda inputs: inputs.pixels)
    with pytest.raises(UsageError, match=r"no weights 'aesthetic-v3'.*[Dd]id you mean 'aesthetic-v"):
        registry_of(judged)


def test_only_what_has_a_score_of_its_own_is_a_reward_model() -> None:
    class Reward:
        batch = 1

        def preprocess(self, image: object, preprocessing: str) -> None: ...
        def score(self, pixels: object, prompts: object) -> None: ...
        def truncated(self, prompts: object) -> None: ...

    assert isinstance(Reward(), LoadedRewardModel)
    assert not isinstance(ConvTower(1, 1, [], []), LoadedRewardModel)
