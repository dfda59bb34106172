"""``list suites``, ``variants``, ``metrics`` and ``prompts``: what there is."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from bench.cli import options
from bench.cli.options import AsJson
from bench.cli.printing import DONE, Columns, print_json, print_table, say, show
from bench.cli.targets import at_hand, names_run, read_suite
from bench.documents import exists, refuse_url
from bench.errors import SuiteError
from bench.formatting import did_you_mean, joined, listed
from bench.formatting import lora as lora_text
from bench.metrics import all_facts, installed, plugin_problems
from bench.metrics.catalogue import find_entry
from bench.metrics.training_data import overlap_with
from bench.published_files import TRUST
from bench.questions.registry import registry_of_suite, training_for_suite
from bench.records import MetricFacts, Over, Suite, TrainedOn, TrainingOverlap, Variant
from bench.report.training import training_sentence
from bench.store import read_info
from bench.suite import list_prompt_sets, load_suite, prompts_folder, read_prompt_file
from bench.suite import list_suites as shipped_suites
from bench.suite.prompt_files import PromptFile
from bench.suite.public_sets import PUBLIC_SETS, PublicSet, find_public_set, present
from bench.suite.tokens import CONTEXT, count_tokens
from bench.suite.training_prompts import training_prompts_in
from bench.trained_on import find_training

BETTER = {True: "higher", False: "lower", None: ""}
OVER: Mapping[Over, str] = {"image": "", "prompt": " of a prompt", "tag": " of a tag", "prompt pairs": " of a tag"}
"""What the table of metrics adds to the category of a set metric."""
NUMBER_OF: Mapping[Over, str] = {
    "image": "an image",
    "prompt": "the images of a prompt",
    "tag": "the images of a tag, and of all prompts",
    "prompt pairs": "the images of a tag, and of all prompts",
}
MOST_TAGS = 4
"""How many tags the table of all prompt sets shows of each; the table of one set shows them all."""


def list_suites(json: AsJson = False) -> int:
    """The shipped suites, and how many images each makes.

    Examples:
      hotart-bench list suites
      hotart-bench list suites --json
    """
    found = []
    for suite in map(load_suite, shipped_suites()):
        settings = suite.settings
        found.append(
            {
                "suite": suite.name,
                "prompts": len(suite.prompts),
                "samples": suite.samples,
                "variants": [variant.name for variant in suite.variants],
                "images": len(suite.prompts) * suite.samples * len(suite.variants),
                **{name: getattr(settings, name) for name in ("width", "height", "steps", "sampler", "schedule")},
                "guidance_scale": settings.guidance_scale,
            }
        )
    if json:
        print_json(found)
        return DONE
    rows = [
        [
            one["suite"],
            str(one["prompts"]),
            str(one["samples"]),
            ", ".join(one["variants"]),
            str(one["images"]),
            _settings_text(one),
        ]
        for one in found
    ]
    columns: Columns = {"suite": "name", "prompts": "number", "samples": "number", "variants": "text"}
    print_table({**columns, "images": "number", "settings": "text"}, rows)
    return DONE


def _settings_text(one: Mapping[str, Any]) -> str:
    schedule = "" if one["schedule"] == "leading" else f" {one['schedule']}"
    steps = f"{one['steps']} steps, CFG {one['guidance_scale']:g}"
    return f"{one['width']}x{one['height']}, {one['sampler']}{schedule}, {steps}"


def list_variants(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", help="A suite's name or .toml file.  [default: all shipped suites]"),
    ] = None,
    json: AsJson = False,
) -> int:
    """The variants of a suite: their checkpoints and LoRAs.

    Of a suite that is named, also what each was trained on and who says so: the suite (trained_on), else what is
    known of the file or of its name.

    Examples:
      hotart-bench list variants
      hotart-bench list variants sdxl
    """
    suites = map(load_suite, shipped_suites() if suite is None else (suite,))
    found = [(one.name, variant, trained) for one in suites for variant, trained in _training_of_suite(one)]
    if json:
        fields = ("checkpoint", "revision", "loras", "unet", "vae", "runtime")
        print_json(
            [
                {
                    "suite": name,
                    "variant": one.name,
                    **{field: getattr(one, field) for field in fields},
                    "trained_on": trained,
                }
                for name, one, trained in found
            ]
        )
        return DONE
    rows = []
    for name, variant, _ in found:
        parts = [("", variant.checkpoint), ("unet ", variant.unet), ("vae ", variant.vae), ("by ", variant.runtime)]
        loras = [lora_text(lora) for lora in variant.loras]
        rows.append([name, variant.name, ", ".join(label + path for label, path in parts if path), ", ".join(loras)])
    print_table({"suite": "name", "variant": "name", "checkpoint": "text", "LoRAs": "text"}, rows)
    if suite is not None:
        for _, variant, trained in found:
            show(f"{variant.name}: {training_sentence(trained)}")
            for note in trained.notes:
                say(note)
    return DONE


def _training_of_suite(suite: Suite) -> list[tuple[Variant, TrainedOn]]:
    """What each variant was trained on; names are checked, and nothing is fetched."""
    learnt, where = training_for_suite(suite), suite.source or suite.name
    return [(variant, find_training(variant, None, learnt, where)) for variant in suite.variants]


def list_metrics(
    metric: Annotated[
        str | None,
        typer.Argument(metavar="METRIC", help="One metric, with all its facts.  [default: all in a table]"),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--for", metavar="SUITE|RUN", help="A suite or run folder: the overlap with each variant."),
    ] = None,
    json: AsJson = False,
) -> int:
    """The metrics, and which way is better.

    A metric that is named is shown with all its facts: version, unit, range, encoder, training, licence, source.
    The last sentence names the metrics and data sets that it learnt from. With --for each variant has a column, the
    training overlap: the same data (it was trained to please the metric), related data, none, or unknown. Metrics
    "at a step" are for `hotart-bench steps`; those "of a prompt" or "of a tag" give one number of several images.
    --json has all facts.

    Examples:
      hotart-bench list metrics
      hotart-bench list metrics pickscore
      hotart-bench list metrics --for sdxl
      hotart-bench list metrics --json
    """
    for problem in plugin_problems():
        say(problem)
    steps = {name: one.facts for name, one in installed().step_metrics.items()}
    judged, trained = ({}, {}) if of is None else _known_for(of)
    known = {facts.name: facts for facts in all_facts()} | judged | steps
    if metric is not None:
        options.check_known((metric,), "METRIC", sorted(known), "hotart-bench list metrics")
        known = {metric: known[metric]}
    labels = {name: {one: overlap_with(facts, on) for one, on in trained.items()} for name, facts in known.items()}
    if json and of is not None:
        print_json([{**to_builtins(facts), "training_overlap": labels[name]} for name, facts in known.items()])
    elif json:
        print_json(tuple(known.values()))
    elif metric is not None:
        overlaps = [(f"overlap with {one}", label) for one, label in labels[metric].items()]
        print_table({metric: "name", "": "text"}, [*_facts_rows(known[metric]), *overlaps])
    else:
        _print_metrics(known, steps, labels, tuple(trained))
    for name, one in trained.items():
        if one is None or one.unknown:
            say(f"{name}: {training_sentence(one)}")
    return DONE


def _known_for(suite_or_run: str) -> tuple[dict[str, MetricFacts], dict[str, TrainedOn | None]]:
    """The metrics of a suite's or run's own judges, and what each variant was trained on (None: not said)."""
    if names_run(suite_or_run):
        info = read_info(at_hand(suite_or_run))
        suite, trained = info.suite, {one.name: info.trained_on.get(one.name) for one in info.suite.variants}
    else:
        suite = read_suite(suite_or_run, None)
        trained = {variant.name: found for variant, found in _training_of_suite(suite)}
    own = {table.name for table in suite.judges}
    metrics = registry_of_suite(suite).metrics.values()
    return {one.facts.name: one.facts for one in metrics if one.judge in own}, trained


def _print_metrics(
    known: Mapping[str, MetricFacts],
    steps: Mapping[str, MetricFacts],
    labels: Mapping[str, Mapping[str, TrainingOverlap]],
    variants: tuple[str, ...],
) -> None:
    rows = []
    for name, facts in known.items():
        learnt = f" Trained on {joined(facts.trained_on)}." if facts.trained_on and not variants else ""
        overlaps = [labels[name][variant] for variant in variants]
        rows.append([name, _category(facts, steps), BETTER[facts.higher_is_better], *overlaps, facts.summary + learnt])
    columns: Columns = dict.fromkeys(("metric", "category", "better", *variants), "name")
    print_table({**columns, "what it is": "text"}, rows)
    say("All facts of one: hotart-bench list metrics METRIC")


def _category(facts: MetricFacts, steps: Mapping[str, MetricFacts]) -> str:
    return "at a step" if facts.name in steps else facts.category + OVER[facts.over]


def _facts_rows(facts: MetricFacts) -> list[tuple[str, str]]:
    low, high = ("unbounded" if end is None else f"{end:g}" for end in (facts.low, facts.high))
    return [
        ("what it is", facts.summary),
        ("version", facts.version),
        ("unit", facts.unit),
        ("better", BETTER[facts.higher_is_better] or "neither; it describes"),
        ("range", "unbounded" if low == high == "unbounded" else f"{low} to {high}"),
        ("category", facts.category),
        ("one number of", NUMBER_OF[facts.over]),
        ("encoder", facts.encoder or "none"),
        ("trained on", "unknown" if facts.trained_on is None else ", ".join(facts.trained_on) or "nothing"),
        ("training data", facts.training_data),
        ("licence", facts.licence),
        ("reference", facts.reference),
        *_weights_rows(facts),
    ]


def _weights_rows(facts: MetricFacts) -> list[tuple[str, str]]:
    """Each weight file that a metric reads, and how it is known to be the right one."""
    registry = installed()
    if facts.name not in registry.scored and facts.name not in registry.step_metrics:
        return []  # of a suite's judge
    encoder = registry.encoders[facts.encoder].weights if facts.encoder is not None else ()
    rows = []
    own = registry.scored.get(facts.name) or registry.step_metrics[facts.name]
    for entry in map(find_entry, (*encoder, *own.weights)):
        for file in entry.files:
            trust = TRUST["unpinned" if file.sha256 is None else "pinned"]
            commit = f", commit {entry.revision[:12]}" if entry.revision is not None else ""
            rows.append(("weights", f"{entry.repository}/{file.name}: {trust}{commit}"))
    return rows


def list_prompts(
    prompt_set: Annotated[
        str | None,
        typer.Argument(
            metavar="SET", help="A shipped set's name, a prompt file, or a folder of them.  [default: all shipped sets]"
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Each prompt's id and tags, a line for each.")] = False,
    json: AsJson = False,
) -> int:
    """The prompt sets: counts by tag, and CLIP tokens.

    Tokens are counted as SD's and SDXL's text encoders do, start and end among them: they read 77.

    Examples:
      hotart-bench list prompts
      hotart-bench list prompts portraits
      hotart-bench list prompts portraits --ids
      hotart-bench list prompts my-prompts.csv --json
    """
    shipped = [prompts_folder() / name for name in list_prompt_sets()]
    files = shipped if prompt_set is None else [_find_set(prompt_set, shipped)]
    if ids:
        return _list_ids(files, json)
    found = [_summary(file.stem, read_prompt_file(file)) for file in files]
    public = [_public_row(one) for one in PUBLIC_SETS.values()] if prompt_set is None else []
    if json:
        print_json(found)
        return DONE
    numbers: Columns = dict.fromkeys(("prompts", "questions", "tokens min", "median", "max", "over 77"), "number")
    tags: Columns = {"tags": "text"} if prompt_set is None else {}
    print_table({"set": "name", **numbers, **tags}, [_prompts_row(one)[: 7 + len(tags)] for one in found])
    for one in found:
        for note in one["notes"]:
            show(f"\n{note}")
        if one["spo_training_prompts"]:
            show(f"\nSPO was trained on these of {one['set']}; suites leave them out:")
            show("\n".join(f"  {prompt_id}" for prompt_id in one["spo_training_prompts"]))
    if public:
        show()
        print_table({"public set": "name", "prompts": "number", "licence": "text", "here": "text"}, public)
        say('A suite names them as prompts = ["parti"]; get them with: hotart-bench fetch --prompts parti')
    if prompt_set is not None and found[0]["tags"]:
        show()
        rows = [[tag, str(count)] for tag, count in found[0]["tags"].items()]
        print_table({"tag": "name", "prompts": "number"}, rows)
    return DONE


def _list_ids(files: list[Path], json: bool) -> int:
    """Each prompt of the sets: what `render --prompt-id` and `--tag` take, and what it says."""
    prompts = [prompt for file in files for prompt in read_prompt_file(file).prompts]
    if json:
        print_json([{"id": one.id, "tags": one.tags, "prompt": one.text} for one in prompts])
    else:
        rows = [[one.id, ", ".join(one.tags), one.text] for one in prompts]
        print_table({"id": "name", "tags": "text", "prompt": "text"}, rows)
    return DONE


def _find_set(name: str, shipped: list[Path]) -> Path:
    for file in shipped:
        if name in (file.stem, file.name):
            return file
    refuse_url(name)
    if name in PUBLIC_SETS and not exists(Path(name)):
        return find_public_set(name, Path.cwd())[0]
    if Path(name).suffix or exists(Path(name)):
        return Path(name)
    stems = [file.stem for file in shipped]
    raise SuiteError(
        f"{name!r} is neither a shipped prompt set ({listed(stems)}), nor a public one ({listed(PUBLIC_SETS)}), nor a "
        f"file{did_you_mean(name, [*stems, *PUBLIC_SETS])}.",
        "hotart-bench list prompts",
    )


def _public_row(one: PublicSet) -> list[str]:
    path = present(one, Path.cwd())
    missing = "no" if one.fetched else f"no; save it as {one.file_name}"
    return [one.entry.name, str(one.prompts), one.licence, missing if path is None else str(path)]


def _summary(name: str, file: PromptFile) -> dict[str, Any]:
    """One set of ``list prompts``; token counts are CLIP's, start and end among them."""
    prompts = file.prompts
    tokens = [count_tokens(prompt.text) for prompt in prompts]
    tags = Counter(tag for prompt in prompts for tag in prompt.tags)
    return {
        "set": name,
        "prompts": len(prompts),
        "questions": sum(len(prompt.questions) for prompt in prompts),
        "tags": dict(sorted(tags.items(), key=lambda item: (-item[1], item[0]))),
        "tokens_min": min(tokens),
        "tokens_median": statistics.median(tokens),
        "tokens_max": max(tokens),
        "over_77": sum(count > CONTEXT for count in tokens),
        "negative": sum(bool(prompt.negative) for prompt in prompts),
        "spo_training_prompts": training_prompts_in(prompts),
        "notes": file.notes,
    }


def _prompts_row(one: dict[str, Any]) -> list[str]:
    tags = [f"{tag} {count}" for tag, count in one["tags"].items()]
    more = f" and {len(tags) - MOST_TAGS} more" if len(tags) > MOST_TAGS else ""
    tokens = (one["tokens_min"], f"{one['tokens_median']:g}", one["tokens_max"], one["over_77"])
    numbers = map(str, (one["prompts"], one["questions"], *tokens))
    return [one["set"], *numbers, ", ".join(tags[:MOST_TAGS]) + more]
