"""``steps``: which denoising steps a model improves, and from which steps its gain comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.cost import say_run_cost, say_time
from bench.cli.options import Device, DryRun, Fresh, Limit, Output, Quiet, Ray, RunOrSuite, Variants, WeightsDir
from bench.cli.printing import DONE, Columns, print_table, say, show
from bench.cli.stages import do_stage
from bench.cli.targets import as_place, default_folder, find_target, names_run
from bench.compare import compare_run, variant_pairs
from bench.errors import UsageError
from bench.formatting import argument, decimals_for, interval, plural, quantity, signed
from bench.metrics import installed
from bench.records import AttributedMetric, Run, StepAttribution, StepCurve, StepPlan, Suite, WindowFront
from bench.report.steps import StepsView, gain_cell, share_cell, steps_view, window_span
from bench.steps.plan import StepJob, changes_text, open_step_jobs, step_cost, step_metrics_of
from bench.store import load_run, load_steps
from bench.store.objects import is_url
from bench.suite.attribution import attribution_suite
from bench.suite.planned_images import with_batch
from bench.suite.step_ranges import parse_steps

MOST_ROWS = 12
"""Steps that a table of the terminal shows; the report shows all."""


StepMetrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="A,B",
        help="Metrics of the predicted image, and step metrics, which know the step.  [default: the suite's "
        "[step_metrics], else its metrics of preference]",
    ),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="STEPS", help='all, "every 2", or numbers such as 1,5,20.  [default: all]'),
]
Attribute = Annotated[
    str | None,
    typer.Option(
        "--attribute",
        metavar="VARIANT",
        help="Instead: render this variant in windows of steps only, to see where its gain comes from.",
    ),
]
Windows = Annotated[int, typer.Option("--windows", metavar="N", help="With --attribute: how many.")]


def steps(
    run_or_suite: RunOrSuite,
    metrics: StepMetrics = None,
    at: At = None,
    attribute: Attribute = None,
    windows: Windows = 5,
    output: Output = None,
    variants: Variants = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> int:
    """Which denoising steps a model improves: the predicted image at each, scored.

    The path of each image is drawn again with the run's own batches. At the chosen steps the image that the model
    predicts is decoded and scored; step metrics, such as SPO's own model, know the step that they judge. The report
    then shows the difference of variants at each step, when an image is decided, and where the order at a step is
    the reverse of the final one.

    With --attribute a variant runs in windows of steps only, and the report says from which its gain comes.

    Examples:
      hotart-bench steps RUN --metrics mini-preference,mini-step-aware
      hotart-bench steps mini --at "every 4" --dry-run
      hotart-bench steps mini --attribute spo --windows 5
    """
    suite, folder = find_target(run_or_suite, output if attribute is None else None, limit)
    if suite.external_images is not None:
        raise UsageError(f"{run_or_suite}: its images are external; nothing is known of their steps.")
    options.check_device(device)
    plan = None
    if attribute is None:
        plan = _plan(suite, metrics, at)
        _say_cost(suite, plan, folder, variants)
    elif at is not None or variants is not None:
        flag = "--at" if at is not None else "--variants"
        raise UsageError(f"{flag} goes with step metrics; --attribute renders its own windows, set by --windows.")
    else:
        suite, folder = _in_windows(suite, run_or_suite, folder, attribute, windows, output, weights_dir)
    if dry_run and plan is None:
        say_run_cost(suite, folder, device=device, weights_dir=weights_dir, ray=ray, fresh=fresh)
    if not dry_run:
        do_stage(
            "all" if plan is None else "steps",
            suite,
            folder,
            quiet,
            variants=variants,
            metrics=metrics if plan is None else None,
            device=device,
            weights_dir=weights_dir,
            ray=ray,
            fresh=fresh,
            steps=plan,
        )
        tell_steps(load_run(folder), folder)
    return DONE


# What is to be done, and what it costs.


def _in_windows(
    suite: Suite,
    run_or_suite: str,
    folder: str | Path,
    attribute: str,
    windows: int,
    output: str | None,
    weights_dir: Path | None,
) -> tuple[Suite, str | Path]:
    """The suite of an attribution and its run folder; says what will be rendered."""
    reference = suite.variants[0]
    found = attribution_suite(suite, attribute, windows, lambda lora: changes_text(lora, reference, weights_dir))
    say_windows(found)
    return found, as_place(output) if output else _beside(run_or_suite, folder, found)


def _beside(run_or_suite: str, folder: str | Path, suite: Suite) -> str | Path:
    """Where the run of an attribution lies: beside the run that was named, or by the suite's new name."""
    if not names_run(run_or_suite):
        return default_folder(suite)
    place = f"{str(folder).rstrip('/')}-steps-{suite.attribution.variant if suite.attribution else ''}"
    return place if is_url(place) else Path(place)


def _plan(suite: Suite, metrics: str | None, at: str | None) -> StepPlan:
    """What the flags ask for, else what the suite says, else its metrics of preference at every step."""
    registry, own = installed(), suite.step_metrics
    names = options.split_names(metrics, "--metrics") or (own.metrics if own is not None else ())
    if not names:
        known = [registry.metrics[name].facts for name in suite.metrics if name in registry.metrics]
        names = tuple(facts.name for facts in known if facts.category == "preference")
    if not names:
        raise UsageError(
            f"The suite {suite.name} has no metric of preference; name what the steps are scored by with --metrics.",
            f"--metrics takes {', '.join(sorted(registry.step_metrics))}, and the suite's metrics",
        )
    step_metrics_of(names, registry, None)
    numbers = own.at if at is None and own is not None else parse_steps(at or "all", suite.settings.steps)
    return StepPlan(metrics=tuple(names), at=numbers)


def say_windows(suite: Suite) -> None:
    """Says what an attribution will render, on stderr."""
    found = suite.attribution
    if found is None:
        return
    only = [f"{one.first}-{one.last}" for one in found.windows if one.kind == "only"]
    images = len(suite.variants) * len(suite.prompts) * suite.samples
    say(
        f"{found.variant} runs in steps {', '.join(only)} of {suite.settings.steps}, up to each and from each on: "
        f"{plural(len(suite.variants), 'variant')}, {plural(images, 'image')}."
    )
    if any(lora.unet == 0 for variant in suite.variants for lora in variant.loras):
        say("What it changes in the text encoders stays on throughout: they run once, before the first step.")


def _say_cost(suite: Suite, plan: StepPlan, folder: str | Path, variants: str | None) -> None:
    """Says images, decodings, scores and disk, and the time as far as the run's timings tell it."""
    jobs, seconds = _missing(suite, plan, folder, options.variants_of(suite, variants))
    if not jobs:
        say("No step score is missing.")
        return
    cost = step_cost(suite, jobs, seconds)
    say(
        f"Steps {', '.join(map(str, plan.at))}: {plural(cost.images, 'image')} drawn, {cost.decodes:,} predicted ones "
        f"decoded, {plural(cost.scores, 'score')}, {quantity(float(cost.disk_bytes), 'byte')} on the disk."
    )
    unknown = f"not known before a first timing: hotart-bench measure {argument(folder)}"
    say_time(cost.seconds, "by its timings" if cost.seconds is not None else unknown, "the metrics", "draw and decode")


def _missing(
    suite: Suite, plan: StepPlan, folder: str | Path, variants: tuple[str, ...] | None
) -> tuple[list[StepJob], dict[str, tuple[float, float]] | None]:
    """What a run lacks, and the seconds of its variants; the whole plan where there is no run."""
    names = variants or tuple(variant.name for variant in suite.variants)
    facts = [metric.facts for metric in step_metrics_of(plan.metrics, installed(), None)]
    suite = with_batch(suite)
    if not names_run(str(folder)):
        return open_step_jobs(suite, names, facts, plan.at, (), ()), None
    run = load_run(folder)
    return open_step_jobs(suite, names, facts, plan.at, run.renders, load_steps(folder)), _seconds(run)


def _seconds(run: Run) -> dict[str, tuple[float, float]] | None:
    found: dict[str, dict[str, float]] = {}
    for timing in run.timings:
        if timing.name in ("end_to_end", "vae_decode") and timing.values:
            found.setdefault(timing.variant, {})[timing.name] = sorted(timing.values)[len(timing.values) // 2]
    whole = {name: (own["end_to_end"], own["vae_decode"]) for name, own in found.items() if len(own) == 2}
    return whole or None


# What was found.


def tell_steps(run: Run, folder: str | Path) -> None:
    """Sentences and tables of what was found, on stdout."""
    pairs = variant_pairs(run.info.suite)
    deltas = compare_run(run, tags=False) if run.scores else ()
    view = steps_view(run, load_steps(folder), deltas, pairs, with_pictures=False)
    if view is None:
        return
    for table in _tables(view):
        print_table(*table)
        show()
    for sentence in (*view.sentences, *view.notes):
        show(sentence)


def _tables(view: StepsView) -> list[tuple[Columns, list[list[str]]]]:
    tables = [_curve_table(view.curves, metric) for metric in dict.fromkeys(curve.metric for curve in view.curves)]
    if view.attribution is not None:
        tables += [_window_table(view.attribution, one) for one in view.attribution.metrics]
        if view.attribution.front is not None:
            tables.append(_front_table(view.attribution.front))
    return tables


def _curve_table(curves: tuple[StepCurve, ...], metric: str) -> tuple[Columns, list[list[str]]]:
    own = [curve for curve in curves if curve.metric == metric]
    heads = (f"{curve.candidate} - {curve.reference} [{curve.level:.0%} band]" for curve in own)
    columns: Columns = {f"{metric}: step": "number", **dict.fromkeys(heads, "number")}
    decimals = decimals_for(max(max(map(abs, curve.mean)) for curve in own) / 100)
    steps = own[0].steps
    every = max(1, -(-len(steps) // MOST_ROWS))
    shown = [place for place in range(len(steps)) if place % every == 0 or place == len(steps) - 1]
    rows = []
    for place in shown:
        cells = [
            f"{signed(curve.mean[place], decimals)} [{signed(curve.low[place], decimals)}, "
            f"{signed(curve.high[place], decimals)}]"
            for curve in own
        ]
        rows.append([str(steps[place]), *cells])
    return columns, rows


def _window_table(found: StepAttribution, one: AttributedMetric) -> tuple[Columns, list[list[str]]]:
    decimals = decimals_for(abs(one.whole.mean) / 100)
    words = {"only": "only {}-{}", "until": "up to {1}", "from": "from {0} on"}
    columns: Columns = {f"{one.metric}: {found.variant} in steps": "name", "difference": "number", "share": "number"}
    rows = [["all", f"{signed(one.whole.mean, decimals)} {interval(one.whole.interval, decimals)}", ""]]
    for window in one.windows:
        share = "" if window.share is None else f"{window.share:.0%}"
        ends = f"{signed(window.delta.mean, decimals)} {interval(window.delta.interval, decimals)}"
        rows.append([words[window.kind].format(window.first, window.last), ends, share])
    if one.additivity is not None:
        more = one.additivity
        ends = f"{signed(more.excess, decimals)} {interval(more.interval, decimals)}"
        rows.append(["sum of the windows less the whole", ends, ""])
    return columns, rows


def _front_table(front: WindowFront) -> tuple[Columns, list[list[str]]]:
    columns: Columns = {
        "steps": "name", f"gain in {front.metric}": "number", "share": "number", "largest loss": "number",
        "in": "name", "front": "name",
    }  # fmt: skip
    rows = [
        [
            window_span(one),
            gain_cell(one, front),
            share_cell(one),
            f"{one.loss:.2f}",
            one.worst or "",
            "*" if one.on_front else "",
        ]
        for one in front.places
    ]
    return columns, rows
