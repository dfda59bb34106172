"""Prompt files -> prompts: our own JSONL, and what the field publishes (``bench.suite.prompt_formats``).

Fields are found by their letters and digits: ``negativePrompt``, ``Negative Prompt`` and ``negative_prompt`` are one.
``category``, ``challenge`` and ``tag`` become tags; ``group`` says which prompts are not independent
(``Prompt.group``). Other fields are not taken and are named once a file, except for one that looks like a slip of the
pen in one of ours, which is refused. A prompt is taken as it stands, whatever it holds; only ``.txt`` lines lose the
space around them.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import SuiteError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed, quoted
from bench.records import Prompt
from bench.records.base import PromptSyntax
from bench.suite.prompt_formats import PROMPT_KEYS, READERS, field_key, kind_of, read_entries
from bench.suite.prompt_syntax import syntax_notes
from bench.suite.questions import (
    Asked,
    attach,
    has_questions,
    is_question_file,
    questions_in,
    read_question_files,
    untaken,
)

MAX_CHARACTERS = 100_000
"""Longest prompt that is read; counting the tokens of one word takes some 600 bytes for each of its characters."""
MAX_TAG_CHARACTERS = 200
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "itemid"),
    "prompt": PROMPT_KEYS,
    "negative": ("negative", "negativeprompt", "negativeprompts", "neg", "negprompt", "uc"),
    "tags": ("tags",),
    "tag": ("tag",),
    "category": ("category",),
    "challenge": ("challenge",),
    "probes": ("probes",),
    "group": ("group",),
}
"""Each field that is taken, with what it is called, by ``field_key``."""


class PromptFile(NamedTuple):
    """What a prompt file holds."""

    located: list[tuple[str, Prompt]]
    """Each prompt with its file and line, for messages."""
    notes: tuple[str, ...]
    """Sentences on what was not taken, or is taken otherwise than its author may think."""

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts in the file's order."""
        return tuple(prompt for _, prompt in self.located)


def prompts_folder() -> Path:
    """Where the shipped suites and prompt sets lie: in the installed package, or in a checkout."""
    package = Path(__file__).parents[1]
    return package / "prompts" if (package / "prompts").is_dir() else package.parent / "prompts"


def list_prompt_sets() -> tuple[str, ...]:
    """The file names of the shipped prompt sets, sorted."""
    return tuple(
        sorted(
            path.name for path in prompts_folder().glob("*") if path.suffix in READERS and not is_question_file(path)
        )
    )


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of one prompt file; errors as ``read_prompt_file``."""
    return read_prompt_file(Path(path)).prompts


def read_prompt_file(path: Path, syntax: PromptSyntax = "plain") -> PromptFile:
    """The prompts of one prompt file, or of a folder with a ``.txt`` file for each, in their order, and notes.

    Each has the questions of the question files beside it (``bench.suite.questions``), or of the file itself.

    Where an entry has no id it gets ``<first words>-<first 8 hex digits of sha256(prompt)>``, which depends
    on neither its line nor its neighbours. A prompt that is there again with the same id and negative is read once.
    Where the suite's ``syntax`` is ``plain``, a note names what looks like the syntax of another program.

    Raises:
        SuiteError: the file is missing, not a prompt file, empty, binary, or an entry of it is wrong; the
            sentence names file and line.
    """
    if is_question_file(path):
        raise SuiteError(f"{path}: holds the questions of a prompt file, by its name; name the prompt file.")
    entries = read_entries(path)
    own_lines = path.suffix.lower() == ".jsonl"
    located: list[tuple[str, Prompt]] = []
    asked, with_questions = list[Asked](), set[Prompt]()
    others: dict[str, None] = {}
    for where, value in entries.found:
        prompt, names = _to_prompt(where, value, own_lines)
        asking = has_questions(value)
        if asking:
            asked += [one._replace(prompt_id=prompt.id) for one in questions_in(where, value)]
            if prompt in with_questions:
                continue  # one question a line, each with its prompt
            with_questions.add(prompt)
        located.append((where, prompt))
        others |= dict.fromkeys(names if not asking else ())
    if not located:
        raise SuiteError(f"{path}: holds no prompts.")
    located, repeats = without_repeats(located)
    beside, said = read_question_files(path)
    located, doubled = attach(located, [*asked, *beside])
    unread = [f"fields that are not taken: {listed(others)}."] if others else []
    unasked = untaken(value for _, value in entries.found) if asked else ()
    said_of_syntax = syntax_notes([prompt for _, prompt in located]) if syntax == "plain" else ()
    notes = (*unread, *repeats, *unasked, *doubled, *said_of_syntax)
    return PromptFile(located, (*entries.notes, *said, *(f"{path.name}: {note}" for note in notes)))


def without_repeats(located: Iterable[tuple[str, Prompt]]) -> tuple[list[tuple[str, Prompt]], tuple[str, ...]]:
    """The prompts without those that are there a second time, and a sentence on these.

    Raises:
        SuiteError: two different prompts whose ids are equal without case: their images would be one file on some
            systems. It names both places.
    """
    first: dict[str, tuple[str, Prompt]] = {}
    repeats: list[str] = []
    for where, prompt in located:
        known, other = first.setdefault(prompt.id.lower(), (where, prompt))
        if other is prompt:
            continue
        if (other.id, other.text, other.negative) != (prompt.id, prompt.text, prompt.negative):
            raise SuiteError(
                f"{where}: the id {prompt.id!r} is used twice (case does not count); first at {known}.",
                "give each prompt an id of its own; where there is none, it is made from the prompt alone",
            )
        repeats.append(where)
    if not repeats:
        return list(first.values()), ()
    count = "entry repeats" if len(repeats) == 1 else "entries repeat"
    said = f"{len(repeats):,} {count} an earlier prompt, such as {Path(repeats[0]).name}; each prompt is read once."
    return list(first.values()), (said,)


def make_id(prompt: str) -> str:
    """A stable id: up to 40 characters of the prompt's first words, then 8 hex digits of its sha256."""
    words = _slug(" ".join(prompt[:200].split()[:6]))[:40].strip("-") or "prompt"
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def check_prompt(where: str, text: str) -> None:
    """Refuse a prompt that is too long to be one.

    Raises:
        SuiteError: with its length and the longest that is read.
    """
    if len(text) > MAX_CHARACTERS:
        raise SuiteError(f"{where}: a prompt has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")


def by_key(where: str, entry: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The fields of an entry by their letters and digits, each with its own name; SuiteError where two are one."""
    fields: dict[str, tuple[str, Any]] = {}
    for name, value in entry.items():
        key = field_key(name) or name
        if key in fields:
            raise SuiteError(f"{where}: {fields[key][0]!r} and {name!r} are one field; leave one of them.")
        fields[key] = (name, value)
    return fields


def present(fields: Mapping[str, tuple[str, Any]], keys: Iterable[str]) -> str | None:
    """The first of the keys whose field has a value, else the first that is there; ``fields`` as of ``by_key``."""
    there = [key for key in keys if key in fields]
    return next((key for key in there if fields[key][1] not in (None, "")), there[0] if there else None)


def refuse_slips(
    where: str, untaken: Mapping[str, str], taken: Collection[str], known: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse a field that is not taken and by its name is one of ours with a slip of the pen.

    Args:
        where: file and line.
        untaken: the names of the fields that are not taken, by their keys.
        taken: the fields of ours that the entry has.
        known: all of ours, with what each may be called; names of fewer than four signs are like too many others.

    Raises:
        SuiteError: naming both.
    """
    names = [(field, name) for field, keys in known.items() if field not in taken for name in keys if len(name) > 3]
    for key, name in untaken.items():
        meant = next((one for _, one in names if _one_slip(key, one)), None)
        if meant is not None:
            raise SuiteError(f"{where}: unknown field {quoted(name)} (did you mean {meant!r}?).")


@functools.lru_cache(maxsize=10_000)
def _one_slip(one: str, other: str) -> bool:
    """Whether a sign more, less or other, or two neighbours exchanged, makes ``other`` of ``one``."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[at:], other[at:]
    swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other or one == other[1:] or one[1:] == other[1:]


# --- one entry ---------------------------------------------------------------------------------


def _to_prompt(where: str, value: object, own_lines: bool) -> tuple[Prompt, list[str]]:
    """The prompt of an entry, its id made where it has none, and the names of the fields that were not taken."""
    if not isinstance(value, str | dict):
        raise SuiteError(f"{where}: a prompt is a string or an object, not {kind_of(value)}.")
    fields = by_key(where, {"prompt": value} if isinstance(value, str) else value)
    taken = {field: key for field, keys in FIELDS.items() if (key := present(fields, keys)) is not None}
    untaken = {key: name for key, (name, _) in fields.items() if key not in taken.values()}
    refuse_slips(where, untaken, taken, FIELDS)
    found = {field: fields[key][1] for field, key in taken.items()}
    own = own_lines and "id" in found
    text = _prompt_text(where, found, fields, may_be_empty=own)
    negative = _text(where, "the negative prompt", found.pop("negative", None))
    check_prompt(where, negative)
    prompt_id = _id(where, found.pop("id", None), own) or make_id(text)
    tags: list[str] = []
    for field in ("tags", "tag", "category", "challenge"):
        tag_field = found.pop(field, None)
        if isinstance(tag_field, dict):
            untaken[field] = field
        else:
            tags += tags_of(where, field, tag_field)
    del found["prompt"]
    if type(found.get("group")) is int:
        found["group"] = str(found["group"])
    prompt = Prompt(
        id=prompt_id,
        text=text,
        negative=negative,
        tags=tuple(dict.fromkeys(tags)),
        probes=_text(where, "probes", found.get("probes")),
        group=_text(where, "group", found.get("group")).strip(),
    )
    return prompt, list(untaken.values())


def _prompt_text(where: str, found: Mapping[str, Any], fields: Mapping[str, Any], *, may_be_empty: bool) -> str:
    text = found.get("prompt")
    if text is not None and not isinstance(text, str):
        raise SuiteError(f"{where}: the prompt is {kind_of(text)}, not a text.")
    if text is None:
        near = next(filter(None, (did_you_mean(key, PROMPT_KEYS) for key in fields)), "")
        raise SuiteError(
            f"{where}: needs a text in one of {', '.join(PROMPT_KEYS)}; it has the fields "
            f"{listed(name for name, _ in fields.values())}{near}."
        )
    if not may_be_empty and not text.strip():
        raise SuiteError(f"{where}: the prompt is empty, as only a .jsonl line with an id may be.")
    check_prompt(where, text)
    return text


def _id(where: str, value: object, own: bool) -> str:
    if value is None or (value == "" and not own):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SuiteError(f"{where}: the id is {kind_of(value)}; an id is a text or a whole number.")
    if not is_good_name(str(value)):
        raise SuiteError(f"{where}: the id {quoted(str(value))} will not do; an id is {NAME_RULE}.")
    return str(value)


def _text(where: str, what: str, value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise SuiteError(f"{where}: {what} is {kind_of(value)}, not a text.")
    return value or ""


def tags_of(where: str, field: str, value: object) -> list[str]:
    """The tags of a list as they stand; of a text, what stands between its separators, in small letters."""
    if isinstance(value, str):
        tags = [_tag(name) for name in re.split(r"[;,|]", value)]
        return _refuse_longtags_of(where, [tag for tag in tags if tag])
    if value is None:
        return []
    if not isinstance(value, list):
        raise SuiteError(f"{where}: {field} is {kind_of(value)}; it must be a text or a list of texts.")
    for tag in value:
        if not isinstance(tag, str):
            raise SuiteError(f"{where}: {field} holds {kind_of(tag)}; a tag is a text.")
        if not tag.strip():
            raise SuiteError(f"{where}: a tag is empty.")
    return _refuse_longtags_of(where, value)


def _refuse_longtags_of(where: str, tags: list[str]) -> list[str]:
    for tag in tags:
        if len(tag) > MAX_TAG_CHARACTERS:
            raise SuiteError(f"{where}: a tag has {len(tag):,} characters; at most {MAX_TAG_CHARACTERS} are read.")
    return tags


def _tag(text: str) -> str:
    return "-".join(re.findall(r"[^\W_]+", text.lower()))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
