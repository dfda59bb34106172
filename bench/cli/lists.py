"""``list suites``, ``variants``, ``metrics`` and ``prompts``: what there is."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import AsJson
from bench.cli.printing import Column, print_json, print_table, printable, say
from bench.cli.verbs import group, verb
from bench.errors import SuiteError
from bench.records import Lora, MetricFacts, Prompt, Record, Suite

# ``list suites``, ``variants`` and ``metrics``: what there is to run and to be judged by.

app = group("Suites, variants and metrics.")

BETTER = {True: "higher", False: "lower", None: ""}


class SuiteSummary(Record, frozen=True):
    """One line of ``list suites``."""

    suite: str
    prompts: int
    samples: int
    variants: tuple[str, ...]
    images: int
    width: int
    height: int
    steps: int
    sampler: str
    guidance_scale: float


class VariantSummary(Record, frozen=True):
    """One line of ``list variants``."""

    suite: str
    variant: str
    checkpoint: str
    revision: str | None
    loras: tuple[Lora, ...]
    unet: str | None
    vae: str | None


@verb(app, "suites", "hotart-bench list suites", "hotart-bench list suites --json")
def list_suites(json: AsJson = False) -> None:
    """The shipped suites, and how many images each makes."""
    from bench.suite import list_suites, load_suite

    found = [_summarize_suite(load_suite(name)) for name in list_suites()]
    if json:
        print_json(found)
        return
    columns = [
        Column("suite"),
        Column("prompts", number=True),
        Column("samples", number=True),
        Column("variants", text=True),
        Column("images", number=True),
        Column("settings", text=True),
    ]
    print_table(columns, [_suite_row(summary) for summary in found])


def _summarize_suite(suite: Suite) -> SuiteSummary:
    settings = suite.settings
    return SuiteSummary(
        suite=suite.name,
        prompts=len(suite.prompts),
        samples=suite.samples,
        variants=tuple(variant.name for variant in suite.variants),
        images=len(suite.prompts) * suite.samples * len(suite.variants),
        width=settings.width,
        height=settings.height,
        steps=settings.steps,
        sampler=settings.sampler,
        guidance_scale=settings.guidance_scale,
    )


def _suite_row(summary: SuiteSummary) -> list[str]:
    return [
        summary.suite,
        str(summary.prompts),
        str(summary.samples),
        ", ".join(summary.variants),
        str(summary.images),
        f"{summary.width}x{summary.height}, {summary.sampler}, {summary.steps} steps, CFG {summary.guidance_scale:g}",
    ]


@verb(app, "variants", "hotart-bench list variants", "hotart-bench list variants sdxl")
def list_variants(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", help="A suite's name or .toml file.  [default: all shipped suites]"),
    ] = None,
    json: AsJson = False,
) -> None:
    """The variants of a suite: their checkpoints and LoRAs."""
    from bench.suite import list_suites, load_suite

    names = list_suites() if suite is None else (suite,)
    found = [summary for name in names for summary in _summarize_variants(load_suite(name))]
    if json:
        print_json(found)
        return
    columns = [
        Column("suite"),
        Column("variant"),
        Column("checkpoint", text=True),
        Column("LoRAs", text=True),
    ]
    print_table(columns, [_variant_row(summary) for summary in found])


def _summarize_variants(suite: Suite) -> list[VariantSummary]:
    return [
        VariantSummary(
            suite=suite.name,
            variant=variant.name,
            checkpoint=variant.checkpoint,
            revision=variant.revision,
            loras=variant.loras,
            unet=variant.unet,
            vae=variant.vae,
        )
        for variant in suite.variants
    ]


def _variant_row(summary: VariantSummary) -> list[str]:
    parts = [summary.checkpoint]
    parts += [f"{name} {path}" for name, path in (("unet", summary.unet), ("vae", summary.vae)) if path]
    loras = [f"{lora.path} at {lora.weight:g}" for lora in summary.loras]
    return [summary.suite, summary.variant, ", ".join(parts), ", ".join(loras)]


@verb(
    app,
    "metrics",
    "hotart-bench list metrics",
    "hotart-bench list metrics pickscore",
    "hotart-bench list metrics --json",
)
def list_metrics(
    metric: Annotated[
        str | None,
        typer.Argument(metavar="METRIC", help="One metric, with all its facts.  [default: all in a table]"),
    ] = None,
    json: AsJson = False,
) -> None:
    """The metrics, and which way is better.

    Of one that is named, also version, unit, range, encoder, training, licence and source. TrainingOverlap tells how
    near a judge is to what the variants were trained on: an in-family judge is the one they were trained to
    please, a held-out one has seen nothing of it. --json has all facts.
    """
    from bench.metrics import all_facts, plugin_problems

    for problem in plugin_problems():
        say(problem)
    known = {facts.name: facts for facts in all_facts()}
    if metric is not None:
        options.check_known((metric,), "METRIC", sorted(known), "hotart-bench list metrics")
        known = {metric: known[metric]}
    if json:
        print_json(tuple(known.values()))
    elif metric is not None:
        print_table([Column(metric), Column("", text=True)], _facts_rows(known[metric]))
    else:
        rows = [
            [facts.name, facts.category, BETTER[facts.higher_is_better], facts.training_overlap, facts.summary]
            for facts in known.values()
        ]
        headings = ("metric", "category", "better", "training_overlap")
        print_table([*map(Column, headings), Column("what it is", text=True)], rows)
        say("All that one says of itself: hotart-bench list metrics METRIC")


def _facts_rows(facts: MetricFacts) -> list[tuple[str, str]]:
    low, high = ("unbounded" if end is None else f"{end:g}" for end in (facts.low, facts.high))
    return [
        ("what it is", facts.summary),
        ("version", facts.version),
        ("unit", facts.unit),
        ("better", BETTER[facts.higher_is_better] or "neither; it describes"),
        ("range", "unbounded" if low == high == "unbounded" else f"{low} to {high}"),
        ("category", facts.category),
        ("encoder", facts.encoder or "none"),
        ("trained on", facts.trained_on),
        ("training_overlap", facts.training_overlap),
        ("licence", facts.licence),
        ("reference", facts.reference),
    ]


# ``list prompts``: the prompt sets that there are, and what is in one.


MOST_TAGS = 4

"""How many tags the table of all prompt sets shows of each; the table of one set shows them all."""


class PromptSetSummary(Record, frozen=True):
    """One line of ``list prompts``; token counts are CLIP's, start and end among them."""

    set: str
    prompts: int
    tags: dict[str, int]
    tokens_min: int
    tokens_median: float
    tokens_max: int
    over_77: int
    spo_training_prompts: tuple[str, ...]
    """Ids of the prompts that SPO was trained on; a suite leaves them out."""


@verb(
    app,
    "prompts",
    "hotart-bench list prompts",
    "hotart-bench list prompts portraits",
    "hotart-bench list prompts my-prompts.csv --json",
)
def list_prompts(
    prompt_set: Annotated[
        str | None,
        typer.Argument(metavar="SET", help="A shipped set's name, or a prompt file.  [default: all shipped sets]"),
    ] = None,
    json: AsJson = False,
) -> None:
    """The prompt sets: counts by tag, and CLIP tokens.

    Tokens are counted as SD's and SDXL's text encoders do, start and end among them: they read 77.
    """
    from bench.suite import list_prompt_sets, prompts_folder, read_prompts

    if prompt_set is None:
        files = [prompts_folder() / name for name in list_prompt_sets()]
    else:
        files = [_find_set(prompt_set)]
    found = [_summarize_prompts(file.stem, read_prompts(file)) for file in files]
    if json:
        print_json(found)
        return
    headings = ("prompts", "tokens min", "median", "max", "over 77")
    columns = [Column("set"), *(Column(heading, number=True) for heading in headings)]
    if prompt_set is None:
        columns.append(Column("tags", text=True))
    print_table(columns, [_prompts_row(summary)[: len(columns)] for summary in found])
    for summary in found:
        if summary.spo_training_prompts:
            print(f"\nSPO was trained on these of {summary.set}; suites leave them out:")
            print(printable("\n".join(f"  {prompt_id}" for prompt_id in summary.spo_training_prompts)))
    if prompt_set is not None and found[0].tags:
        print()
        rows = [[tag, str(count)] for tag, count in found[0].tags.items()]
        print_table([Column("tag"), Column("prompts", number=True)], rows)


def _find_set(name: str) -> Path:
    from bench.documents import exists
    from bench.formatting import did_you_mean, listed
    from bench.suite import list_prompt_sets, prompts_folder

    shipped = {Path(file).stem: prompts_folder() / file for file in list_prompt_sets()}
    shipped |= {file: prompts_folder() / file for file in list_prompt_sets()}
    if name in shipped:
        return shipped[name]
    if Path(name).suffix or exists(Path(name)):
        return Path(name)
    stems = [key for key in shipped if not Path(key).suffix]
    raise SuiteError(
        f"{name!r} is neither a shipped prompt set ({listed(stems)}) nor a file{did_you_mean(name, stems)}.",
        "hotart-bench list prompts",
    )


def _summarize_prompts(name: str, prompts: tuple[Prompt, ...]) -> PromptSetSummary:
    from bench.suite.tokens import CONTEXT, count_tokens
    from bench.suite.training_prompts import training_prompts_in

    tokens = [count_tokens(prompt.text) for prompt in prompts]
    tags = Counter(tag for prompt in prompts for tag in prompt.tags)
    return PromptSetSummary(
        set=name,
        prompts=len(prompts),
        tags=dict(sorted(tags.items(), key=lambda item: (-item[1], item[0]))),
        tokens_min=min(tokens),
        tokens_median=statistics.median(tokens),
        tokens_max=max(tokens),
        over_77=sum(count > CONTEXT for count in tokens),
        spo_training_prompts=training_prompts_in(prompts),
    )


def _more(summary: PromptSetSummary) -> str:
    rest = len(summary.tags) - MOST_TAGS
    return f" and {rest} more" if rest > 0 else ""


def _prompts_row(summary: PromptSetSummary) -> list[str]:
    return [
        summary.set,
        str(summary.prompts),
        str(summary.tokens_min),
        f"{summary.tokens_median:g}",
        str(summary.tokens_max),
        str(summary.over_77),
        ", ".join(f"{tag} {count}" for tag, count in [*summary.tags.items()][:MOST_TAGS]) + _more(summary),
    ]
