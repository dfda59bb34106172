"""The licence chain: what follows from the inputs, what contradicts, what nobody knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.card.licences import REPOSITORIES, TERMS, Licensed, find_terms, work_out

IDS = st.sampled_from(sorted(TERMS))


def chain(*licences: str | None, given: str | None = None):
    return work_out([Licensed(f"input {number}", one) for number, one in enumerate(licences)], given)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("CreativeML Open RAIL++-M License", "openrail++"),
        ("CreativeML Open RAIL++-M", "openrail++"),
        ("openrail++", "openrail++"),
        ("CreativeML OpenRAIL-M", "creativeml-openrail-m"),
        ("creativeml-openrail-m", "creativeml-openrail-m"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache-2.0", "apache-2.0"),
        ("The MIT License", "mit"),
        ("FAIPL-1.0-SD", "fair-ai-public-license-1.0-sd"),
        ("Fair AI Public License 1.0-SD", "fair-ai-public-license-1.0-sd"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0", "cc-by-nc-nd-4.0"),
        ("do what you want", None),
        ("", None),
        ("other", None),
    ],
)
def test_a_licence_is_read_as_headers_and_cards_write_it(text: str, licence: str | None) -> None:
    found = find_terms(text)
    assert (None if found is None else found.id) == licence


@given(IDS)
def test_every_licence_is_read_by_its_id_name_and_link(licence: str) -> None:
    terms = TERMS[licence]
    assert find_terms(terms.id) == find_terms(terms.name) == find_terms(terms.link) == terms


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (("mit",), "mit"),
        (("mit", "apache-2.0"), "apache-2.0"),
        (("mit", "bsd-3-clause"), None),
        (("openrail++", "apache-2.0", "mit"), "openrail++"),
        (("creativeml-openrail-m", "openrail++"), None),
        (("openrail++", "fair-ai-public-license-1.0-sd"), "fair-ai-public-license-1.0-sd"),
        (("apache-2.0", "sai-nc-community"), "sai-nc-community"),
        (("cc-by-nc-4.0", "cc-by-nc-sa-4.0"), "cc-by-nc-sa-4.0"),
    ],
)
def test_the_strictest_input_counts(licences: tuple[str, ...], expected: str | None) -> None:
    found = chain(*licences)
    assert (None if found.terms is None else found.terms.id) == expected
    assert (found.contradictions, found.unknown, found.forbids) == ((), (), ())
    assert expected is not None or "--license" in found.why


@pytest.mark.parametrize(
    "licences",
    [("fair-ai-public-license-1.0-sd", "cc-by-sa-4.0"), ("fair-ai-public-license-1.0-sd", "cc-by-nc-4.0")],
)
def test_licences_that_cannot_be_kept_together_contradict(licences: tuple[str, ...]) -> None:
    found = chain(*licences)
    assert found.terms is None
    assert len(found.contradictions) == 1
    assert all(f"input {number}" in found.contradictions[0] for number in (0, 1))


@given(st.lists(IDS, min_size=1, max_size=5), st.randoms())
def test_the_order_of_the_inputs_does_not_matter(licences: list[str], random) -> None:
    shuffled = random.sample(licences, len(licences))
    one, other = chain(*licences), chain(*shuffled)
    assert one.terms == other.terms
    assert bool(one.contradictions) == bool(other.contradictions)


@given(st.lists(IDS, min_size=1, max_size=5))
def test_no_input_is_under_a_licence_that_asks_for_more_than_the_merge_is_under(licences: list[str]) -> None:
    found = chain(*licences)
    if found.terms is None:
        return
    for one in licences:
        terms = TERMS[one]
        if terms.kind == "share-alike" or terms.share_alike:
            assert found.terms == terms
        if terms.kind == "non-commercial":
            assert found.terms.kind == "non-commercial"
        if terms.kind == "restricted":
            assert found.terms.kind != "permissive"


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), IDS), min_size=1, max_size=5))
def test_an_unknown_licence_is_named_and_leaves_the_card_without_one(licences: list[str | None]) -> None:
    found = chain(*licences)
    unknown = [number for number, one in enumerate(licences) if not one or find_terms(one) is None]
    assert len(found.unknown) == len(unknown)
    assert all(f"input {number}" in sentence for number, sentence in zip(unknown, found.unknown, strict=True))
    assert not unknown or found.terms is None


def test_a_licence_that_allows_no_merge_forbids_it() -> None:
    found = chain("mit", "cc-by-nd-4.0")
    assert found.forbids == ("input 1 is under CC BY-ND 4.0, which allows no merge.",)
    assert found.terms is None


@pytest.mark.parametrize(
    ("licence", "given", "against"),
    [
        ("mit", "apache-2.0", 0),
        ("openrail++", "openrail++", 0),
        ("openrail++", "mit", 1),
        ("openrail++", "cc-by-nc-4.0", 0),
        ("cc-by-nc-4.0", "openrail++", 1),
        ("fair-ai-public-license-1.0-sd", "openrail++", 1),
        ("openrail++", "my own words", 1),
    ],
)
def test_what_the_maker_says_counts_and_what_speaks_against_it_is_named(licence, given, against) -> None:
    found = chain(licence, given=given)
    assert (found.terms.id if found.terms else found.other) == given
    assert len(found.contradictions) == against


def test_the_repositories_that_are_known_have_known_licences() -> None:
    assert set(REPOSITORIES.values()) <= set(TERMS)
