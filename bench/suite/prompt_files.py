"""Prompt files -> Cases: our own JSONL, and what the field publishes.

==============  ===============================================================================
``.jsonl``      one object a line. With an ``id`` it is our own format: ``id``, ``prompt``,
                optional ``negative``, ``tags``, ``probes``, nothing else. Without, as in ``.json``
``.json``       a list of strings, or of objects with a ``prompt``, ``caption`` or ``text``
``.csv .tsv``   a header line with a prompt column, as PartiPrompts: ``Prompt``, ``Category``, ``Challenge``
``.txt``        one prompt a line, blank lines left out
==============  ===============================================================================

Column and field names count without case. ``category`` and ``challenge`` become tags, other columns of
published files are left alone. A prompt is taken as it stands, whatever it holds; only ``.txt`` lines lose
the space around them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import documents
from bench.documents import read_text
from bench.errors import SuiteError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed
from bench.records import Prompt

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
"""The prompt files that can be read."""

_PROMPT_FIELDS = ("prompt", "caption", "text")
_NEGATIVE_FIELDS = ("negative", "negative_prompt")
_TAG_FIELDS = ("category", "challenge")


class Located(NamedTuple):
    """A case and where it stands, as ``mini.jsonl:3``, for error messages."""

    prompt: Prompt
    where: str


class Entry(NamedTuple):
    """One line or item of a prompt file, and where it stands."""

    where: str
    value: Any
    """A string or an object, as decoded."""


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of one prompt file, in the file's order.

    Where an entry has no id it gets ``<first words>-<first 8 hex digits of sha256(prompt)>``, which depends
    on neither its line nor its neighbours.

    Raises:
        SuiteError: the file is missing, no prompt file, empty, binary, or an entry of it is wrong; the
            sentence names file and line.
    """
    return tuple(located.prompt for located in read_located(Path(path)))


def read_located(path: Path) -> tuple[Located, ...]:
    """As ``read_prompts``, with the place of each prompt."""
    readers = {".jsonl": json_lines, ".json": _json, ".csv": _table, ".tsv": _table, ".txt": _txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SuiteError(f"{path}: a prompt file ends in one of {', '.join(SUFFIXES)}.")
    own_format = path.suffix.lower() == ".jsonl"
    located: list[Located] = []
    made: dict[str, str] = {}
    for entry in reader(path, read_text(path)):
        prompt = _case(entry, own_format)
        if not prompt.id:
            if prompt.text in made:
                raise SuiteError(
                    f"{entry.where}: the same prompt as {made[prompt.text]}: {_short(prompt.text)}.",
                    "take one of them out, or give both an id",
                )
            made[prompt.text] = entry.where
            prompt = msgspec.structs.replace(prompt, id=make_id(prompt.text))
        located.append(Located(prompt, entry.where))
    if not located:
        raise SuiteError(f"{path}: holds no prompts.")
    refuse_double_ids(located)
    return tuple(located)


def refuse_double_ids(prompts: Iterable[Located]) -> None:
    """Refuse two prompts whose ids are equal without case: their images would be one file on some systems.

    Raises:
        SuiteError: naming both places.
    """
    first: dict[str, Located] = {}
    for located in prompts:
        other = first.setdefault(located.prompt.id.lower(), located)
        if other is not located:
            raise SuiteError(
                f"{located.where}: the id {located.prompt.id!r} is used twice (case does not count); "
                f"first at {other.where}."
            )


def make_id(prompt: str) -> str:
    """A stable id: up to 40 characters of the prompt's first words, then 8 hex digits of its sha256."""
    words = _slug(" ".join(prompt[:200].split()[:6]))[:40].strip("-") or "prompt"
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


# --- files -> entries ----------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # str.splitlines would also break at U+2028 and friends, which a prompt may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def json_lines(path: Path, text: str) -> Iterator[Entry]:
    """Each line that is not blank, decoded; SuiteError where one is no JSON."""
    for number, line in _lines(text):
        where = f"{path}:{number}"
        yield Entry(where, _decode(where, line))


def _json(path: Path, text: str) -> Iterator[Entry]:
    if not text.strip():
        return
    value = _decode(str(path), text)
    if not isinstance(value, list):
        raise SuiteError(f"{path}: a .json prompt file is a list of strings or objects, not {_kind(value)}.")
    for number, item in enumerate(value, start=1):
        yield Entry(f"{path}, entry {number}", item)


def _table(path: Path, text: str) -> Iterator[Entry]:
    rows = _tsv_rows(text) if path.suffix.lower() == ".tsv" else csv_rows(path, text)
    number, header = next(rows, (1, [""]))
    columns = [name.strip().lower() for name in header]
    if not any(name in columns for name in _PROMPT_FIELDS):
        raise SuiteError(
            f"{path}:{number}: the first line names no prompt column ({', '.join(_PROMPT_FIELDS)}), "
            f"only {listed(columns)}."
        )
    doubled = [name for name in columns if name and columns.count(name) > 1]
    if doubled:
        raise SuiteError(f"{path}:{number}: the column {doubled[0]!r} is named twice.")
    for number, cells in rows:
        if len(cells) != len(columns):
            raise SuiteError(f"{path}:{number}: has {len(cells)} columns where the first line has {len(columns)}.")
        yield Entry(f"{path}:{number}", dict(zip(columns, cells, strict=True)))


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not empty, with the number of its first line; SuiteError where it is no CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cells):
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise SuiteError(f"{path}:{start}: is no CSV: {error}.") from error


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(text):
        yield number, [_unquote(cell) for cell in line.split("\t")]


def _unquote(cell: str) -> str:
    # LdmTensor TSVs hold bare quotes (PartiPrompts), so a quote is a character. Only what a spreadsheet alone
    # writes, a cell in quotes with its inner quotes doubled, is undone.
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    if quoted and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _txt(path: Path, text: str) -> Iterator[Entry]:
    for number, line in _lines(text):
        yield Entry(f"{path}:{number}", line.strip())


def _decode(where: str, text: str) -> Any:
    try:
        return documents.loads(text)
    except UnicodeEncodeError as error:
        raise SuiteError(f"{where}: a string holds half of a surrogate pair (\\ud800 to \\udfff).") from error
    except ValueError as error:
        raise SuiteError(f"{where}: is no JSON: {error}.") from error


# --- entries -> prompts ----------------------------------------------------------------------


def _case(entry: Entry, own_format: bool) -> Prompt:
    """A checked case; its id is empty where one must be made."""
    if isinstance(entry.value, str):
        prompt = Prompt(id="", text=entry.value)
    elif not isinstance(entry.value, dict):
        raise SuiteError(f"{entry.where}: a prompt is a string or an object, not {_kind(entry.value)}.")
    elif own_format and "id" in entry.value:
        return _own_case(entry)
    else:
        prompt = _published_case(entry)
    if not prompt.text.strip():
        raise SuiteError(f"{entry.where}: the prompt is empty, as only a .jsonl line with an id may be.")
    return prompt


def _own_case(entry: Entry) -> Prompt:
    known = [field.encode_name for field in msgspec.structs.fields(Prompt)]
    for name in entry.value:
        if name not in known:
            near = did_you_mean(name, known)
            raise SuiteError(f"{entry.where}: unknown field {name!r}{near}; the fields are {', '.join(known)}.")
    try:
        prompt = documents.convert(entry.value, Prompt)
    except ValueError as error:
        raise SuiteError(f"{entry.where}: {error}.") from error
    _refuse_bad_id(entry.where, prompt.id)
    if not all(tag.strip() for tag in prompt.tags) or len(set(prompt.tags)) < len(prompt.tags):
        raise SuiteError(f"{entry.where}: a tag is empty or given twice: {list(prompt.tags)}.")
    return prompt


def _published_case(entry: Entry) -> Prompt:
    fields = {str(name).lower(): value for name, value in entry.value.items()}
    prompt = next((fields[name] for name in _PROMPT_FIELDS if name in fields), None)
    if not isinstance(prompt, str):
        near = next(filter(None, (did_you_mean(name, _PROMPT_FIELDS) for name in fields)), "")
        raise SuiteError(
            f"{entry.where}: needs a text in {' or '.join(_PROMPT_FIELDS)}{near}; it has the fields {listed(fields)}."
        )
    negative = next((fields[name] for name in _NEGATIVE_FIELDS if fields.get(name)), "")
    if not isinstance(negative, str):
        raise SuiteError(f"{entry.where}: the negative prompt is {_kind(negative)}, not a text.")
    prompt_id = fields.get("id")
    prompt_id = "" if prompt_id is None else str(prompt_id)
    if prompt_id:
        _refuse_bad_id(entry.where, prompt_id)
    return Prompt(id=prompt_id, text=prompt, negative=negative, tags=_published_tags(fields))


def _published_tags(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = fields.get("tags")
    names = re.split(r"[;,|]", given) if isinstance(given, str) else given if isinstance(given, list) else []
    all_names = [*names, *(fields.get(name) for name in _TAG_FIELDS)]
    slugs = (_slug(name) for name in all_names if isinstance(name, str))
    return tuple(dict.fromkeys(slug for slug in slugs if slug))


def _refuse_bad_id(where: str, prompt_id: str) -> None:
    if not is_good_name(prompt_id):
        raise SuiteError(f"{where}: the id {_short(prompt_id)} will not do; an id is {NAME_RULE}.")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
