"""The report's lists of facts: settings, provenance, and the command that repeats the run."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bench import formatting as text
from bench.compare.pairing import cut_prompts
from bench.formatting import listed
from bench.metrics.image_checks import duplicates
from bench.records import ExternalImages, Gate, Machine, MeasurePlan, Run, Suite
from bench.store import read_gate
from bench.suite.images_table import NOT_GIVEN
from bench.suite.training_prompts import training_prompts_in

# Whether the reports of a run folder still tell of what it holds.

_PLOT = re.compile(r"\]\((plots/[^)]+)\)")


def records_digest(run: Run, gate: Gate | None) -> str:
    """sha256 over all that a report tells of, which stands in both reports: the card, the records, the verdicts.

    Where suite and weights lie is left out, as in a variant's fingerprint. An image whose file is gone counts, since
    the report shows it so.
    """
    suite = run.info.suite
    weights = {one.name: one.digest for one in run.info.variants}
    card = msgspec.structs.replace(run.info, variants=(), suite=msgspec.structs.replace(suite, source="", variants=()))
    variants = [(variant.name, weights.get(variant.name)) for variant in suite.variants]
    lost = [one.image for one in run.renders if one.image is not None and not (Path(run.path) / one.image).is_file()]
    parts = (card, variants, run.renders, run.scores, run.timings, gate, lost)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def gate_of(run: Run) -> Gate | None:
    """The last gate on ``run``, from its folder; None without one, or where it judged an earlier run there.

    Raises:
        IncomparableError: ``gate.json`` is of a newer schema.
        InvalidError: it is damaged.
        MachineError: it cannot be read.
    """
    found = read_gate(run.path)
    return found if found is not None and found.run_id == run.info.id else None


def is_current(run: Run) -> bool:
    """Whether both reports are there, with their plots, and were written of what the folder holds now.

    Raises:
        HotartError: what ``gate_of`` refuses.
    """
    folder = Path(run.path)
    digest = records_digest(run, gate_of(run))
    texts = []
    for name in ("report.html", "report.md"):
        try:
            texts.append((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):  # gone, or no report: it is written anew
            return False
    plots = _PLOT.findall(texts[1])
    return all(digest in text for text in texts) and all((folder / plot).is_file() for plot in plots)


# What a reader should hold against the numbers: cut prompts, doubled images, prompts a model was trained on.

MOST_NAMED = 12

"""Ids that a sentence names; the journal has them all."""


def cut_notes(run: Run) -> tuple[str, ...]:
    """One sentence for each metric that judged images by the beginning of their prompts alone."""
    return tuple(
        f"{found.metric} read only the beginning of {text.plural(len(found.prompts), 'prompt')} of "
        f"{len(run.info.suite.prompts):,}: {_ids(found.prompts)}."
        for found in cut_prompts(run)
    )


def left_out_notes(suite: Suite) -> tuple[str, ...]:
    """A sentence on the prompts that were left out because SPO was trained on them; none where there are none."""
    if not suite.left_out:
        return ()
    count = text.plural(len(suite.left_out), "prompt")
    return (f"{count} of the prompt files were left out, since SPO was trained on them: {_ids(suite.left_out)}.",)


def image_banners(run: Run) -> tuple[str, ...]:
    """How many images could not be made or used, how many were not given, and how many equal another one."""
    lost = [one for one in run.renders if one.image is None]
    absent = sum(one.error == NOT_GIVEN for one in lost)
    failed, doubled = len(lost) - absent, len(duplicates(run.renders))
    found = []
    if failed:
        verb = "made" if run.info.suite.external_images is None else "used"
        found.append(f"{text.plural(failed, 'image')} could not be {verb}; each is shown below with its error.")
    if absent:
        found.append(f"{text.plural(absent, 'sample')} were not given that other variants or prompts have.")
    if doubled:
        found.append(
            f"{text.plural(doubled, 'image')} equal another image of their variant: the model heeded neither noise nor "
            "prompt. They have no scores."
        )
    return tuple(found)


def training_facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Which prompts SPO was trained on, as (label, value): those left out, and those that were kept."""
    suite = run.info.suite
    kept = training_prompts_in(suite.prompts)
    facts = [("Left out", note) for note in left_out_notes(suite)]
    said = f"{text.plural(len(kept), 'prompt')}: {_ids(kept)}" if kept else "none"
    facts.append(("Training prompts of SPO", said))
    return tuple(facts)


def _ids(prompts: Sequence[str]) -> str:
    return listed(prompts, MOST_NAMED)


# The report's lists of facts: settings, provenance, and the command that repeats the run.

Facts = tuple[tuple[str, str], ...]

"""(label, value) pairs."""


def setting_facts(run: Run) -> Facts:
    """Suite, images, sampler and machine, as (label, value)."""
    suite, settings, machine = run.info.suite, run.info.suite.settings, run.info.machine
    if suite.external_images is not None:
        return _given_facts(run, suite.external_images)
    eta = f", eta {settings.eta:g}" if settings.sampler == "ddim" else ""
    extras = [word for word, on in (("VAE tiling", settings.vae_tiling), ("compiled", settings.compile)) if on]
    limited = f", limited to the first {suite.limit}" if suite.limit is not None else ""
    memory = machine.device_memory_bytes
    device = machine.device_name + (f", {text.quantity(memory, 'byte')}" if memory else "")
    return (
        ("Suite", f"{suite.name}, schema {suite.schema}{limited}"),
        ("Prompts", f"{text.plural(len(suite.prompts), 'prompt')} from {', '.join(suite.prompt_files)}"),
        ("Images", f"{text.plural(suite.samples, 'sample')} a prompt and variant, suite seed {suite.seed}"),
        ("Size", f"{settings.width} × {settings.height} px"),
        (
            "Sampler",
            f"{settings.sampler}, {settings.schedule}, {text.plural(settings.steps, 'step')}, "
            f"CFG {settings.guidance_scale:g}{eta}",
        ),
        ("Arithmetic", ", ".join([settings.dtype, f"batch {settings.batch or 'auto'}", *extras])),
        ("Timing", _timing_plan(suite.measure)),
        ("Device", f"{machine.device}: {device}"),
        ("Machine", _machine(machine)),
    )  # fmt: skip


def _timing_plan(plan: MeasurePlan) -> str:
    if not plan.rounds:
        return "none"
    return (
        f"{text.plural(plan.rounds, 'round')} of {text.plural(plan.images, 'image')} a variant, each in a fresh process"
    )


def _given_facts(run: Run, given: ExternalImages) -> Facts:
    """Of images that were given: where from, their size, and that the rest is not known."""
    suite, machine = run.info.suite, run.info.machine
    return (
        ("Images", f"given, not rendered: {given.images}, paired with prompts by {given.prompts}"),
        (
            "Prompts",
            f"{text.plural(len(suite.prompts), 'prompt')}, up to {text.plural(suite.samples, 'image')} of each",
        ),
        ("Size", f"{suite.settings.width} × {suite.settings.height} px, of most images"),
        ("Seeds, sampler, weights", "unknown"),
        ("Judged on", f"{machine.device}: {machine.device_name}"),
        ("Machine", _machine(machine)),
    )


def _machine(machine: Machine) -> str:
    cores, memory = text.plural(machine.cores, "core"), text.quantity(machine.memory_bytes, "byte")
    return f"{machine.cpu}, {cores}, {memory}, {machine.os}"


def provenance_facts(run: Run, gate: Gate | None) -> Facts:
    """Run id, times, commit, digests of the protocol and of all records, and driver, as (label, value)."""
    info = run.info
    commit = "not in a git repository"
    if info.git is not None:
        commit = info.git.commit + (" with uncommitted changes" if info.git.dirty else "")
    facts = [
        ("Run", info.id),
        ("Status", info.status),
        ("Start", when(info.start)),
        ("End", "not finished" if info.end is None else f"{when(info.end)} ({duration(info.start, info.end)})"),
        ("Commit", commit),
        ("Protocol digest", info.protocol_digest),
        ("Digest of the records", records_digest(run, gate)),
        *training_facts(run),
    ]
    if info.machine.driver:
        facts.append(("Driver", info.machine.driver))
    return tuple(facts)


def when(moment: str) -> str:
    """An ISO 8601 time to the minute, as in ``2 January 2025, 03:04 UTC``."""
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y, %H:%M} {found.tzname() or ''}".rstrip()


def duration(start: str, end: str) -> str:
    """The time between two ISO 8601 times, as in ``2 min 40 s``."""
    seconds = round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
    hours, rest = divmod(max(0, seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def command(run: Run) -> str:
    """The command line that repeats the run with the same settings.

    What the suite says itself is left out, and so is what a run does not record: where weights were taken from, and
    a Ray cluster, which gives the same bytes.
    """
    suite = run.info.suite
    if suite.external_images is not None:
        words = [
            "hotart-bench",
            "score",
            "--images",
            suite.external_images.images,
            "--prompts",
            suite.external_images.prompts,
        ]
        words += ["--metrics", ",".join(_scored(run) or suite.metrics), "-o", run.path]
        if suite.limits:
            words += ["--limits", ",".join(f"{name}={limit}" for name, limit in suite.limits.items())]
        return shlex.join([*words, *_encoder_dtype(run), "--device", run.info.machine.device])
    source = suite.source or suite.name
    if suite.sweep is not None:
        weights = ",".join(_exactly(weight) for weight in suite.sweep.weights)
        words = ["hotart-bench", "sweep", source, "--lora", suite.sweep.lora, "--lora-weights", weights]
    else:
        words = ["hotart-bench", "run", source]
    if suite.limit is not None:
        words += ["--limit", str(suite.limit)]
    if suite.sweep is None:
        words += [*_variants(run), *_encoder_dtype(run)]
    scored = _scored(run)
    if scored and set(scored) != set(suite.metrics):
        words += ["--metrics", ",".join(scored)]
    return shlex.join([*words, "--device", run.info.machine.device])


def _scored(run: Run) -> tuple[str, ...]:
    """The metrics that the run has scores of, in its order."""
    found = {score.metric for score in run.scores}
    return tuple(facts.name for facts in run.info.metrics if facts.name in found)


def _variants(run: Run) -> list[str]:
    made = {one.name for one in run.info.variants}
    every = [variant.name for variant in run.info.suite.variants]
    chosen = [name for name in every if name in made]
    return ["--variants", ",".join(chosen)] if chosen and chosen != every else []


def _encoder_dtype(run: Run) -> list[str]:
    """The flag for encoders that did not compute in float32."""
    scored = _scored(run)
    dtypes = {facts.metric_dtype for facts in run.info.metrics if facts.name in scored} - {"float32"}
    return ["--metric-dtype", min(dtypes)] if dtypes else []


def _exactly(weight: float) -> str:
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)
