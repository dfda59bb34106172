"""What metrics and variants learnt from: the rule of the training overlap."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.metrics import all_facts, installed, training_of_metrics
from bench.metrics.training_data import (
    DATA_SETS,
    RELATED,
    check_training_names,
    overlap_with,
    training_overlap,
    with_their_data,
)
from bench.records import MetricFacts, TrainedOn, TrainedPart, TrainingOverlap

FACTS = {facts.name: facts for facts in (*all_facts(), *(one.facts for one in installed().step_metrics.values()))}
TRAINED = training_of_metrics()
STRENGTH = {"none": 0, "unknown": 0, "related data": 1, "same data": 2}

data_sets = st.lists(st.sampled_from(sorted(DATA_SETS)), unique=True, max_size=4).map(tuple)
names = st.lists(st.sampled_from(sorted((*FACTS, *DATA_SETS))), unique=True, max_size=4).map(tuple)


def metric(name: str, trained_on: tuple[str, ...]) -> MetricFacts:
    return msgspec.structs.replace(FACTS["pickscore"], name=name, trained_on=trained_on)


def variant(names: tuple[str, ...], *unknown: str) -> TrainedOn:
    parts = [TrainedPart(what="known", names=names, source="suite")]
    parts += [TrainedPart(what=what, names=None) for what in unknown]
    return TrainedOn(names=with_their_data(names, TRAINED), parts=tuple(parts))


@pytest.mark.parametrize("trained_on", [("pick-a-pic",), ("spo-step-aware-sdxl",), ("spo-step-aware-sd15",)])
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("pickscore", "same data"),
        ("hpsv2", "related data"),
        ("hpsv2.1", "related data"),
        ("imagereward", "none"),
        ("aesthetic-v1", "none"),
        ("aesthetic-v2", "none"),
        ("clip-l14", "none"),
        ("saturation", "none"),
        ("spo-step-aware-sdxl", "same data"),
        ("lpo-latent-reward-sdxl", "same data"),
    ],
)
def test_the_labels_of_the_published_dpo_and_spo(name: str, label: str, trained_on: tuple[str, ...]) -> None:
    assert overlap_with(FACTS[name], variant(trained_on)) == label


@pytest.mark.parametrize("trained_on", [("mini-raters",), ("mini-step-aware",)])
def test_the_labels_of_the_embedded_family_and_of_a_second_pair(trained_on: tuple[str, ...]) -> None:
    learnt = variant(trained_on)
    labels = {name: overlap_with(FACTS[name], learnt) for name in ("mini-preference", "mini-clip", "mini-aesthetic")}
    assert labels == {"mini-preference": "same data", "mini-clip": "related data", "mini-aesthetic": "related data"}
    assert overlap_with(FACTS["mini-step-aware"], learnt) == "same data"
    assert {overlap_with(FACTS[name], learnt) for name in ("mini-clip-2", "mini-preference-2")} == {"none"}


@given(data_sets, data_sets)
def test_for_data_sets_the_rule_is_symmetric(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    assert training_overlap(metric("a", ours), theirs) == training_overlap(metric("b", theirs), ours)


@given(st.sampled_from(sorted(FACTS)), names, names)
def test_more_names_never_weaken_a_label(name: str, few: tuple[str, ...], more: tuple[str, ...]) -> None:
    facts = FACTS[name]
    less, wider = variant(few), variant(tuple(dict.fromkeys((*few, *more))))
    assert STRENGTH[overlap_with(facts, less)] <= STRENGTH[overlap_with(facts, wider)]


@given(st.sampled_from(sorted(FACTS)), names)
def test_an_unknown_part_turns_only_none_into_unknown(name: str, known: tuple[str, ...]) -> None:
    facts = FACTS[name]
    proven = overlap_with(facts, variant(known))
    expected: TrainingOverlap = "unknown" if proven == "none" else proven
    assert overlap_with(facts, variant(known, "mine.safetensors")) == expected


@given(st.sampled_from(sorted(FACTS)), names)
def test_a_metric_that_is_named_shares_its_data(name: str, others: tuple[str, ...]) -> None:
    assert overlap_with(FACTS[name], variant((name, *others))) == "same data"


@given(st.sampled_from(sorted(FACTS)))
def test_nobody_said_and_nothing_are_two_things(name: str) -> None:
    assert training_overlap(FACTS[name], None) == overlap_with(FACTS[name], None) == "unknown"
    assert training_overlap(FACTS[name], ()) == overlap_with(FACTS[name], variant(())) == "none"


@given(names)
def test_the_data_of_metrics_are_completed_to_the_end_and_once(some: tuple[str, ...]) -> None:
    whole = with_their_data(some, TRAINED)
    assert whole == with_their_data(whole, TRAINED)
    assert len(set(whole)) == len(whole)
    assert set(some) <= set(whole)
    assert all(set(TRAINED.get(name, ())) <= set(whole) for name in whole)


def test_every_data_set_that_is_listed_as_related_is_known() -> None:
    assert all(group <= DATA_SETS.keys() and why for group, why in RELATED)
    assert not DATA_SETS.keys() & FACTS.keys()


def test_names_of_no_metric_and_no_data_set_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"x names 'pickscor'.*did you mean 'pickscore'\?.*data sets: pick-a-pic"):
        check_training_names(("pickscor",), "x", FACTS)
    with pytest.raises(UsageError, match=r"did you mean 'pick-a-pic'\?"):
        check_training_names(("pick-a-pik",), "x", FACTS)
    with pytest.raises(UsageError, match="x names 'pick-a-pic' twice"):
        check_training_names(("pick-a-pic", "pick-a-pic"), "x", FACTS)
