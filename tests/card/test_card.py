"""The card: what it tells, that the Hub's client reads and writes it again, and what it refuses or says."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import yaml
from fake_gates import make_gate, make_verdict
from fakes import make_run, with_suite, write_run
from grid_runs import make_grid_runs
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace
from report_runs import hostile_run, page_of
from vote_runs import careless, cast, make_voted, newest_ballot, panel, write_file

from bench.baseline import freeze
from bench.card.civitai import civitai_page
from bench.card.facts import CardFacts, Wishes, card_facts
from bench.card.hub import eval_results, hub_card
from bench.card.licences import TERMS
from bench.card.pictures import CardPicture, CardPictures, choose_pictures
from bench.compare import compare_run, metric_means
from bench.compare.votes import vote_results
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.gate import check_limits
from bench.records import Attribution, Lora, Prompt, Run, StepWindow, Sweep, TrainedOn, TrainedPart
from bench.store import RunFolder, image_hashes, load_run
from bench.suite.limits import parse_limits
from bench.votes.read import add_votes

NONE = CardPictures((), {}, "")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("card") / "run"
    return load_run(write_run(make_run(folder, prompts=12), folder))


def recorded(run: Run) -> dict[str, str | None]:
    """The hashes as the records have them, so that no file is looked at."""
    return {str(one.image): one.sha256 for one in run.renders if one.image is not None}


def facts(run: Run, variant: str | None = "spo", **changes) -> CardFacts:
    wishes = {name: changes.pop(name) for name in ("title", "licence", "licences", "base_models") if name in changes}
    return card_facts(run, recorded(run), Wishes(variant=variant, **wishes), **changes)


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_hubs_client_reads_the_card_and_writes_it_again_equal(run: Run, tmp_path: Path) -> None:
    chosen = choose_pictures(run, "spo", "base", 3)
    text = hub_card(facts(run, base_models=("a/b", "c/d")), chosen)
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    card = ModelCard.load(tmp_path / "README.md")
    card.save(tmp_path / "again.md")
    assert (tmp_path / "again.md").read_bytes() == (tmp_path / "README.md").read_bytes()
    again = ModelCard.load(tmp_path / "again.md")
    assert again.data.to_dict() == card.data.to_dict() == front(text)
    assert again.data.eval_results == card.data.eval_results == eval_results(facts(run))


def test_every_metric_has_a_result_of_its_own_with_its_interval(run: Run) -> None:
    results = front(hub_card(facts(run), NONE))["model-index"][0]["results"]
    means = {one.metric: one for one in metric_means(run) if one.variant == "spo"}
    deltas = {
        one.metric: one for one in compare_run(run, tags=False) if (one.candidate, one.reference) == ("spo", "base")
    }
    assert len(results) == len(means), "none was put together with another"
    assert len({one["dataset"]["config"] for one in results}) == len(results)
    for one in results:
        (metric,) = one["metrics"]
        mean, arguments = means[metric["type"]], metric["args"]
        assert metric["value"] == mean.mean
        assert (arguments["interval_low"], arguments["interval_high"]) == (mean.interval.low, mean.interval.high)
        delta = deltas.get(metric["type"])
        if delta is not None:
            assert (arguments["difference"], arguments["reference"]) == (delta.mean, "base")
            assert (arguments["difference_low"], arguments["difference_high"]) == (
                delta.interval.low,
                delta.interval.high,
            )
        assert all(type(value) in (int, float, str) for value in arguments.values())


def test_what_is_known_stands_in_front_and_nothing_else(run: Run) -> None:
    found = front(hub_card(facts(run, base_models=("stabilityai/stable-diffusion-xl-base-1.0",)), NONE))
    assert found["base_model"] == "stabilityai/stable-diffusion-xl-base-1.0"
    assert found["base_model_relation"] == "merge"
    assert found["license"] == "apache-2.0"
    assert (found["library_name"], found["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert found["tags"] == ["text-to-image", "merge", "hotart-bench"]
    bare = front(hub_card(facts(run, licences={"mini": "do what you want"}), NONE))
    assert "license" not in bare
    assert "base_model" not in bare
    other = front(hub_card(facts(run, licence="FAIPL-1.0-SD"), NONE))
    assert (other["license"], other["license_name"]) == ("other", "fair-ai-public-license-1.0-sd")
    assert other["license_link"].startswith("https://")


def test_the_body_tells_hashes_finding_price_overlap_and_settings(run: Run) -> None:
    card = facts(run)
    text = hub_card(card, NONE)
    known = next(one for one in run.info.variants if one.name == "spo")
    assert all(file.sha256 in text for file in known.files)
    assert card.finding is not None
    assert "## What was found" in text
    assert all(
        f"| {name} | {value} |" in text for name, value in (("steps", "20"), ("size", "64x64"), ("sampler", "DDIM"))
    )
    assert "mini-preference: same data." in text
    assert "## Votes" not in text


def test_markup_in_names_is_text_in_card_and_page(tmp_path: Path) -> None:
    run = with_suite(hostile_run())  # whose digest is that of its hostile prompts
    title = "<script>alert(1)</script> | [x](javascript:alert(1))"
    card = facts(replace(run, path=str(tmp_path)), title=title, licence="<b>mine</b>")
    pictures = CardPictures((), {}, "<u>note</u>")
    text, page = hub_card(card, pictures), civitai_page(card, pictures)
    body = text.split("---\n", 2)[2]
    for tag in ("<script", "<b>", "<s>", "<u>", "<i>", "<img"):
        assert tag not in body.replace("<Gallery />", "")
        assert tag not in page
    links = re.findall(r"<a href=\"([^\"]+)", MarkdownIt("gfm-like", {"linkify": False}).render(body))
    assert links == [], "the licence is unknown, so that not even its page is linked"
    assert page_of(page).named("script") == []
    assert front(text)["license_name"] == "<b>mine</b>"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.text(min_size=1, max_size=30), licence=st.text(min_size=1, max_size=20))
def test_any_text_is_read_back_as_it_was_given(run: Run, title: str, licence: str) -> None:
    picture = CardPicture(Prompt(id="p", text=title, negative=licence), 1, "x.png", "", bare=False)
    shown = CardPictures((picture,), {}, "")
    read = ModelCard(hub_card(facts(run, title=title, licence=licence), shown)).data.to_dict()
    assert read["model-index"][0]["name"] == (" ".join(title.split()) or "spo")
    assert read["license"] == "other" or read["license"] in TERMS
    if "license_name" in read:
        assert read["license_name"] in (" ".join(licence.split()), *TERMS)
    assert read["widget"][0]["text"].split() == title.split()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(run: Run, value: float) -> None:
    card = facts(run)
    means = (replace(card.means[0], mean=value), *card.means[1:])
    with pytest.raises(InvalidError, match="no card can hold"):
        hub_card(dataclasses.replace(card, means=means), NONE)


def test_a_run_that_is_not_finished_is_refused(run: Run) -> None:
    started = replace(run, info=replace(run.info, status="started"))
    with pytest.raises(InvalidError, match="not finished"):
        facts(started)
    short = replace(run, renders=run.renders[:-1])
    with pytest.raises(InvalidError, match="no record in renders"):
        facts(short)


def test_a_limited_run_says_so_first_and_gives_no_results(run: Run) -> None:
    limited = with_suite(run, limit=12)
    text = hub_card(facts(limited), NONE)
    assert "model-index" not in front(text)
    assert text.split("# spo\n")[1].lstrip().startswith("> This is of a run for trying out: the first 12 prompts")


def test_no_card_tells_the_folders_of_this_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=12, variants=("base", "spo"))
    place = "/home/secret/models"
    loras = (Lora(path=f"{place}/spo.safetensors"),)
    variants = tuple(
        replace(
            one, checkpoint=f"{place}/base.safetensors", loras=loras * bool(one.loras), vae=f"{place}/vae.safetensors"
        )
        for one in run.info.suite.variants
    )
    run = with_suite(run, variants=variants, source=f"{place}/suite.toml")
    trained = TrainedOn(names=(), parts=(TrainedPart(what=f"{place}/base.safetensors", names=None),))
    run = replace(run, path=place, info=replace(run.info, trained_on={"spo": trained}))
    verdict = make_verdict("invalid", sentence=f"Of spo, {place}/run has no scores.")
    gate = make_gate(verdict, run_id=run.info.id, run=f"{place}/run", baseline=f"{place}/b.json")
    card = facts(run, gate=gate)
    for text in (hub_card(card, NONE), civitai_page(card, NONE)):
        assert "secret" not in text
        assert all(name in text for name in ("spo.safetensors", "base.safetensors", "vae.safetensors", "b.json"))


def test_which_variant_is_asked_where_there_are_several(run: Run) -> None:
    with pytest.raises(UsageError, match="dpo and spo besides base"):
        facts(run, None)
    with pytest.raises(UsageError, match="did you mean 'spo'"):
        facts(run, "sp0")


def test_pictures_that_are_gone_are_said(run: Run, tmp_path: Path) -> None:
    folder = write_run(make_run(tmp_path / "r", prompts=12), tmp_path / "r")
    gone = load_run(folder)
    for image in (folder / "images" / "spo").iterdir():
        image.unlink()
    chosen = choose_pictures(gone, "spo", "base", 4)
    assert chosen.shown == ()
    assert "4 of 4 pictures are gone" in chosen.note
    text = hub_card(card_facts(gone, image_hashes(gone), Wishes(variant="spo")), chosen)
    assert "The images of spo are gone" in text
    assert "4 of 4 pictures are gone" in text


def test_pictures_on_an_object_store_are_said(run: Run) -> None:
    chosen = choose_pictures(replace(run, url="s3://bucket/run"), "spo", "base", 4)
    assert (chosen.shown, chosen.note) == ((), "The pictures lie at s3://bucket/run and are not copied.")


def test_pictures_are_taken_evenly_and_byte_for_byte(run: Run) -> None:
    chosen = choose_pictures(run, "spo", "base", 4)
    assert [one.prompt.id for one in chosen.shown] == [f"case-{number:03d}" for number in (0, 3, 6, 9)]
    assert len(chosen.files) == 8
    for name, data in chosen.files.items():
        variant, _, rest = name.removeprefix("images/").partition("-")
        assert data == (Path(run.path) / "images" / variant / rest).read_bytes()
    assert choose_pictures(run, "spo", "base", 0) == NONE
    assert "carry no settings" in chosen.note, "the fakes are bare PNGs"


def test_the_gate_of_another_run_is_refused(run: Run) -> None:
    gate = make_gate(make_verdict("fail"), run_id=run.info.id)
    assert "Regression gate: failed." in hub_card(facts(run, gate=gate), NONE)
    with pytest.raises(IncomparableError, match="gate is of the run other"):
        facts(run, gate=replace(gate, run_id="other"))


def test_the_gate_on_the_cards_variant_comes_before_the_whole(run: Run) -> None:
    gate = make_gate(
        make_verdict("fail", "mini-clip", candidate="dpo", reference="dpo"),
        make_verdict("pass", "mini-clip"),
        make_verdict("inconclusive", "mini-aesthetic"),
        run_id=run.info.id,
    )
    first, own, whole = facts(run, gate=gate).gate_sentences
    assert first == "Regression gate on spo: inconclusive. Of 2 verdicts, 1 passes and 1 is inconclusive."
    assert own.startswith("mini-aesthetic, inconclusive: ")
    assert whole.startswith("The whole gate, on 2 variants: failed. More was lost than is allowed: mini-clip of dpo.")
    none, whole = facts(run, gate=replace(gate, verdicts=gate.verdicts[:1])).gate_sentences
    assert none == "Regression gate on spo: it has no verdict on it."
    assert whole.startswith("The whole gate, on 1 variant: failed.")


def test_card_and_page_say_which_intervals_hold_together(run: Run, tmp_path: Path) -> None:
    card = facts(run)
    count = sum(one.interval is not None for one in card.finding.metrics)
    together = f"hold for all {count} metrics together: all upper ends with 95 %, and all lower ends ("
    alone = (
        "model-index of the card for the Hub, of means and of differences, are 95 % each, every metric by itself (BCa"
    )
    for shown in (hub_card(card, NONE), civitai_page(card, NONE)):
        assert together in shown
        assert f"{count} metrics together (Bonferroni)" in shown
        assert alone in shown
    first = facts(run, "base")
    assert first.finding is None
    for shown in (hub_card(first, NONE), civitai_page(first, NONE)):
        assert "are of the means: 95 % each, every metric by itself (BCa" in shown
        assert "together" not in shown.split("interval")[-1]


def test_the_only_variant_is_told_by_its_gate(tmp_path: Path) -> None:
    own = with_suite(
        make_run(tmp_path / "new", variants=("base",), seed=1), limits=parse_limits({"mini-clip": "0.5sd"})
    )
    old = with_suite(make_run(tmp_path / "old", variants=("base",)), limits=parse_limits({"mini-clip": "0.5sd"}))
    sides = [freeze(one, hashes=recorded(one)) for one in (own, old)]
    gate = check_limits(
        *sides,
        [("base", "base")],
        run="new",
        baseline="b.json",
        baseline_is_run=False,
        time="2026-01-01T00:00:00+00:00",
    )
    text = hub_card(facts(own, None, gate=gate), NONE)
    assert "base of the baseline" in text
    assert "frozen baseline b.json" in text
    alone = hub_card(facts(own, None), NONE)
    assert "It was compared with nothing" in alone


def test_a_card_says_that_no_file_holds_the_runtime(run: Run) -> None:
    variants = tuple(
        replace(one, runtime="deepcache:3") if one.name == "spo" else one for one in run.info.suite.variants
    )
    fast = replace(run, info=replace(run.info, suite=replace(run.info.suite, variants=variants)))
    said = "Its pictures were drawn with the runtime deepcache:3, which is in no file of weights."
    assert said in facts(fast).what
    assert said not in facts(run).what


def test_a_grids_settings_stand_in_the_card(tmp_path: Path) -> None:
    grid = make_grid_runs(tmp_path, lambda setting: {"spo": {"mini-aesthetic": 1.5}})
    run = grid.runs[0]
    assert run is not None
    text = hub_card(facts(run, grid=grid), NONE)
    for words in ("guidance", "7.5", "dpmpp"):
        assert words in text.split("## What else was tried")[1].split("## Training")[0]
    assert "mini-aesthetic: spo over base holds in 4 of 4 settings." in text


def sweep_run(gains: dict[float, float]) -> Run:
    names = tuple("base" if weight == 0 else f"w{number}" for number, weight in enumerate(sorted(gains)))
    weights = tuple(sorted(gains))
    effect = {name: {"mini-preference": gains[weight]} for name, weight in zip(names, weights, strict=True)}
    run = make_run("sweep", prompts=24, variants=names, effect=effect)
    return with_suite(run, sweep=Sweep(lora="mini:spo", weights=weights, variants=names))


def test_a_sweep_advises_the_smallest_weight_that_keeps_most_of_the_gain() -> None:
    run = sweep_run({0.0: 0.0, 0.5: 1.0, 1.0: 3.0, 1.5: 3.05})
    card = facts(run, None)
    assert card.variant.name == "w2"
    assert card.advised[0].startswith("Weight 1: the smallest")
    assert [one.setting for one in card.tried] == ["weight 0", "weight 0.5", "weight 1", "weight 1.5"]
    nothing = facts(sweep_run({0.0: 0.0, 0.5: 0.0, 1.0: 0.0}), "w1")
    assert nothing.advised[0].startswith("No weight is advised")


def test_windows_of_steps_stand_in_the_card_with_the_one_that_costs_least() -> None:
    effect = {"spo": {"mini-preference": 3.0, "mini-clip": -0.2}, "early": {"mini-preference": 2.9}, "late": {}}
    run = make_run("windows", prompts=24, variants=("base", "spo", "early", "late"), effect=effect)
    windows = (
        StepWindow(kind="only", first=1, last=10, variant="early"),
        StepWindow(kind="only", first=11, last=20, variant="late"),
    )
    card = facts(with_suite(run, attribution=Attribution(variant="spo", windows=windows)), None)
    assert card.variant.name == "spo"
    assert [one.setting for one in card.tried] == ["steps 1-20", "steps 1-10", "steps 11-20"]
    assert len(card.advised) == 1
    assert "steps 1-10 cost least" in card.advised[0]
    assert card.advised[0] in civitai_page(card, NONE).replace("&#39;", "'")


def test_votes_stand_in_the_card_without_the_names_of_voters(tmp_path: Path) -> None:
    folder, _ = make_voted(tmp_path)
    with RunFolder.reopen(folder) as opened:
        add_votes(opened, panel(folder, tmp_path / "files", 9))
        bad = cast(newest_ballot(folder), "ff" * 12, careless)
        add_votes(opened, [write_file(bad, tmp_path / "bad.json")])
    voted = load_run(folder)
    results = vote_results(voted)
    assert results is not None
    one = next(pair for pair in results.pairs if (pair.candidate, pair.reference) == ("spo", "base"))
    other = next(pair for pair in results.pairs if (pair.candidate, pair.reference) == ("spo", "dpo"))
    card = facts(voted)
    assert f"Blind votes against base: {round(100 * one.share)} %" in card.votes[0]
    assert f"({one.wins} won, {one.ties} tied" in card.votes[0]
    flipped = next(sentence for sentence in facts(voted, "dpo").votes if "against spo" in sentence)
    assert f"({other.losses} won, {other.ties} tied" in flipped
    text, page = hub_card(card, NONE), civitai_page(card, NONE)
    assert not [one for one in card.votes if "vote status" in one or "Davidson" in one or "threshold" in one]
    assert any("by the rule that at least" in one for one in card.votes)
    assert "## Votes" in text
    assert "<h3>Votes</h3>" in page
    assert not re.search(r"\bv0\d\b", text + page)


def test_what_got_worse_says_none_where_none_did(run: Run) -> None:
    same = make_run("run", prompts=24, effect={})
    assert any("No metric of spo lost" in one for one in facts(same).worse)
    lost = make_run("run", prompts=24, effect={"spo": {"mini-clip": -0.3}})
    worse = facts(lost).worse
    assert any(one.startswith("Loss in mini-clip") for one in worse)
    assert any("mini-clip (loses" in one for one in worse)


def test_the_page_has_the_forms_fields(run: Run) -> None:
    page = civitai_page(facts(run), choose_pictures(run, "spo", "base", 2))
    known = next(one for one in run.info.variants if one.name == "spo")
    assert "Type</strong>: Checkpoint, Merge" in page
    assert all(name in page for name in ("CFG scale: 3", "steps: 20", "images/spo-case-000-0.png"))
    lora = next(file for file in known.files if file.component == "lora:0")
    assert lora.sha256[:10] in page
    assert set(re.findall(r"<([a-z0-9]+)", page)) <= {"h2", "h3", "ul", "li", "strong", "p", "code", "pre"}
