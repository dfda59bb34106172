"""The report's lists of facts: settings, provenance, and the command that repeats the run."""

from __future__ import annotations

import shlex
from datetime import datetime

from bench import wording as text
from bench.metrics.precision import version_dtype
from bench.records import Gate, Given, Machine, Plan, Run
from bench.report.current import records_digest
from bench.report.doubts import training_facts

Facts = tuple[tuple[str, str], ...]
"""(label, value) pairs."""


def setting_facts(run: Run) -> Facts:
    """Suite, images, sampler and machine, as (label, value)."""
    suite, settings, machine = run.info.suite, run.info.suite.settings, run.info.machine
    if suite.given is not None:
        return _given_facts(run, suite.given)
    eta = f", eta {settings.eta:g}" if settings.sampler == "ddim" else ""
    extras = [word for word, on in (("VAE tiling", settings.vae_tiling), ("compiled", settings.compile)) if on]
    limited = f", limited to the first {suite.limit}" if suite.limit is not None else ""
    memory = machine.device_memory_bytes
    device = machine.device_name + (f", {text.quantity(memory, 'byte')}" if memory else "")
    return (
        ("Suite", f"{suite.name}, schema {suite.schema}{limited}"),
        ("Prompts", f"{text.plural(len(suite.cases), 'prompt')} from {', '.join(suite.prompts)}"),
        ("Images", f"{text.plural(suite.samples, 'sample')} a prompt and variant, suite seed {suite.seed}"),
        ("Size", f"{settings.width} × {settings.height} px"),
        ("Sampler", f"{settings.sampler}, {text.plural(settings.steps, 'step')}, CFG {settings.guidance:g}{eta}"),
        ("Arithmetic", ", ".join([settings.dtype, f"batch {settings.batch or 'auto'}", *extras])),
        ("Timing", _timing_plan(suite.measure)),
        ("Device", f"{machine.device}: {device}"),
        ("Machine", _machine(machine)),
    )  # fmt: skip


def _timing_plan(plan: Plan) -> str:
    if not plan.rounds:
        return "none"
    return (
        f"{text.plural(plan.rounds, 'round')} of {text.plural(plan.images, 'image')} a variant, each in a fresh process"
    )


def _given_facts(run: Run, given: Given) -> Facts:
    """Of images that were given: where from, their size, and that the rest is not known."""
    suite, machine = run.info.suite, run.info.machine
    return (
        ("Images", f"given, not rendered: {given.images}, paired with prompts by {given.prompts}"),
        ("Prompts", f"{text.plural(len(suite.cases), 'prompt')}, up to {text.plural(suite.samples, 'image')} of each"),
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
    if suite.given is not None:
        words = ["hotart-bench", "score", "--images", suite.given.images, "--prompts", suite.given.prompts]
        words += ["--metrics", ",".join(_scored(run) or suite.metrics), "-o", run.path]
        if suite.limits:
            words += ["--limits", ",".join(f"{name}={limit}" for name, limit in suite.limits.items())]
        return shlex.join([*words, *_tower_dtype(run), "--device", run.info.machine.device])
    source = suite.source or suite.name
    if suite.sweep is not None:
        weights = ",".join(_exactly(weight) for weight in suite.sweep.weights)
        words = ["hotart-bench", "sweep", source, "--lora", suite.sweep.lora, "--lora-weights", weights]
    else:
        words = ["hotart-bench", "run", source]
    if suite.limit is not None:
        words += ["--limit", str(suite.limit)]
    if suite.sweep is None:
        words += [*_variants(run), *_tower_dtype(run)]
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


def _tower_dtype(run: Run) -> list[str]:
    """The flag for towers that did not compute in float32."""
    scored = _scored(run)
    dtypes = {version_dtype(facts.version) for facts in run.info.metrics if facts.name in scored} - {"float32"}
    return ["--tower-dtype", min(dtypes)] if dtypes else []


def _exactly(weight: float) -> str:
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)
