"""``list prompts``: the prompt sets that there are, and what is in one."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.printing import Column, print_json, print_table, printable
from bench.cli.verbs import group, verb
from bench.errors import SuiteError
from bench.records import Case, Record

app = group("Prompt sets.")
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
            print(printable("\n".join(f"  {case}" for case in summary.spo_training_prompts)))
    if prompt_set is not None and found[0].tags:
        print()
        rows = [[tag, str(count)] for tag, count in found[0].tags.items()]
        print_table([Column("tag"), Column("prompts", number=True)], rows)


def _find_set(name: str) -> Path:
    from bench.names import did_you_mean, listed
    from bench.suite import list_prompt_sets, prompts_folder
    from bench.suite.text_files import exists

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


def _summarize_prompts(name: str, cases: tuple[Case, ...]) -> PromptSetSummary:
    from bench.suite.clip_tokens import CONTEXT, count_tokens
    from bench.suite.contamination import training_cases

    tokens = [count_tokens(case.prompt) for case in cases]
    tags = Counter(tag for case in cases for tag in case.tags)
    return PromptSetSummary(
        set=name,
        prompts=len(cases),
        tags=dict(sorted(tags.items(), key=lambda item: (-item[1], item[0]))),
        tokens_min=min(tokens),
        tokens_median=statistics.median(tokens),
        tokens_max=max(tokens),
        over_77=sum(count > CONTEXT for count in tokens),
        spo_training_prompts=training_cases(cases),
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
