"""The report's lists of facts: settings, provenance, and the command that repeats the run."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

import msgspec

from bench import formatting as text
from bench.compare.pairing import cut_prompts
from bench.documents import JOURNAL_BYTES, parse_time, read_bytes
from bench.metrics.image_checks import duplicates
from bench.records import ExternalImages, Gate, Machine, Run, Settings, Suite
from bench.store import read_gate
from bench.suite.images_table import NOT_GIVEN
from bench.suite.training_prompts import training_prompts_in

Facts = tuple[tuple[str, str], ...]
"""(label, value) pairs."""

_PLOT = re.compile(r"\]\((plots/[^)]+)\)")


def records_digest(run: Run, gate: Gate | None) -> str:
    """sha256 over all that a report tells of, which stands in both reports: the card, the records, the verdicts.

    Where suite and weights lie is left out, as in a variant's fingerprint. An image whose file is gone counts, since
    the report shows it so.
    """
    suite = run.info.suite
    weights = {one.name: one.digest for one in run.info.variants}
    card = msgspec.structs.replace(
        run.info, variants=(), suite=msgspec.structs.replace(suite, source="", variants=(), notes=())
    )
    variants = [(variant.name, weights.get(variant.name)) for variant in suite.variants]
    lost = [one.image for one in run.renders if one.image is not None and not (Path(run.path) / one.image).is_file()]
    parts = (card, variants, run.renders, run.scores, run.set_scores, run.timings, gate, lost)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def gate_of(run: Run) -> Gate | None:
    """The last gate on ``run``, from its folder; None without one, or where it is of an earlier run there.

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
            texts.append(read_bytes(folder / name, JOURNAL_BYTES).decode())
        except (OSError, UnicodeDecodeError):  # gone, or no report: it is written anew
            return False
    plots = _PLOT.findall(texts[1])
    return all(digest in text for text in texts) and all((folder / plot).is_file() for plot in plots)


def cut_notes(run: Run) -> tuple[str, ...]:
    """One sentence for each metric that read only the beginning of prompts."""
    return tuple(
        f"{metric} read only the beginning of {text.plural(len(prompts), 'prompt')} of "
        f"{len(run.info.suite.prompts):,}: {text.listed(prompts)}."
        for metric, prompts in cut_prompts(run)
    )


def left_out_notes(suite: Suite) -> tuple[str, ...]:
    """A sentence on the prompts that were left out because SPO was trained on them; none where there are none."""
    if not suite.left_out:
        return ()
    count, names = text.plural(len(suite.left_out), "prompt"), text.listed(suite.left_out)
    return (f"{count} of the prompt files were left out, since SPO was trained on them: {names}.",)


def image_banners(run: Run) -> tuple[str, ...]:
    """How many images could not be made or used, how many are not there, and how many equal another one."""
    lost = [one for one in run.renders if one.image is None]
    absent = sum(one.error == NOT_GIVEN for one in lost)
    failed = len(lost) - absent
    found = []
    if failed:
        verb = "made" if run.info.suite.external_images is None else "used"
        found.append(f"{text.plural(failed, 'image')} could not be {verb}; each is shown below with its error.")
    if absent:
        samples = f"{text.plural(absent, 'sample')} that other variants or prompts have"
        found.append(f"{samples} {'is' if absent == 1 else 'are'} not among the external images.")
    return (*found, *doubled_notes(run), *equal_partner_notes(run))


def doubled_notes(run: Run) -> tuple[str, ...]:
    """A sentence on images that equal another one of their variant, which have no scores; none where there are none."""
    doubled = len(duplicates(run.renders))
    if not doubled:
        return ()
    why = "the model followed neither noise nor prompt. " if run.info.suite.external_images is None else ""
    return (f"{text.plural(doubled, 'image')} equal another image of their variant: {why}They have no scores.",)


def equal_partner_notes(run: Run) -> tuple[str, ...]:
    """A sentence on external images that several variants have with equal pixels; none where there are none."""
    if run.info.suite.external_images is None:
        return ()
    variants: dict[tuple[str, int, str], set[str]] = {}
    for render in run.renders:
        if render.pixels_sha256 is not None:
            variants.setdefault((render.prompt_id, render.sample, render.pixels_sha256), set()).add(render.variant)
    equal = [f"{prompt} sample {sample}" for (prompt, sample, _), names in variants.items() if len(names) > 1]
    if not equal:
        return ()
    what = text.plural(len(equal), "image")
    return (f"{what} of several variants with equal pixels, so that nothing differs there: {text.listed(equal, 3)}.",)


def training_facts(run: Run) -> Facts:
    """Which prompts SPO was trained on, as (label, value): those left out, and those that were kept."""
    kept = training_prompts_in(run.info.suite.prompts)
    said = f"{text.plural(len(kept), 'prompt')}: {text.listed(kept)}" if kept else "none"
    return (*(("Left out", note) for note in left_out_notes(run.info.suite)), ("Training prompts of SPO", said))


def setting_facts(run: Run) -> Facts:
    """Suite, images, sampler and machine, as (label, value)."""
    suite, settings, machine = run.info.suite, run.info.suite.settings, run.info.machine
    if suite.external_images is not None:
        return _external_facts(run, suite.external_images)
    eta = f", eta {settings.eta:g}" if settings.sampler in ("ddim", "tcd") else ""
    eta += f", rescaled by {settings.guidance_rescale:g}" if settings.guidance_rescale else ""
    compiled = "compiled whole" if settings.compile == "whole" else "compiled"
    named = (("VAE tiling", settings.vae_tiling), ("VAE slicing", settings.vae_slicing), (compiled, settings.compile))
    extras = [word for word, on in named if on]
    limited = f", limited to the first {suite.limit}" if suite.limit is not None else ""
    memory = machine.device_memory_bytes
    device = machine.device_name + (f", {text.quantity(memory, 'byte')}" if memory else "")
    plan, timing = suite.measure, "none"
    if plan.rounds:
        rounds, images = text.plural(plan.rounds, "round"), text.plural(plan.images, "image")
        timing = f"{rounds} of {images} a variant, each in a fresh process"
    return (
        ("Suite", f"{suite.name}, schema {suite.schema}{limited}"),
        ("Prompts", f"{text.plural(len(suite.prompts), 'prompt')} from {', '.join(suite.prompt_files)}"),
        *_prompt_facts(settings),
        ("Images", f"{text.plural(suite.samples, 'sample')} a prompt and variant, suite seed {suite.seed}"),
        ("Size", f"{settings.width} × {settings.height} px"),
        (
            "Sampler",
            f"{settings.sampler}, {_schedule(settings)}, {text.plural(settings.steps, 'step')}, "
            f"CFG {settings.guidance_scale:g}{eta}",
        ),
        ("Arithmetic", ", ".join([settings.dtype, f"batch {settings.batch or 'auto'}", *extras])),
        ("Timing", timing),
        ("Device", f"{machine.device}: {device}"),
        ("Machine", _machine(machine)),
    )  # fmt: skip


def _prompt_facts(settings: Settings) -> Facts:
    """How prompts are read and encoded, where that is not diffusers' own way."""
    programs = {"a1111": ["as A1111 reads prompts"], "comfyui": ["as ComfyUI reads prompts"]}
    told = list(programs.get(settings.prompt_syntax, ()))
    if settings.clip_skip is not None:
        told.append(f"clip skip {settings.clip_skip}")
    told += [f"embedding {one.name} ({one.sha256[:10]})" for one in settings.embeddings]
    return (("Text encoding", ", ".join(told)),) if told else ()


def _schedule(settings: Settings) -> str:
    times = ", ".join(map(str, settings.timesteps))
    return f"timesteps {times}" if times else settings.schedule


def _external_facts(run: Run, external: ExternalImages) -> Facts:
    """Of external images: where they come from, their size, and that the rest is not known."""
    suite, machine = run.info.suite, run.info.machine
    prompts, images = text.plural(len(suite.prompts), "prompt"), text.plural(suite.samples, "image")
    told = any(prompt.text for prompt in suite.prompts)
    themselves = "paired by what they say of themselves" if told else "without prompts"
    paired = f"paired with prompts by {external.prompts}" if external.prompts else themselves
    known = f"as the images say: {external.settings}" if external.settings else "unknown"
    return (
        ("Images", f"external, not rendered: {external.images}, {paired}"),
        ("Prompts", f"{prompts}, up to {images} of each" if told else "unknown"),
        ("Size", f"{suite.settings.width} × {suite.settings.height} px, of most images"),
        ("Seeds, sampler, weights", known),
        ("Scored on", f"{machine.device}: {machine.device_name}"),
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
        changes = {True: " with uncommitted changes", False: "", None: " (whether with changes is not known)"}
        commit = info.git.commit + changes[info.git.dirty]
    facts = [
        ("Run", info.id),
        ("Status", info.status),
        ("Start", when(info.start)),
        ("End", "not finished" if info.end is None else f"{when(info.end)} ({elapsed(info.start, info.end)})"),
        ("Commit", commit),
        ("Protocol digest", info.protocol_digest),
        ("Digest of the records", records_digest(run, gate)),
        *training_facts(run),
    ]
    if info.machine.driver:
        facts.append(("Driver", info.machine.driver))
    return tuple(facts)


def when(moment: str) -> str:
    """An ISO 8601 time to the minute, as in ``2 January 2025, 03:04 UTC``; anything else as it stands in the file."""
    found = parse_time(moment)
    return moment if found is None else f"{found.day} {found:%B %Y, %H:%M} {found.tzname()}"


def elapsed(start: str, end: str) -> str:
    """The time between two ISO 8601 times, as in ``2 min 40 s``; a dash where one of them is none."""
    first, last = parse_time(start), parse_time(end)
    if first is None or last is None:
        return text.NONE
    return text.duration(max(0.0, (last - first).total_seconds()))


def command(run: Run) -> str:
    """The command line that repeats the run with the same settings.

    What the suite says itself is left out, and so is what a run does not record: where weights were taken from, and
    a Ray cluster, which gives the same bytes.
    """
    suite, external, words = run.info.suite, run.info.suite.external_images, list[str]()
    found = {score.metric for score in run.scores} | {score.metric for score in run.set_scores}
    scored = [facts for facts in run.info.metrics if facts.name in found]
    metrics = ["--metrics", ",".join([facts.name for facts in scored] or suite.metrics)]
    dtypes = {facts.metric_dtype for facts in scored} - {"float32"}
    dtype = ["--metric-dtype", min(dtypes)] if dtypes else []
    if external is not None:
        words = [*metrics, "-o", run.path]
        if suite.limits:
            words += ["--limits", ",".join(f"{limit.name}={limit.text}" for limit in suite.limits)]
        return f"{text.making(suite)} {shlex.join([*words, *dtype, '--device', run.info.machine.device])}"
    if suite.limit is not None:
        words += ["--limit", str(suite.limit)]
    if suite.sweep is None and suite.attribution is None:
        made = {one.name for one in run.info.variants}
        chosen = [variant.name for variant in suite.variants if variant.name in made]
        words += ["--variants", ",".join(chosen)] if 0 < len(chosen) < len(suite.variants) else []
        words += dtype
    if scored and {facts.name for facts in scored} != set(suite.metrics):
        words += metrics
    return f"{text.making(suite)} {shlex.join([*words, '--device', run.info.machine.device])}"
