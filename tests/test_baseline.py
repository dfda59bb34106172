"""What freezing keeps, and what a file of it refuses."""

from __future__ import annotations

import hashlib
import json
import string
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.baseline import NOT_ACCEPTED, freeze, read_baseline, write_baseline
from bench.errors import HotartError, IncomparableError, InvalidError, UsageError
from bench.gate.check import is_timed
from bench.records import (
    Acceptance,
    Baseline,
    Embedding,
    FrozenRound,
    FrozenVariant,
    Lora,
    MetricFacts,
    Run,
    SessionNoise,
    Timing,
)
from bench.stats.bounds import mean_bounds
from bench.suite.limits import parse_limits

ACCEPTED = Acceptance(by="Ada <ada@example.org>", time="2025-01-02T03:04:05+00:00")
GOLDEN = Path(__file__).parent / "golden" / "baseline.json"
SHIPPED = Path(__file__).parents[1] / "reports" / "baseline-mini.json"
LIMITS = {"mini-clip": "0.5sd", "end_to_end": "5% floor 20ms"}


def small_run(**changes: object) -> Run:
    """A run of 3 prompts x 2 samples x 2 variants with limits."""
    run = make_run("fake", prompts=3, variants=("base", "spo"))
    return replace(run, info=replace(run.info, suite=replace(run.info.suite, limits=parse_limits(LIMITS), **changes)))


@pytest.fixture(scope="module")
def run() -> Run:
    return small_run()


@pytest.fixture(scope="module")
def frozen(run: Run) -> Baseline:
    return freeze(run, acceptance=ACCEPTED)


def variant(frozen: Baseline, name: str) -> FrozenVariant:
    return next(one for one in frozen.variants if one.fingerprint.name == name)


# --- freezing ------------------------------------------------------------------------------


def test_a_prompt_is_the_mean_of_its_samples_to_five_digits(run: Run, frozen: Baseline) -> None:
    samples: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for score in run.scores:
        assert score.value is not None
        samples[score.variant, score.metric, score.prompt_id].append(score.value)
    for one in frozen.variants:
        for metric, means in one.values.items():
            for prompt_id, mean in zip(frozen.prompts, means, strict=True):
                values = samples[one.fingerprint.name, metric, prompt_id]
                assert len(values) == 2
                assert mean == pytest.approx(fmean(values), rel=5.1e-5)
                assert mean is not None
                assert float(f"{mean:.5g}") == mean


def test_what_identifies_the_run_comes_along(run: Run, frozen: Baseline) -> None:
    info, suite = run.info, run.info.suite
    assert (frozen.run_id, frozen.protocol_digest) == (info.id, info.protocol_digest)
    assert (frozen.suite, frozen.samples, frozen.seed, frozen.settings) == ("fake", 2, 0, suite.settings)
    assert (frozen.limits, frozen.metrics, frozen.machine) == (parse_limits(LIMITS), info.metrics, info.machine)
    assert (frozen.packages, frozen.git, frozen.acceptance) == (info.packages, info.git, ACCEPTED)
    assert [one.fingerprint.digest for one in frozen.variants] == [one.digest for one in info.variants]
    prompt = suite.prompts[0]
    digest = hashlib.sha256(prompt.text.encode() + b"\0" + prompt.negative.encode()).hexdigest()
    assert frozen.prompts[prompt.id] == digest[:12]


def test_the_first_variant_has_no_distance_to_itself(frozen: Baseline) -> None:
    assert "ssim-to-base" not in variant(frozen, "base").values
    assert None not in variant(frozen, "spo").values["ssim-to-base"]


def test_timings_are_the_medians_of_rounds(run: Run, frozen: Baseline) -> None:
    for one in frozen.variants:
        for name, rounds in one.timings.items():
            found = {
                timing.round: timing.values
                for timing in run.timings
                if (timing.variant, timing.name) == (one.fingerprint.name, name)
            }
            assert len(rounds) == 2
            for number, frozen_round in enumerate(rounds):
                assert frozen_round.median == float(f"{median(found[number]):.7g}")
                assert frozen_round.values == len(found[number])


def test_rounds_stand_in_order_and_empty_ones_are_left_out(run: Run) -> None:
    def timing(number: int, *values: float) -> Timing:
        return Timing(variant="spo", name="load", unit="second", round=number, process=1, warmups=(9.0,), values=values)

    found = freeze(replace(run, timings=(timing(2, 3.0, 4.0), timing(0), timing(1, 2.0), timing(3, 1.0, 0.0, 9.0))))
    expected = (
        FrozenRound(median=2.0, values=1),
        FrozenRound(median=3.5, values=2),
        FrozenRound(median=None, values=3),
    )
    assert variant(found, "spo").timings == {"load": expected}
    assert variant(found, "base").timings == {}


@pytest.mark.parametrize(("centre", "sd"), [(21.3, 1.1), (0.272, 0.012), (31.0, 3.0), (0.4, 0.9), (5.9, 0.5)], ids=str)
def test_rounding_moves_no_bound_that_matters(centre: float, sd: float) -> None:
    """Scores as PickScore, HPSv2.1, CLIP, ImageReward and LAION's predictor give them, against a margin of 0.1 sd."""
    rng = np.random.default_rng(0)
    run = make_run("fake", prompts=100, samples=1, variants=("base", "spo"))
    for _ in range(3):
        reference = rng.normal(centre, sd, 100)
        candidate = reference + rng.normal(-0.1 * sd, 0.3 * sd, 100)
        below, above = frozen_means(run, reference, candidate)
        exact = mean_bounds(reference - candidate)
        assert mean_bounds(below - above) == pytest.approx(exact, abs=0.002 * 0.1 * sd)
        assert below.std() == pytest.approx(reference.std(), rel=1e-4)


def frozen_means(run: Run, base: np.ndarray, spo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means of the two variants as a run of one sample a prompt freezes them."""
    means = iter([*base.tolist(), *spo.tolist()])
    scores = [one for one in run.scores if one.metric == "mini-clip"]
    changed = tuple(replace(one, value=next(means)) for one in scores)
    frozen = freeze(replace(run, scores=changed))
    one, other = (np.array(variant(frozen, name).values["mini-clip"]) for name in ("base", "spo"))
    return one, other


def spoilt(run: Run, what: str) -> Run:
    """The run with one sample of spo, case-001, mini-clip that does not count."""
    victim = next(
        one for one in run.scores if (one.variant, one.prompt_id, one.metric) == ("spo", "case-001", "mini-clip")
    )
    changed = {
        "no value": replace(victim, value=None, reason="the image is black"),
        "another version": replace(victim, version="0"),
        "another image": replace(victim, image_sha256="0" * 64),
        "no score": None,
    }[what]
    kept = [changed if one is victim else one for one in run.scores]
    return replace(run, scores=tuple(one for one in kept if one is not None))


@pytest.mark.parametrize("what", ["no value", "another version", "another image", "no score"])
def test_a_prompt_without_all_its_samples_has_no_mean(what: str, run: Run, frozen: Baseline) -> None:
    found = variant(freeze(spoilt(run, what)), "spo")
    whole = variant(frozen, "spo")
    assert found.values["mini-clip"] == (whole.values["mini-clip"][0], None, whole.values["mini-clip"][2])
    assert found.values["saturation"] == whole.values["saturation"]


def test_a_failed_image_has_no_mean_by_any_metric() -> None:
    run = make_run("fake", prompts=3, variants=("base", "spo"), failed=[("spo", "case-002", 0)])
    for means in variant(freeze(run), "spo").values.values():
        assert [mean is None for mean in means] == [False, False, True]


def test_a_run_that_was_cut_short_can_be_frozen(run: Run) -> None:
    cut = replace(run, info=replace(run.info, status="started"), renders=run.renders[:4], scores=run.scores[:4])
    found = variant(freeze(cut), "spo")
    assert set(found.values["mini-clip"]) == {None}


def test_chosen_variants_alone(run: Run) -> None:
    assert [one.fingerprint.name for one in freeze(run, variants=["spo"]).variants] == ["spo"]
    with pytest.raises(UsageError, match=r"no variant 'sop' \(did you mean 'spo'\?\); it has base, spo"):
        freeze(run, variants=["sop"])


def test_a_limited_run_is_refused() -> None:
    with pytest.raises(UsageError, match="only the first 3 prompts") as refused:
        freeze(small_run(limit=3))
    assert "hotart-bench run fake" in refused.value.hint


def test_a_run_without_any_result_is_refused(run: Run) -> None:
    with pytest.raises(InvalidError, match="no score and no timing"):
        freeze(replace(run, scores=(), timings=()))
    assert variant(freeze(replace(run, scores=())), "spo").values["mini-clip"] == (None,) * 3


@pytest.mark.parametrize("place", ["/home/ada/weights/{}", "C:\\weights\\{}"])
def test_no_folder_of_the_machine_gets_into_the_file(place: str, run: Run) -> None:
    base, spo = run.info.variants
    spo = replace(spo, checkpoint=place.format("own.safetensors"), loras=(Lora(path=place.format("spo.safetensors")),))
    found = variant(freeze(replace(run, info=replace(run.info, variants=(base, spo)))), "spo").fingerprint
    assert (found.checkpoint, found.loras[0].path) == ("own.safetensors", "spo.safetensors")
    assert found.digest == spo.digest
    hands = Embedding(name="hands", path=place.format("hands.pt"), sha256="0" * 64)
    settings = replace(run.info.suite.settings, embeddings=(hands,))
    info = replace(run.info, suite=replace(run.info.suite, settings=settings))
    assert freeze(replace(run, info=info)).settings.embeddings[0].path == "hands.pt"


def test_very_large_scores_have_a_mean(run: Run) -> None:
    large = replace(run, scores=tuple(replace(one, value=1.7e308) for one in run.scores))
    assert variant(freeze(large), "spo").values["mini-clip"] == (1.7e308,) * 3


# --- the file ------------------------------------------------------------------------------


def test_it_reads_as_it_was_written(frozen: Baseline, tmp_path: Path) -> None:
    written = write_baseline(frozen, tmp_path / "new" / "baseline.json")
    assert read_baseline(tmp_path / "new" / "baseline.json") == written == replace(frozen, checksum=written.checksum)


def test_the_golden_file_still_reads_and_is_written_the_same(frozen: Baseline, tmp_path: Path) -> None:
    found = read_baseline(GOLDEN)
    assert found == replace(frozen, checksum=found.checksum)
    write_baseline(found, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == GOLDEN.read_bytes()


def test_the_checksum_is_that_of_the_canonical_json(frozen: Baseline, tmp_path: Path) -> None:
    written = write_baseline(frozen, tmp_path / "baseline.json")
    table = json.loads((tmp_path / "baseline.json").read_text(encoding="utf-8"))
    table["checksum"] = ""
    plain = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert written.checksum == hashlib.sha256(plain.encode()).hexdigest()


def test_a_changed_prompt_is_a_changed_line(frozen: Baseline, tmp_path: Path) -> None:
    base, spo = frozen.variants
    first, _, third = spo.values["mini-clip"]
    changed = replace(spo, values={**spo.values, "mini-clip": (first, 0.25, third)})
    for name, one in (("old", frozen), ("new", replace(frozen, variants=(base, changed)))):
        write_baseline(one, tmp_path / name)
    old, new = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("old", "new"))
    differing = [line for line, other in zip(new, old, strict=True) if line != other]
    assert len(differing) == 2
    assert differing[0].startswith('"case-001": [0.25,')
    assert differing[1].startswith('"checksum": ')


def test_other_line_ends_and_indents_are_the_same_baseline(frozen: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    written = write_baseline(frozen, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\t"))
    assert read_baseline(path) == written


def test_500_prompts_10_metrics_and_3_variants_stay_under_200_kb(frozen: Baseline, tmp_path: Path) -> None:
    """Scores of the sizes that the shipped metrics give, with ids as long as those of the shipped prompts."""
    ids = [f"portrait-in-a-window-{number:03d}" for number in range(500)]
    metrics = [replace(frozen.metrics[0], name=f"a-metric-{number}") for number in range(10)]
    scores = (31.234, 21.345, 0.27123, 0.41234, 5.9123, 0.081234, 0.41234, 0.22123, 0.020123, -0.31234)
    spo = replace(
        variant(frozen, "spo"),
        values={facts.name: (score,) * 500 for facts, score in zip(metrics, scores, strict=True)},
        timings={name: (FrozenRound(median=0.1234567, values=300),) * 5 for name in ("end_to_end", "denoise_step")},
    )
    named = [replace(spo, fingerprint=replace(spo.fingerprint, name=name)) for name in ("base", "dpo", "spo")]
    large = replace(
        frozen,
        prompts=dict.fromkeys(ids, "0123456789ab"),
        metrics=tuple(metrics),
        variants=tuple(named),
    )
    write_baseline(large, tmp_path / "baseline.json")
    assert (tmp_path / "baseline.json").stat().st_size < 200_000


def test_what_nobody_accepted_is_not_written(frozen: Baseline, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="somebody who accepts it"):
        write_baseline(replace(frozen, acceptance=NOT_ACCEPTED), tmp_path / "baseline.json")
    assert list(tmp_path.iterdir()) == []


VERDICTS = st.none() | st.sampled_from(["pass", "fail", "inconclusive", "invalid"])
WORDS = st.text(string.ascii_letters + string.digits + ' \t\u00e9\u2028\U0001f483"\\', max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.lists(st.text(string.ascii_lowercase + "-", min_size=1, max_size=8), min_size=1, max_size=4, unique=True)


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    run = small_run()
    template = freeze(run, acceptance=ACCEPTED)
    prompts, metrics, names = draw(NAMES), draw(NAMES), draw(NAMES)
    facts: list[MetricFacts] = [replace(template.metrics[0], name=name, summary=draw(WORDS)) for name in metrics]

    def one(name: str) -> FrozenVariant:
        column = st.tuples(*[st.none() | NUMBERS] * len(prompts))
        medians = st.none() | st.floats(0, allow_infinity=False, exclude_min=True)
        rounds = st.lists(st.builds(FrozenRound, median=medians, values=st.integers(1, 9)), min_size=1, max_size=3)
        return FrozenVariant(
            fingerprint=replace(template.variants[0].fingerprint, name=name),
            values=draw(st.dictionaries(st.sampled_from(metrics), column)),
            timings=draw(st.dictionaries(st.sampled_from(["load", "end_to_end"]), rounds.map(tuple))),
        )

    return replace(
        template,
        prompts={name: draw(WORDS) for name in prompts},
        metrics=tuple(facts),
        variants=tuple(one(name) for name in names),
        acceptance=Acceptance(
            by="x" + draw(WORDS), time="t", why=draw(WORDS), verdict=draw(st.none() | st.just("fail"))
        ),
        session_noise=tuple(
            SessionNoise(name=name, sd_log_ratio=draw(st.floats(0, 9)), sessions=draw(st.integers(2, 9)))
            for name in draw(st.lists(st.just("load"), max_size=1))
        ),
    )


@settings(max_examples=60, deadline=None)
@given(one=baselines())
def test_any_baseline_reads_as_it_was_written(one: Baseline, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "baseline.json"
    written = write_baseline(one, path)
    assert read_baseline(path) == written == replace(one, checksum=written.checksum)
    text = path.read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)
    tables = [table.split("\n}")[0].split("\n")[1:] for table in text.split('"values": {')[1:]]
    assert len(tables) == len(one.variants)
    for rows in tables:
        assert [row.split(": [")[0] for row in rows] == [json.dumps(prompt_id) for prompt_id in one.prompts]


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), char=st.sampled_from('0123456789abcxyz{}[],:".-e \n'))
def test_no_edit_of_a_character_changes_what_is_read(place: float, char: str, tmp_path_factory) -> None:
    data = GOLDEN.read_text(encoding="utf-8")
    at = int(place * len(data))
    path = tmp_path_factory.mktemp("edited") / "baseline.json"
    path.write_text(data[:at] + char + data[at + 1 :], encoding="utf-8")
    try:
        found = read_baseline(path)
    except HotartError:
        return
    assert found == read_baseline(GOLDEN)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = GOLDEN.read_bytes().rstrip()
    path = tmp_path_factory.mktemp("cut") / "baseline.json"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InvalidError, match="is not a valid baseline"):
        read_baseline(path)


def resigned(text: str) -> str:
    """The text with the checksum that fits it, as someone could compute who edits on purpose."""
    table = json.loads(text)
    table["checksum"] = ""
    plain = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    table["checksum"] = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps(table)


NOT_JSON = {
    "empty": b"",
    "binary": b"\x89PNG\r\n\x1a\n\x00\x00",
    "not UTF-8": b'{"kind": "\xff"}',
    "doubled key": b'{"kind": "a", "kind": "hotart-bench baseline"}',
    "NaN": b'{"kind": "hotart-bench baseline", "schema": NaN}',
    "infinite": b'{"kind": "hotart-bench baseline", "schema": 1e999}',
    "a lone surrogate": b'{"kind": "\\ud800"}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("prompt_id", NOT_JSON)
def test_what_is_no_json(prompt_id: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(NOT_JSON[prompt_id])
    with pytest.raises(InvalidError, match="is not a valid baseline") as refused:
        read_baseline(path)
    assert str(path) in refused.value.message
    assert refused.value.hint


EDITS: dict[str, tuple[str, str, type[HotartError], str]] = {
    # what is wrong: (what is replaced, by what, the error, what its sentence says); the checksum is made to fit
    "another kind": ('"hotart-bench baseline"', '"something else"', UsageError, "is not a baseline"),
    "a newer schema": ('"schema": 4', '"schema": 5', IncomparableError, "has schema 5; .* of schema 4 only"),
    "an older schema": ('"schema": 4', '"schema": 3', IncomparableError, "has schema 3; .* of schema 4 only"),
    "schema 0": ('"schema": 4', '"schema": 0', InvalidError, "schema is 0"),
    "schema true": ('"schema": 4', '"schema": true', InvalidError, "schema is True"),
    "an unknown field": ('"seed": 0', '"seed": 0, "sede": 1', InvalidError, "unknown field sede"),
    "a missing field": ('"seed": 0,', "", InvalidError, "missing field seed"),
    "a text for a number": ('"seed": 0', '"seed": "0"', InvalidError, "seed: expected int, got str"),
    "a limit under 0": ('"amount": 0.5', '"amount": -0.5', InvalidError, "limits.0..amount: expected"),
    "no sample": ('"samples": 2', '"samples": 0', InvalidError, "no prompt, no variant or no sample"),
    "a prompt too few": ('"case-002": "', '"other": "', InvalidError, "a line for each prompt"),
    "a variant twice": ('"name": "spo"', '"name": "base"', InvalidError, "names a variant twice"),
    "a metric twice": ('"name": "contrast"', '"name": "sharpness"', InvalidError, "names a metric twice"),
    "an unknown metric": ('"name": "contrast"', '"name": "contrats"', InvalidError, "values of contrast, unknown"),
    "no values in a round": ('"load": [', '"load": [[0.5,0],', InvalidError, "a round of load without a value"),
    "no time in a round": ('"load": [', '"load": [[-0.5,9],', InvalidError, "a round of load without a value over 0"),
    "half a round": ('"load": [', '"load": [[0.5],', InvalidError, "is not a valid baseline"),
    "an unknown timing": ('"load": [', '"laod": [', InvalidError, "invalid enum value 'laod'"),
    "a number too large": (
        '"case-000": [',
        '"case-000": [1' + "0" * 400 + ",",
        InvalidError,
        "is not a valid baseline",
    ),
    "a value too many": ('"case-000": [', '"case-000": [0.5,', InvalidError, "values for case-000"),
}


@pytest.mark.parametrize("prompt_id", EDITS)
def test_a_wrong_file_with_the_right_checksum(prompt_id: str, tmp_path: Path) -> None:
    old, new, kind, words = EDITS[prompt_id]
    text = GOLDEN.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "baseline.json"
    path.write_text(resigned(text.replace(old, new, 1)), encoding="utf-8")
    with pytest.raises(kind, match=words) as refused:
        read_baseline(path)
    assert str(path) in refused.value.message
    assert type(refused.value) is kind


def test_an_edited_number_is_refused(tmp_path: Path) -> None:
    text = GOLDEN.read_text(encoding="utf-8")
    path = tmp_path / "baseline.json"
    path.write_text(text.replace('"samples": 2', '"samples": 4'), encoding="utf-8")
    with pytest.raises(InvalidError, match="is not as it was frozen: its checksum"):
        read_baseline(path)


def test_a_missing_file_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no baseline here") as refused:
        read_baseline(tmp_path / "none.json")
    assert "hotart-bench baseline RUN -o" in refused.value.hint


def test_what_would_not_be_read_is_not_written(frozen: Baseline, tmp_path: Path) -> None:
    spo = variant(frozen, "spo")
    bad = [
        replace(spo, values={**spo.values, "mini-clip": (float("nan"), 0.0, 0.0)}),
        replace(spo, values={"mini-clip": (0.5,)}),
        replace(spo, values={"unknown": (0.5,) * 3}),
        replace(spo, timings={"load": ()}),
    ]
    for one in bad:
        with pytest.raises(ValueError):
            write_baseline(replace(frozen, variants=(one,)), tmp_path / "baseline.json")
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_baseline_limits_metrics_and_no_timed_quantity() -> None:
    limits = read_baseline(SHIPPED).limits
    assert "mini-clip" in [one.name for one in limits]
    assert [one.name for one in limits if is_timed(one)] == []
