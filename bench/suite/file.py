"""The suite file: TOML, strict in its fields, types and values -> ``Suite``.

An unknown or doubled field, a wrong type or a value that cannot be is refused before anything is rendered,
with the field and, where there is one, the nearest match.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from bench import documents
from bench.errors import SuiteError, UsageError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, joined, listed, quoted
from bench.records import (
    HEAVIEST_LORA,
    SCHEMA,
    VOTES_METRIC,
    Dtype,
    Judge,
    Limit,
    Lora,
    MeasurePlan,
    Prompt,
    Record,
    Settings,
    StepPlan,
    Suite,
    TimingName,
    Variant,
)
from bench.records.base import PromptSyntax
from bench.records.suite import LeftOut
from bench.suite import prompt_files
from bench.suite.judges import metric_names, read_judges
from bench.suite.limits import parse_limit, quantity_of
from bench.suite.prompt_formats import READERS
from bench.suite.prompt_syntax import check_prompts, plain_text
from bench.suite.public_sets import PUBLIC_SETS, find_public_set, present
from bench.suite.questions import is_question_file
from bench.suite.runtimes import problems_of_runtime
from bench.suite.sampling import SAMPLERS, SCHEDULES, problems_of_sampling, read_sampling, sampling_notes
from bench.suite.step_ranges import parse_steps, range_factors, runs_of, weight_factors
from bench.suite.training_prompts import training_prompts_in

MAX_SEED = 2**63 - 1
MAX_STEPS = 499
"""With more, a sampler that spaces 1,000 timesteps evenly from the clean end starts half way, or past the last one."""
MOST_CLIP_SKIP = 12
"""Layers of CLIP-L's text encoder."""
OLD_SAMPLERS = {"dpmpp_2m_karras": "dpmpp_2m", "dpmpp_2m_sde_karras": "dpmpp_2m_sde"}
"""Samplers of schema 1 whose names held the schedule ``karras``, and what they are called now."""
_FIELDS = (
    "schema",
    "name",
    "prompts",
    "samples",
    "seed",
    "metrics",
    "settings",
    "variants",
    "limits",
    "measure",
    "compare_unfused",
    "keep_training_prompts",
    "step_metrics",
    "judges",
)

LORA_FIELDS = tuple("step_range" if field == "step_factors" else field for field in Lora.__struct_fields__)
"""What the table of a LoRA may hold."""

_T = TypeVar("_T")


def load_suite(name_or_path: str, *, limit: int | None = None, known_metrics: Collection[str] | None = None) -> Suite:
    """A checked suite, from the name of a shipped one or from a ``.toml`` file.

    Prompt files are looked up beside the suite file, then among the shipped ones; then a name may be that of a public
    set (``bench.suite.public_sets``). Prompts in the syntax of another program are checked, and the embeddings that
    they use are hashed (``bench.suite.prompt_syntax``). A checkpoint, LoRA, UNet or VAE that lies beside the suite file
    becomes an absolute path; every other name stays as it is. Prompts that SPO was trained on are left out, and named
    in ``Suite.left_out``, unless the file says ``keep_training_prompts``.

    Args:
        name_or_path: such as ``mini`` or ``suites/mine.toml``; kept as ``Suite.source``.
        limit: keep only the first ``limit`` prompts. ``Suite.limit`` is set where that cuts any off.
        known_metrics: the metrics there are; None leaves metric names unchecked.

    Raises:
        SuiteError: a file that is missing or wrong: not TOML, an unknown or doubled field, a wrong type, or a value
            of the right type that cannot be (a width of 63, a guidance scale that is NaN, a variant named ".."). The
            sentence names file, field, what is allowed and the nearest match.
        IncomparableError: the suite's schema is another one; the hint says what to change in it.
        UsageError: ``limit`` is under 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be at least 1.")
    path = _find_suite(name_or_path)
    table = _read_table(path)
    suite = _to_suite(str(path), table)
    _check_values(str(path), suite, known_metrics)
    limits = _read_limits(str(path), table.get("limits", {}), suite)
    prompts, notes = _read_prompts(path, suite)
    left_out: tuple[str, ...] = ()
    folder = _embeddings_folder(path, table["settings"])
    embeddings, _ = check_prompts(str(path), prompts, suite.settings, folder)
    settings = msgspec.structs.replace(suite.settings, embeddings=embeddings)
    if not table.get("keep_training_prompts", False):
        prompts, left_out = _without_training_prompts(path, prompts, settings)
    embeddings, said = check_prompts(str(path), prompts[:limit], suite.settings, folder)
    suite = msgspec.structs.replace(suite, prompts=prompts[:limit])
    return msgspec.structs.replace(
        suite,
        settings=msgspec.structs.replace(settings, embeddings=embeddings),
        limits=limits,
        step_metrics=_step_plan(str(path), table.get("step_metrics"), suite.settings.steps),
        variants=tuple(_with_paths(path.parent, variant) for variant in suite.variants),
        judges=tuple(_judge_with_paths(path.parent, judge) for judge in suite.judges),
        limit=limit if limit is not None and limit < len(prompts) else None,
        source=name_or_path,
        left_out=left_out,
        notes=(*notes, *(f"{path.name}: {one}" for one in said), *sampling_notes(suite)),
    )


def public_sets_of(name_or_path: str) -> tuple[str, ...]:
    """The public prompt sets that a suite names and that have no file here yet; errors as ``load_suite``."""
    path = _find_suite(name_or_path)
    names = _to_suite(str(path), _read_table(path)).prompt_files
    return tuple(name for name in names if name in PUBLIC_SETS and not _is_here(path, name))


def list_suites() -> tuple[str, ...]:
    """The names of the shipped suites, sorted."""
    return tuple(sorted(path.stem for path in prompt_files.prompts_folder().glob("*.toml")))


# --- files -----------------------------------------------------------------------------------


def _find_suite(name_or_path: str) -> Path:
    if not name_or_path.endswith(".toml") and name_or_path in list_suites():
        return prompt_files.prompts_folder() / f"{name_or_path}.toml"
    documents.refuse_url(name_or_path)
    path = Path(name_or_path)
    if name_or_path.endswith(".toml") and documents.exists(path):
        return path
    hint = "hotart-bench list suites"
    if name_or_path.endswith(".toml"):
        raise SuiteError(f"{name_or_path}: there is no such file.", hint)
    if documents.exists(path):
        raise SuiteError(f"{name_or_path}: a suite file ends in .toml.", hint)
    near = did_you_mean(name_or_path, list_suites())
    raise SuiteError(
        f"{name_or_path!r} is neither a shipped suite ({listed(list_suites())}) nor a .toml file{near}.", hint
    )


def _read_prompts(suite_path: Path, suite: Suite) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    files, notes = [], list[str]()
    for name in suite.prompt_files:
        path, said = _find_prompts(suite_path, name)
        files.append(prompt_files.read_prompt_file(path, suite.settings.prompt_syntax))
        notes += [*([said] if said else []), *files[-1].notes]
    located, repeats = prompt_files.without_repeats(found for file in files for found in file.located)
    return tuple(prompt for _, prompt in located), (*notes, *(f"{suite_path.name}: {said}" for said in repeats))


def _find_prompts(suite_path: Path, name: str) -> tuple[Path, str]:
    """The file or folder of a prompt set, and of a public one a sentence on it."""
    own = _own_prompts(suite_path, name)
    if own is not None:
        return own, ""
    if name in PUBLIC_SETS:
        return find_public_set(name, suite_path.parent)
    beside = (
        path.name for path in suite_path.parent.glob("*") if path.suffix in READERS and not is_question_file(path)
    )
    near = did_you_mean(name, {*beside, *prompt_files.list_prompt_sets(), *PUBLIC_SETS})
    raise SuiteError(
        f"{suite_path}: prompts: {name!r} lies neither beside the suite nor among the shipped sets, and no public set "
        f"({listed(PUBLIC_SETS)}) has this name{near}.",
        "hotart-bench list prompts",
    )


def _own_prompts(suite_path: Path, name: str) -> Path | None:
    folders = (suite_path.parent, prompt_files.prompts_folder())
    return next((folder / name for folder in folders if name.strip() and documents.exists(folder / name)), None)


def _is_here(suite_path: Path, name: str) -> bool:
    return _own_prompts(suite_path, name) is not None or present(PUBLIC_SETS[name], suite_path.parent) is not None


def _embeddings_folder(path: Path, settings: Mapping[str, Any]) -> Path | None:
    """The folder that a suite file names, beside itself or elsewhere; None where it names none."""
    name = settings.get("embeddings")
    if name is None:
        return None
    return Path(name).expanduser() if name.startswith("~/") else path.parent / name


def _without_training_prompts(
    path: Path, prompts: tuple[Prompt, ...], settings: Settings
) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    """The prompts that SPO was not trained on, and the ids of the others."""
    worded = [msgspec.structs.replace(prompt, text=plain_text(prompt.text, settings)) for prompt in prompts]
    left_out = training_prompts_in(worded)
    if len(left_out) == len(prompts):
        raise SuiteError(
            f"{path}: SPO was trained on every prompt of this suite, so none is left to measure it with.",
            "take other prompts, or set keep_training_prompts = true",
        )
    return tuple(prompt for prompt in prompts if prompt.id not in left_out), left_out


def _with_paths(folder: Path, variant: Variant) -> Variant:
    return msgspec.structs.replace(
        variant,
        checkpoint=_beside(folder, variant.checkpoint),
        loras=tuple(msgspec.structs.replace(lora, path=_beside(folder, lora.path)) for lora in variant.loras),
        unet=None if variant.unet is None else _beside(folder, variant.unet),
        vae=None if variant.vae is None else _beside(folder, variant.vae),
    )


def _judge_with_paths(folder: Path, judge: Judge) -> Judge:
    """A program's files that lie beside the suite, and a folder of weights there, become absolute paths."""
    command = tuple(_beside(folder, word) for word in judge.command)
    return msgspec.structs.replace(judge, command=command, vlm=_beside(folder, judge.vlm) if judge.vlm else "")


def _beside(folder: Path, name: str) -> str:
    # A folder that happens to be called "mini" must not hide the shipped family.
    if name == "mini" or name.startswith(("mini:", "random:")):
        return name
    path = Path(name).expanduser() if name.startswith("~/") else folder / name
    return str(documents.resolved(path)) if documents.exists(path) else name


# --- fields and types ------------------------------------------------------------------------


def _read_table(path: Path) -> dict[str, Any]:
    """The TOML as it stands, of this schema, without unknown fields or choices."""
    table = documents.read_toml(path)
    found = table.get("settings")
    settings = found if isinstance(found, dict) else {}
    documents.refuse_other_schema(
        path, table.get("schema"), SCHEMA, "suites", _what_to_change(settings), invalid=SuiteError
    )
    for place, inner, known in _tables(table):
        documents.refuse_unknown_fields(path, place, inner, known)
        documents.refuse_unknown_choices(path, f"{place}leave_out", inner.get("leave_out"), get_args(LeftOut))
    old_words = _old_sampler(settings)
    if old_words:
        raise SuiteError(
            f"{path}: settings.sampler is {settings['sampler']!r}, a word of schema 1.", f"write {old_words}"
        )
    if isinstance(found, dict):
        settings = table["settings"] = read_sampling(path, found)
    for name, choices in (
        ("sampler", SAMPLERS),
        ("schedule", SCHEDULES),
        ("dtype", get_args(Dtype)),
        ("compile", ("blocks", "whole")),
        ("prompt_syntax", get_args(PromptSyntax)),
        ("prompt_loras", ("refuse", "ignore")),
    ):
        documents.refuse_unknown_choice(path, f"settings.{name}", settings.get(name), choices)
    return table


def _what_to_change(settings: Mapping[str, Any]) -> str:
    """What makes a suite of schema 1 one of schema 2."""
    guidance = "guidance_scale for guidance" if "guidance" in settings else ""
    return f"write {joined([word for word in (f'schema = {SCHEMA}', guidance, _old_sampler(settings)) if word])}"


def _old_sampler(settings: Mapping[str, Any]) -> str:
    """The two words for a sampler of schema 1 that held its schedule; empty for any other value."""
    old = settings.get("sampler")
    new = OLD_SAMPLERS.get(old) if isinstance(old, str) else None
    return f'sampler = "{new}" with schedule = "karras" for sampler = "{old}"' if new else ""


def _tables(table: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    """Each table of the file: its place, what it holds, and the fields that it may have."""
    yield "", table, _FIELDS
    # What is not a table where one belongs is left to the type check, which knows how to say it.
    for name, kind in (("settings", Settings), ("measure", MeasurePlan)):
        if isinstance(table.get(name), dict):
            yield f"{name}.", table[name], kind.__struct_fields__
    variants = table.get("variants")
    for name, inner in variants.items() if isinstance(variants, dict) else ():
        if not isinstance(inner, dict):
            continue
        hidden = ("name", "unet_steps")
        yield f"variants.{name}.", inner, tuple(field for field in Variant.__struct_fields__ if field not in hidden)
        loras = inner.get("loras")
        for index, item in enumerate(loras if isinstance(loras, list) else ()):
            if isinstance(item, dict):
                yield f"variants.{name}.loras[{index}].", item, LORA_FIELDS


def _to_suite(file: str, table: dict[str, Any]) -> Suite:
    """The suite of a file, before its prompts are read; ``Suite.prompt_files`` is ``prompts`` in the file."""
    later = ("prompts", "limits", "keep_training_prompts", "step_metrics", "judges")
    fields = {name: value for name, value in table.items() if name not in later}
    for name in ("prompts", "variants", "settings"):
        if name not in table:
            raise SuiteError(f"{file}: missing field {name}.")
    if isinstance(table["settings"], dict):
        fields["settings"] = _settings_fields(file, table["settings"])
    _convert(f"{file}: keep_training_prompts: ", table.get("keep_training_prompts", False), bool)
    fields["prompt_files"] = _convert(f"{file}: prompts: ", table["prompts"], list[str])
    variants = _convert(f"{file}: variants: ", table["variants"], dict[str, Any])
    fields["variants"] = [_to_variant(file, name, inner) for name, inner in variants.items()]
    suite = _convert(f"{file}: ", {**fields, "prompts": []}, Suite)
    return msgspec.structs.replace(suite, judges=read_judges(file, table.get("judges", {})))


def _settings_fields(file: str, table: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``Settings`` that the file holds; its folder of embeddings is read with the prompts."""
    fields = {name: value for name, value in table.items() if name != "embeddings"}
    folder = table.get("embeddings", "embeddings")
    if not isinstance(folder, str) or not folder.strip() or "\0" in folder:
        raise SuiteError(f"{file}: settings.embeddings is {folder!r}; it is the name of a folder.")
    if "embeddings" in table and table.get("prompt_syntax", "plain") == "plain":
        raise SuiteError(
            f"{file}: settings.embeddings names a folder, but plain prompts use no embeddings.",
            'set prompt_syntax = "a1111" or "comfyui", or leave embeddings out',
        )
    words = {"batch": ("auto", None), "compile": ("blocks", True)}
    return fields | {name: value for name, (word, value) in words.items() if table.get(name) == word}


def _to_variant(file: str, name: str, table: object) -> Variant:
    if not isinstance(table, dict):
        raise SuiteError(f"{file}: variants.{name} is {table!r}; a variant is a table with a checkpoint.")
    _refuse_bare_name(f"{file}: variants.{name}", table)
    loras = table.get("loras")
    if isinstance(loras, list):
        places = (f"{file}: variants.{name}.loras[{index}]" for index in range(len(loras)))
        table = {**table, "loras": [_to_lora(*one) for one in zip(places, loras, strict=True)]}
    return _convert(f"{file}: variants.{name}: ", {"name": name, **table}, Variant)


def _refuse_bare_name(place: str, table: Mapping[str, Any]) -> None:
    """Refuse one name where ``trained_on`` lists them."""
    found = table.get("trained_on", [])
    if not isinstance(found, list):
        names = f'trained_on = ["{found}"]' if isinstance(found, str) else 'trained_on = ["pick-a-pic"]'
        raise SuiteError(f"{place}.trained_on is {found!r}; it is a list of names.", f"write {names}")


def _to_lora(place: str, table: object) -> object:
    """A LoRA's table with its weights by step, if any, as ``Lora.step_factors``; anything else as it is."""
    if not isinstance(table, dict):
        return table
    _refuse_bare_name(place, table)
    fields, weight = dict(table), table.get("weight")
    if "step_range" in table and isinstance(weight, list):
        raise SuiteError(f"{place}: has both a step_range and a weight by step; leave one of them out.")
    if "step_range" in table:
        fields["step_factors"] = range_factors(f"{place}.step_range", fields.pop("step_range"))
    elif isinstance(weight, list):
        fields |= {"weight": 1.0, "step_factors": weight_factors(f"{place}.weight", weight)}
    return fields


def _step_plan(file: str, table: object, steps: int) -> StepPlan | None:
    """``[step_metrics]``: which steps are scored, and by what."""
    if table is None:
        return None
    found = _convert(f"{file}: step_metrics: ", table, _StepTable)
    try:
        at = parse_steps(found.at, steps)
    except UsageError as error:
        raise SuiteError(f"{file}: step_metrics.at: {error}") from error
    if not found.metrics or len(set(found.metrics)) < len(found.metrics):
        raise SuiteError(f"{file}: step_metrics.metrics is empty, or names one twice: {list(found.metrics)}.")
    return StepPlan(metrics=found.metrics, at=at)


class _StepTable(Record, frozen=True):
    metrics: tuple[str, ...]
    at: str | tuple[int, ...] = "all"


def _convert(place: str, value: object, kind: type[_T]) -> _T:
    try:
        return documents.convert(value, kind)
    except ValueError as error:
        problem = str(error)
        raise SuiteError(f"{place}{problem[:1].lower()}{problem[1:]}.") from error


# --- values ----------------------------------------------------------------------------------


def _check_values(file: str, suite: Suite, known_metrics: Collection[str] | None) -> None:
    """Raises SuiteError for the values that cannot be, all of them at once."""
    problems = problems_of(suite)
    if problems:
        raise SuiteError(f"{file}: {'. Also: '.join(dict.fromkeys(problems))}.")
    judged = [name for judge in suite.judges for name in metric_names(judge.name)]
    for name in suite.metrics if known_metrics is not None else ():
        if known_metrics is not None and name not in (*known_metrics, *judged):
            there = [*judged, *known_metrics]
            near = did_you_mean(name, there)
            raise SuiteError(
                f"{file}: unknown metric {name!r}{near}; there are {listed(there)}.",
                "hotart-bench list metrics",
            )


def problems_of(suite: Suite) -> list[str]:
    """What of a suite's values cannot be, alone or together, a clause each; metrics and prompts are not looked at."""
    return [*_problems_of_settings(suite), *_problems_of_variants(suite), *_problems_of_lists(suite)]


def _problems_of_settings(suite: Suite) -> Iterator[str]:
    settings, plan = suite.settings, suite.measure
    ranges: tuple[tuple[str, float, float, float], ...] = (
        ("samples", suite.samples, 1, 10_000),
        ("seed", suite.seed, 0, MAX_SEED),
        ("settings.width", settings.width, 8, 8192),
        ("settings.height", settings.height, 8, 8192),
        ("settings.steps", settings.steps, 1, MAX_STEPS),
        ("settings.guidance_scale", settings.guidance_scale, 0, 100),
        ("settings.batch", 1 if settings.batch is None else settings.batch, 1, 1024),
        ("settings.eta", settings.eta, 0, 1),
        ("settings.guidance_rescale", settings.guidance_rescale, 0, 1),
        ("measure.rounds", plan.rounds, 0, 1000),
        ("measure.images", plan.images, 1, 1000),
        ("measure.warmups", plan.warmups, 0, 100),
        ("measure.batches", plan.batches, 0, 100),
    )
    if settings.clip_skip is not None and not 1 <= settings.clip_skip <= MOST_CLIP_SKIP:
        yield f"settings.clip_skip is {settings.clip_skip}; allowed is 1 (the last layer) to {MOST_CLIP_SKIP}"
    if settings.prompt_loras == "ignore" and settings.prompt_syntax == "plain":
        yield 'settings.prompt_loras is "ignore", but plain prompts have no tags: they are drawn as words; leave it out'
    if not is_good_name(suite.name):
        yield f"name is {quoted(suite.name)}; a suite's name is {NAME_RULE}"
    for field, value, low, high in ranges:
        if not low <= value <= high:  # also true of NaN
            yield f"{field} is {value}; allowed is {low} to {high}"
    for field, pixels in (("width", settings.width), ("height", settings.height)):
        if pixels % 8:
            near = max(8, round(pixels / 8) * 8)
            yield f"settings.{field} is {pixels}; it must be a multiple of 8, such as {near}"
    yield from problems_of_sampling(settings)


def _problems_of_variants(suite: Suite) -> Iterator[str]:
    if not suite.variants:
        yield "there is no variant; add [variants.base] with a checkpoint"
    folded: dict[str, str] = {}
    for variant in suite.variants:
        name = variant.name
        if not is_good_name(name):
            yield f"the variant name {quoted(name)} will not do; it is {NAME_RULE}"
        other = folded.setdefault(name.lower(), name)
        if other != name:
            both = f"the variants {other!r} and {name!r} differ only in case"
            yield f"{both}; their images would share a folder on some systems"
        texts = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
        texts |= {f"loras[{index}].path": lora.path for index, lora in enumerate(variant.loras)}
        for field, text in texts.items():
            if text is not None and (not text.strip() or "\0" in text):
                yield f"variants.{name}.{field} is empty or holds a zero byte"
        yield from problems_of_runtime(variant, suite.settings)
        for index, lora in enumerate(variant.loras):
            if lora.step_factors and not any(run[2] for run in runs_of(lora.step_factors, suite.settings.steps)):
                yield f"variants.{name}.loras[{index}] runs in none of the {suite.settings.steps} steps"
            # Names of blocks depend on the checkpoint's UNet, and are checked where that is read.
            weights = {field: getattr(lora, field) for field in ("weight", "unet", "text_encoder", "text_encoder_2")}
            weights |= {f"blocks.{block}": weight for block, weight in lora.blocks.items()}
            weights |= {f"weight from {start:g} of the steps on": factor for start, factor in lora.step_factors}
            for field, weight in weights.items():
                if weight is not None and not abs(weight) <= HEAVIEST_LORA:  # NaN neither
                    allowed = f"a number from {-HEAVIEST_LORA:g} to {HEAVIEST_LORA:g}"
                    yield f"variants.{name}.loras[{index}].{field} is {weight}; it must be {allowed}"


def _problems_of_lists(suite: Suite) -> Iterator[str]:
    if not suite.prompt_files:
        yield 'prompts is empty; name at least one prompt file, such as "mini.jsonl"'
    for field, names in (("prompts", suite.prompt_files), ("metrics", suite.metrics)):
        for name in names:
            if names.count(name) > 1:
                yield f"{field} names {name!r} twice"


def _read_limits(file: str, table: object, suite: Suite) -> tuple[Limit, ...]:
    """The limits of a suite, each of one of its metrics or of a timed quantity."""
    limits = []
    allowed = (*suite.metrics, VOTES_METRIC, *get_args(TimingName))
    for name, value in _convert(f"{file}: limits: ", table, dict[str, Any]).items():
        if not isinstance(value, str):
            raise SuiteError(f'{file}: limits.{name} is {value!r}; a limit is a text, such as "0.1sd".')
        if name not in allowed:
            raise SuiteError(
                f"{file}: limits.{name} is neither a metric of this suite nor a timing"
                f"{did_you_mean(name, allowed)}; allowed are {', '.join(allowed)}."
            )
        if suite.measure.rounds == 0 and quantity_of(name) != "metric":
            raise SuiteError(
                f"{file}: limits.{name} is set, but nothing is timed: measure.rounds is 0.",
                "give [measure] 2 rounds or more, or take the limit out",
            )
        if name == "compile" and not suite.settings.compile:
            raise SuiteError(f"{file}: limits.compile is set, but nothing is compiled: settings.compile is false.")
        try:
            limits.append(parse_limit(name, value))
        except UsageError as error:
            raise SuiteError(f"{file}: {error}", error.hint) from error
    return tuple(limits)
