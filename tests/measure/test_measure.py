"""The plan of the timing processes, what is skipped, what is kept, and what is said of it."""

from __future__ import annotations

import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from fakes import make_run

from bench.errors import MachineError, UsageError
from bench.measure import is_complete, measure, open_jobs, pick_variants, plan_batches, plan_shots
from bench.measure.process import Request
from bench.measure.stopwatch import Seconds, timing, to_timings
from bench.records import MeasurePlan, Suite, Timing
from bench.store import RunFolder
from bench.suite import image_seed, protocol_digest

PLAN = MeasurePlan(rounds=2, images=3, warmups=1)
SUITE = msgspec.structs.replace(make_run("", prompts=2).info.suite, measure=PLAN)

CHILD = """
    import json, os, sys
    request = json.loads(sys.stdin.readline())
    print(json.dumps(dict(type="Ready")), flush=True)
    sys.stdin.readline()
    with open({log!r}, "a") as log:
        log.write(json.dumps(request) + "\\n")
    variant, round_number = request["variant"]["name"], request["round"]
    if [variant, round_number] == {dies!r}:
        os.abort()
    timed = len(request["shots"]) - 1 - request["warmups"]
    counts = dict.fromkeys(["load", "first_image", "peak_rss"], (0, 1))
    counts |= dict.fromkeys(["text_encode", "vae_decode", "end_to_end"], (request["warmups"], timed))
    counts["denoise_step"] = (2 * request["warmups"], 2 * timed)
    timings = [
        dict(variant=variant, name=name, unit="byte" if name == "peak_rss" else "second", round=round_number,
             process=os.getpid(), warmups=[0.5] * warm, values=[0.25] * count)
        for name, (warm, count) in counts.items()
    ]
    for done in range(1, len(request["shots"]) + 1):
        print(done, flush=True)
    print(json.dumps(dict(type="Reply", timings=timings, threads=2, notes=["the fan was loud"])))
"""


def cuda_of(*, started: bool) -> SimpleNamespace:
    """A torch that has started CUDA, or has not."""
    return SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: started, empty_cache=lambda: None))


class Bench:
    """A run folder and a fake child that logs the requests it was given."""

    def __init__(self, folder: RunFolder, place: Path) -> None:
        self.folder = folder
        self.log = place / "requests.jsonl"
        self.script = place / "child.py"
        self.ticks: list[tuple[str, int, int, str]] = []

    def measure(self, suite: Suite = SUITE, dies: tuple[str, int] | None = None, **kwargs: object) -> object:
        program = CHILD.format(log=str(self.log), dies=list(dies) if dies else None)
        self.script.write_text(textwrap.dedent(program))

        def progress(stage: str, done: int, total: int, note: str = "") -> None:
            self.ticks.append((stage, done, total, note))

        arguments = {"variants": None, "device": "cpu", "weights_dir": None, "progress": progress} | kwargs
        command = [sys.executable, str(self.script)]
        return measure(suite, self.folder, command=command, **arguments)  # type: ignore[arg-type]

    @property
    def requests(self) -> list[tuple[str, int]]:
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        return [(r["variant"]["name"], r["round"]) for r in map(msgspec.json.decode, lines)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    path = tmp_path / "run"
    with RunFolder.open(path, suite=SUITE, protocol_digest=protocol_digest(SUITE)) as folder:
        yield Bench(folder, tmp_path)


# --- measuring -----------------------------------------------------------------------------


def test_variants_take_turns_and_every_record_is_kept(bench: Bench) -> None:
    count, _ = bench.measure()
    order = [("base", 0), ("dpo", 0), ("spo", 0), ("base", 1), ("dpo", 1), ("spo", 1)]
    assert bench.requests == order
    kept = bench.folder.timings()
    assert [(t.variant, t.round) for t in kept if t.name == "load"] == order
    assert count == len(kept) == 6 * 7
    assert len({t.process for t in kept}) == 6, "each variant and round has a process of its own"


def test_progress_counts_the_images_of_all_children(bench: Bench) -> None:
    bench.measure()
    counts = [done for _, done, _, _ in bench.ticks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 6 * 5)
    assert {(stage, total) for stage, _, total, _ in bench.ticks} == {("measure", 6 * 5)}
    assert bench.ticks[0][3] == "base, round 1"
    assert bench.ticks[-1][3] == "spo, round 2"


def test_what_is_measured_is_not_measured_again(bench: Bench) -> None:
    bench.measure()
    before = bench.folder.timings()
    assert bench.measure() == (0, ())
    assert len(bench.requests) == 6
    assert bench.folder.timings() == before


def test_a_dead_child_keeps_the_rounds_before_it_and_the_next_call_goes_on(bench: Bench) -> None:
    with pytest.raises(MachineError, match="of dpo, round 2, was ended by SIGABRT"):
        bench.measure(dies=("dpo", 1))
    assert len(bench.folder.timings()) == 4 * 7
    bench.log.unlink()
    assert bench.measure()[0] == 2 * 7
    assert bench.requests == [("dpo", 1), ("spo", 1)]


def test_only_the_wanted_variants_are_measured(bench: Bench) -> None:
    bench.measure(variants=["spo", "base"])
    assert bench.requests == [("base", 0), ("spo", 0), ("base", 1), ("spo", 1)]


def test_another_plan_is_measured_anew(bench: Bench) -> None:
    bench.measure()
    more = msgspec.structs.replace(SUITE, measure=MeasurePlan(rounds=2, images=4, warmups=1))
    assert bench.measure(suite=more)[0] == 6 * 7


def test_the_request_holds_suite_device_and_weights(bench: Bench) -> None:
    bench.measure(variants=["dpo"], device="cuda:1", weights_dir=Path("weights"))
    request = msgspec.json.decode(bench.log.read_bytes().splitlines()[0], type=Request)
    assert (request.settings, request.variant) == (SUITE.settings, SUITE.variants[1])
    assert (request.device, request.weights_dir, request.warmups) == ("cuda:1", "weights", 1)
    assert request.shots == plan_shots(SUITE)


@pytest.mark.parametrize(
    ("torch", "parents"),
    [(None, 0), (cuda_of(started=False), 0), (cuda_of(started=True), 1)],
    ids=["without torch", "torch alone", "with a context"],
)
def test_a_parent_with_a_context_on_the_device_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, torch: object, parents: int
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if torch is not None:
        monkeypatch.setitem(sys.modules, "torch", torch)
    bench.measure(variants=["dpo"])
    request = msgspec.json.decode(bench.log.read_bytes().splitlines()[0], type=Request)
    assert request.parents == parents
    assert sys.modules.get("torch") is torch, "torch is not imported for this"


def test_the_parent_gives_its_device_memory_back_before_a_child_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[tuple[bool, bool]] = []

    class Pipeline:
        """Holds itself in a cycle, as diffusers' do."""

    def empty_cache() -> None:
        given_back.append((pipeline() is None, bench.log.exists()))

    held = Pipeline()
    held.itself = held  # type: ignore[attr-defined]
    pipeline = weakref.ref(held)
    del held
    torch = cuda_of(started=True)
    torch.cuda.empty_cache = empty_cache
    monkeypatch.setitem(sys.modules, "torch", torch)
    bench.measure()
    assert given_back == [(True, False)], "once, of what was let go of, before the first child"
    bench.measure()
    assert len(given_back) == 1, "nothing was to be done"


# --- the plan ------------------------------------------------------------------------------


def test_an_unknown_variant_is_refused_before_anything_starts(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"no variant 'spoo' \(did you mean 'spo'\?\); it has base, dpo, spo"):
        bench.measure(variants=["base", "spoo"])
    assert bench.requests == []


def test_variants_come_in_the_suites_order() -> None:
    assert [v.name for v in pick_variants(SUITE, None)] == ["base", "dpo", "spo"]
    assert [v.name for v in pick_variants(SUITE, ["spo", "dpo", "spo"])] == ["dpo", "spo"]


def test_timed_images_take_the_prompts_in_turn_with_the_seeds_of_the_run() -> None:
    shots = plan_shots(SUITE)
    first, second = SUITE.prompts
    wanted = [(first, 0), (first, 0), (first, 0), (second, 0), (first, 1)]
    assert [shot.prompt for shot in shots] == [prompt.text for prompt, _ in wanted]
    assert [shot.seed for shot in shots] == [image_seed(SUITE.seed, prompt.id, n) for prompt, n in wanted]


def test_batches_take_the_prompts_in_turn_and_are_one_more_than_are_timed() -> None:
    assert plan_batches(SUITE) == ()
    suite = msgspec.structs.replace(
        SUITE,
        measure=msgspec.structs.replace(PLAN, batches=1),
        settings=msgspec.structs.replace(SUITE.settings, batch=3),
    )
    first, second = SUITE.prompts
    drawn = [[(shot.prompt, shot.seed) for shot in batch] for batch in plan_batches(suite)]
    wanted = [[(first, 0), (second, 0), (first, 1)], [(second, 1), (first, 2), (second, 2)]]
    assert drawn == [[(one.text, image_seed(SUITE.seed, one.id, n)) for one, n in batch] for batch in wanted]


def test_a_job_with_batches_needs_each_of_them() -> None:
    job, records = (SUITE.variants[0], 0), complete_records()
    suite = msgspec.structs.replace(SUITE, measure=msgspec.structs.replace(PLAN, batches=2))
    assert not is_complete(job, records, suite, "cpu")
    assert not is_complete(job, [*records, timing("base", 0, 9, "per_image_at_batch", (1.0,))], suite, "cpu")
    assert is_complete(job, [*records, timing("base", 0, 9, "per_image_at_batch", (1.0, 2.0))], suite, "cpu")


def test_a_variant_that_is_compiled_needs_its_time_and_others_do_not() -> None:
    suite = msgspec.structs.replace(
        SUITE, variants=tuple(msgspec.structs.replace(one, runtime="compile") for one in SUITE.variants)
    )
    job, records = (suite.variants[0], 0), complete_records()
    assert not is_complete(job, records, suite, "cpu")
    assert is_complete(job, [*records, timing("base", 0, 9, "compile", (3.0,))], suite, "cpu")
    assert is_complete((SUITE.variants[0], 0), records, suite, "cpu")


def complete_records(variant: str = "base", round_number: int = 0, process: int = 9) -> tuple[Timing, ...]:
    image: Seconds = {"text_encode": (0.1,), "denoise_step": (0.2,), "vae_decode": (0.3,), "end_to_end": (0.6,)}
    images = [image] * (1 + PLAN.warmups + PLAN.images)
    times = to_timings(1.0, images, PLAN.warmups, variant, round_number, process)
    return (*times, timing(variant, round_number, process, "peak_rss", (1.0,)))


def test_a_job_is_complete_with_every_name_from_one_process() -> None:
    job, records = (SUITE.variants[0], 0), complete_records()
    assert is_complete(job, records, SUITE, "cpu")
    for missing in records:
        rest = [record for record in records if record is not missing]
        assert not is_complete(job, rest, SUITE, "cpu"), missing.name
        other = msgspec.structs.replace(missing, process=10)
        assert not is_complete(job, [*rest, other], SUITE, "cpu"), missing.name


def test_a_job_is_complete_only_by_its_own_records() -> None:
    job = (SUITE.variants[0], 0)
    assert not is_complete(job, complete_records("dpo"), SUITE, "cpu")
    assert not is_complete(job, complete_records(round_number=1), SUITE, "cpu")


def test_records_of_a_killed_attempt_do_not_hide_the_complete_one() -> None:
    job = (SUITE.variants[0], 0)
    torn, whole = complete_records(process=8)[:3], complete_records(process=9)
    assert not is_complete(job, torn, SUITE, "cpu")
    assert is_complete(job, torn + whole, SUITE, "cpu")


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_a_job_on_a_gpu_needs_torchs_peaks_but_not_the_drivers(device: str) -> None:
    job, records = (SUITE.variants[0], 0), complete_records()
    assert not is_complete(job, records, SUITE, device)
    peaks = [timing("base", 0, 9, name, (1.0,)) for name in ("peak_allocated", "peak_reserved")]  # type: ignore[arg-type]
    assert is_complete(job, [*records, *peaks], SUITE, device)
    driver = timing("base", 0, 8, "energy_per_image", (900.0,))
    assert is_complete(job, [*records, *peaks, driver], SUITE, device), "left by a process that was killed"


def test_a_compiled_job_needs_the_time_of_its_compilation() -> None:
    job, records = (SUITE.variants[0], 0), complete_records()
    suite = msgspec.structs.replace(SUITE, settings=msgspec.structs.replace(SUITE.settings, compile=True))
    assert not is_complete(job, records, suite, "cpu")
    assert is_complete(job, [*records, timing("base", 0, 9, "compile", (11.0,))], suite, "cpu")


def test_jobs_are_open_round_by_round() -> None:
    done = complete_records("dpo", 0)
    jobs = open_jobs(SUITE, SUITE.variants, done, "cpu")
    assert [(variant.name, number) for variant, number in jobs] == [
        ("base", 0),
        ("spo", 0),
        ("base", 1),
        ("dpo", 1),
        ("spo", 1),
    ]


# --- the notes -----------------------------------------------------------------------------


def test_the_notes_say_how_it_was_timed(bench: Bench) -> None:
    _, notes = bench.measure()
    assert "batch 1, 64x64, 20 steps" in notes[0]
    assert "2 interleaved rounds, each a fresh process a variant of 3 images" in notes[0]
    assert notes[1] == "CPU threads of the timing processes: 2."
    assert notes[-1] == "the fan was loud"
    assert len(notes) == 4, "a note of every child is said once"
