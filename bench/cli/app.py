"""The verbs together: where each one is, and the first help that a newcomer reads.

A verb is a plain function in a module of its own, with an annotated parameter for each argument; its docstring is its
help, with the examples last. The module is imported when the verb is called, so that help and a misspelt verb import
none, and a verb that needs no model no torch.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
import typer.core
import typer.main

from bench.cli.printing import stop_writing
from bench.documents import refuse_url
from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.machine import package_versions

HELP = """Is the merge better, by how much, at what cost, and did it break anything?

Renders fixed prompts through the variants of a model (base, DPO, SPO, your merge), scores and times
the images, and explains the differences in a report.

\b
First steps:
  hotart-bench quick --checkpoint old.safetensors --checkpoint new.safetensors
      your models on 16 prompts, side by side in a report
  hotart-bench run
      the built-in suite: render, score, time, report (minutes on a CPU)
  hotart-bench compare reports/runs/mini
      its paired differences as a table
  hotart-bench doctor sdxl
      what a full-size suite needs, and what is missing here
  hotart-bench run my-suite.toml -o runs/mine
      your own checkpoints and prompts
"""
EXIT_CODES = """\b
Exit codes:
  0    done, or the gate passed
  1    the gate failed: a regression
  2    bad usage or a bad suite
  3    bad checkpoint or weights
  4    not comparable
  5    inconclusive, or results that allow no verdict
  6    environment error (disk, memory, permission)
  70   internal error
  130  interrupted; the same command continues
"""
VOTE_EXAMPLES = """\b
Examples:
  hotart-bench vote make reports/runs/mini -o vote
  hotart-bench vote serve vote
  hotart-bench vote add reports/runs/mini vote/votes
  hotart-bench vote status reports/runs/mini
"""
LIST_EXAMPLES = """\b
Examples:
  hotart-bench list suites
  hotart-bench list variants sdxl
  hotart-bench list metrics --json
  hotart-bench list prompts portraits
"""

LEDGER_EXAMPLES = """\b
Examples:
  hotart-bench ledger show ledger.jsonl --hash 3f9a1c
  hotart-bench ledger merge here.jsonl there.jsonl -o ledger.jsonl
"""

VERBS = {
    "quick": ("bench.cli.quick:quick", "Checkpoints and LoRAs side by side on 16 prompts, without a suite file."),
    "init": ("bench.cli.init:init", "Write a suite file from checkpoints and LoRAs."),
    "run": ("bench.cli.run:run", "Render, score, measure and report: the main job."),
    "render": ("bench.cli.render:render", "Render the images that are missing, and nothing else."),
    "score": ("bench.cli.score:score", "Score the images that are there."),
    "measure": ("bench.cli.measure:measure", "Time the variants and their memory, each in fresh processes."),
    "report": ("bench.cli.report:report", "Write report.html, report.md and the plots of a run or a grid anew."),
    "compare": ("bench.cli.compare:compare", "Paired differences between variants, or between two runs."),
    "plot": (
        "bench.cli.plot:plot",
        "Draw the plots of a run, of two, or of a grid; or its images on a sheet.",
    ),
    "gate": ("bench.cli.gate:gate", "Verdicts: did a variant lose more than is allowed?"),
    "baseline": ("bench.cli.baseline:baseline", "Freeze a run into one small file that gates compare with."),
    "steps": ("bench.cli.steps:steps", "Which denoising steps a model improves: the predicted image at each, scored."),
    "sweep": (
        "bench.cli.sweep:sweep",
        "Which weight of a LoRA is best, or which steps: each is a variant of one run.",
    ),
    "grid": (
        "bench.cli.grid:grid",
        "Does the order of the variants hold under other settings: each setting is a run.",
    ),
    "merge": ("bench.cli.merge:merge", "Merge checkpoints and LoRAs into one file, as a recipe says."),
    "card": ("bench.cli.card:card", "A model card for the Hub, and a text for a model page, of a finished run."),
    "history": ("bench.cli.history:history", "Every metric over the releases whose baselines or runs a folder holds."),
    "inspect": (
        "bench.cli.inspect:inspect",
        "What a checkpoint or LoRA file is and would change; what a picture says.",
    ),
    "plan": ("bench.cli.plan:plan", "Prompts, samples and time that margins need, by a pilot run."),
    "calibrate": ("bench.cli.calibrate:calibrate", "A/A test: how far apart chance alone puts the same weights."),
    "fetch": ("bench.cli.fetch:fetch", "Download everything that a suite needs, and check it."),
    "doctor": ("bench.cli.doctor:doctor", "What this machine has, what a suite needs, what is missing."),
    "vote": ("", "Blind votes of people: make a page, serve it, add what comes back."),
    "ledger": ("", "What was built, tried, voted on, accepted and shipped, found by hash."),
    "list": ("", "List what there is: suites, variants, metrics or prompts."),
}
"""Each verb, where its function is, and what the list of verbs says of it: the first sentence of its docstring."""
LISTS = {
    "suites": ("bench.cli.lists:list_suites", "The shipped suites, and how many images each makes."),
    "variants": ("bench.cli.lists:list_variants", "The variants of a suite: their checkpoints and LoRAs."),
    "metrics": ("bench.cli.lists:list_metrics", "The metrics, and which way is better."),
    "prompts": ("bench.cli.lists:list_prompts", "The prompt sets: counts by tag, and CLIP tokens."),
}
"""The same of ``hotart-bench list``."""
VOTE_VERBS = {
    "make": ("bench.cli.vote:make", "Write a page on which people vote blind between two pictures."),
    "serve": ("bench.cli.vote:serve", "Serve a voting page on this machine, and save votes as they are cast."),
    "add": ("bench.cli.vote:add", "Take the files that voters gave back into the run."),
    "status": ("bench.cli.vote:status", "What the votes on a run say, who voted, and how their control pairs went."),
}
"""The same of ``hotart-bench vote``."""
LEDGERS = {
    "show": ("bench.cli.ledger:show_ledger", "The entries of a ledger, all or those of one file."),
    "merge": ("bench.cli.ledger:merge_files", "Put ledgers of several machines together, without doubles."),
}
"""The same of ``hotart-bench ledger``."""
GROUPS = {"list": (LISTS, LIST_EXAMPLES), "vote": (VOTE_VERBS, VOTE_EXAMPLES), "ledger": (LEDGERS, LEDGER_EXAMPLES)}
"""The verbs that have verbs of their own, with the examples of their help."""

# Plain help fits 20 columns, and starts twice as fast as typer's rich one.
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

Job = Callable[[], int]
"""What to do; its value is the exit code: a verb says itself that it is done."""


class VerbGroup(typer.core.TyperGroup):
    """Verbs that are imported when they are called: click's pattern of lazily loaded commands."""

    verbs: ClassVar[Mapping[str, Mapping[str, tuple[str, str]]]] = {
        "hotart-bench": VERBS,
        **{name: verbs for name, (verbs, _) in GROUPS.items()},
    }

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return list(self.verbs[self.name or ""])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, its module imported; UsageError with the nearest one where there is none."""
        known = self.verbs[self.name or ""]
        if cmd_name not in known:
            near = did_you_mean(cmd_name, known)
            raise UsageError(f"{cmd_name!r} is not one of {', '.join(known)}{near}.", f"{ctx.command_path} --help")
        target, text = known[cmd_name]
        return _command(cmd_name, target) if target else _group(cmd_name, text, GROUPS[cmd_name][1])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of verbs, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.verbs[self.name or ""].items()])


def parse(arguments: Sequence[str]) -> Job | int:
    """The job that the arguments ask for, or the exit code where typer has answered by itself (help, version)."""
    command = build()
    try:
        # Not command.main(): it would turn Ctrl-C into a value. The verb runs later, outside of typer.
        with command.make_context("hotart-bench", list(arguments) or ["--help"]) as context:
            job: Job = command.invoke(context)
            return job
    except typer.Exit as answered:
        return answered.exit_code
    except BrokenPipeError:  # whoever read the help has seen enough of it; no verb has begun
        stop_writing(sys.stdout)
        return 0


def build() -> Any:
    """The whole command line as a click group."""
    return _group("hotart-bench", HELP, EXIT_CODES, _common)


def _group(name: str, text: str, last: str, callback: Callable[..., None] = lambda: None) -> Any:
    app = typer.Typer(name=name, cls=VerbGroup, add_completion=False, **_PLAIN)
    app.callback(help=text, epilog=last)(callback)
    return typer.main.get_command(app)


def _command(name: str, target: str) -> Any:
    """The function ``module:name`` as a command that gives the job to do."""
    module, _, function_name = target.partition(":")
    function: Callable[..., int] = getattr(importlib.import_module(module), function_name)
    text, _, examples = (inspect.getdoc(function) or "").partition("Examples:\n")

    @functools.wraps(function)
    def bind(**values: Any) -> Job:
        for value in values.values():
            if isinstance(value, Path):
                refuse_url(value)
        return functools.partial(function, **values)

    app = typer.Typer(add_completion=False, **_PLAIN)
    app.command(name, help=text.strip(), epilog=f"\b\nExamples:\n{examples}")(bind)
    return typer.main.get_command(app)


def _show_version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"hotart-bench {package_versions().get('hotart-bench', '(not installed)')}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """What stands before a verb; ``--version`` has answered already when this is called."""
