"""``run``: render, score, measure and report."""

from __future__ import annotations

from bench.cli.cost import say_run_cost
from bench.cli.ledger import check_ledger, note_run
from bench.cli.options import (
    AllowRemote,
    Device,
    DryRun,
    Fresh,
    LedgerPath,
    Limit,
    MetricDtype,
    Metrics,
    Output,
    Quiet,
    Ray,
    SuiteName,
    Variants,
    WeightsDir,
)
from bench.cli.printing import DONE
from bench.cli.stages import do_stage
from bench.cli.targets import as_place, default_folder, names_run, read_suite, recorded_suite
from bench.errors import UsageError
from bench.formatting import continuing


def run(
    suite: SuiteName = "mini",
    output: Output = None,
    variants: Variants = None,
    metrics: Metrics = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    metric_dtype: MetricDtype = None,
    ray: Ray = None,
    allow_remote: AllowRemote = False,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    ledger: LedgerPath = None,
    quiet: Quiet = False,
) -> int:
    """Render, score, measure and report: the main job.

    The same command again continues: it does only what is missing.

    Examples:
      hotart-bench run
      hotart-bench run mini --limit 4 --variants base,spo
      hotart-bench run sdxl --dry-run
      hotart-bench run my-suite.toml -o runs/mine --device cuda
      hotart-bench run sdxl --ray auto -o s3://bucket/sdxl
      hotart-bench run my-suite.toml -o runs/mine --ledger ledger.jsonl
    """
    if names_run(suite):
        raise UsageError(
            f"{suite} is a run folder; `run` takes a suite, and the folder with -o.",
            continuing(recorded_suite(suite), suite),
        )
    checked = read_suite(suite, limit)
    folder = as_place(output) if output else default_folder(checked)
    if dry_run:
        say_run_cost(checked, folder, variants=variants, device=device, weights_dir=weights_dir, ray=ray, fresh=fresh)
        return DONE
    check_ledger(ledger)
    do_stage(
        "all",
        checked,
        folder,
        quiet,
        variants=variants,
        metrics=metrics,
        device=device,
        weights_dir=weights_dir,
        metric_dtype=metric_dtype,
        ray=ray,
        allow_remote=allow_remote,
        fresh=fresh,
    )
    if ledger is not None:
        note_run(ledger, folder, quiet=quiet)
    return DONE
