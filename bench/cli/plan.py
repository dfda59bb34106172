"""``plan``: how large a gate must be for its limits, by a pilot run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.cli.options import AsJson, SuiteName
from bench.cli.printing import DONE, Columns, print_json, print_table, show
from bench.cli.targets import read_suite
from bench.errors import UsageError
from bench.formatting import NONE, decimals_for, duration, number, percent, plural
from bench.plan import plan_sizes
from bench.records import MetricPlan, SizePlan
from bench.store import load_run
from bench.suite.limits import parse_limits


def plan(
    suite: SuiteName,
    pilot: Annotated[
        str,
        typer.Option("--from", metavar="RUN", help="A run with the suite's settings; a limited one will do."),
    ],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC=LIMIT",
            help="A target limit, as a suite writes it; may be repeated.  [default: the suite's]",
            show_default=False,
        ),
    ] = None,
    power: Annotated[
        float, typer.Option("--power", metavar="P", help="How often a gate passes when nothing was lost.")
    ] = 0.8,
    candidate: Annotated[
        str | None, typer.Option("--candidate", metavar="V", help="A variant of the run.  [default: each]")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="V", help="A variant of the run.  [default: its first]")
    ] = None,
    json: AsJson = False,
) -> int:
    """Prompts, samples and time that margins need, by a pilot run.

    Examples:
      hotart-bench plan mini --from reports/runs/mini
      hotart-bench plan my-suite.toml --from runs/pilot --margin mini-clip=0.05
      hotart-bench plan mini --from reports/runs/mini --candidate spo --json
    """
    found = plan_sizes(
        read_suite(suite, None),
        load_run(pilot),
        margins=parse_limits(split_margins(margin or ())),
        power=power,
        candidate=candidate,
        reference=reference,
    )
    if json:
        print_json(found)
    else:
        print_plan(found)
    return DONE


def split_margins(texts: Sequence[str]) -> dict[str, str]:
    """``mini-clip=0.05`` as metric and limit; UsageError where it is not of that form, or a metric comes twice."""
    margins: dict[str, str] = {}
    for text in texts:
        name, equals, limit = (part.strip() for part in text.partition("="))
        if not (name and equals and limit):
            raise UsageError(
                f"--margin: {text!r} is not of the form METRIC=LIMIT, such as mini-clip=0.05 or mini-clip=0.1sd.",
                "hotart-bench plan --help",
            )
        if name in margins:
            raise UsageError(f"--margin: {name!r} is given twice.")
        margins[name] = limit
    return margins


def print_plan(plan: SizePlan) -> None:
    """Prints on stdout the prompts that each metric needs, and then the runs that serve them all."""
    show(
        f"Prompts with which a metric passes in {percent(plan.power)} of gates when nothing was lost, "
        f"by samples a prompt (pilot: {plan.pilot})\n"
    )
    sizes: Columns = dict.fromkeys((plural(run.samples, "sample") for run in plan.runs), "number")
    columns: Columns = {"metric": "name", "pair": "name", "limit": "name", "sd": "number", **sizes, "now": "number"}
    print_table(columns, [_metric_row(metric, plan) for metric in plan.metrics])
    now = f"{plural(plan.prompts_now, 'prompt')} x {plural(plan.samples_now, 'sample')}"
    show(f"\nsd: of a prompt's difference at 1 sample; now: how often a gate with the suite's {now} passes.\n")
    rows = [
        [
            str(run.samples),
            f"{run.prompts:,}",
            f"{run.images:,}",
            NONE if run.seconds is None else duration(run.seconds),
        ]
        for run in plan.runs
    ]
    print_table({"samples": "number", "prompts": "number", "images": "number", "time": "number"}, rows)
    show()
    for note in plan.notes:
        show(note)


def _metric_row(metric: MetricPlan, plan: SizePlan) -> list[str]:
    prompts = {size.samples: size.prompts for size in metric.sizes}
    first = metric.sizes[0]
    now = next((size.power_now for size in metric.sizes if size.samples == plan.samples_now), None)
    return [
        metric.metric,
        f"{metric.candidate} - {metric.reference}",
        metric.limit.text,
        number(first.sd, decimals_for(first.sd)),
        *(f"{prompts[run.samples]:,}" for run in plan.runs),
        percent(now),
    ]
