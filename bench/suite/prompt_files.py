"""Prompt files -> prompts: our own JSONL, and what the field publishes.

==============  ===============================================================================
``.jsonl``      one object a line. With an ``id`` it is our own format: ``id``, ``prompt``,
                optional ``negative``, ``tags``, ``probes``, ``group``, nothing else. Without, as in ``.json``
``.json``       a list of strings, or of objects with a ``prompt``, ``caption`` or ``text``
``.csv .tsv``   a header line with a prompt column, as PartiPrompts: ``Prompt``, ``Category``, ``Challenge``
``.txt``        one prompt a line, blank lines left out
==============  ===============================================================================

Column and field names count without case. ``category`` and ``challenge`` become tags, ``group`` says which prompts are
not independent (``Prompt.group``), other columns of published files are left alone. A prompt is taken as it stands,
whatever it holds; only ``.txt`` lines lose the space around them.

A reader turns the text of a file into entries: where each stands (``mini.jsonl:3``, for messages), and a string or an
object as decoded. A new format is one more reader in ``READERS``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench import documents
from bench.errors import SuiteError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed
from bench.records import Prompt

_PROMPT_FIELDS = ("prompt", "caption", "text")
_NEGATIVE_FIELDS = ("negative", "negative_prompt")
_TAG_FIELDS = ("category", "challenge")


def prompts_folder() -> Path:
    """Where the shipped suites and prompt sets lie: in the installed package, or in a checkout."""
    package = Path(__file__).parents[1]
    return package / "prompts" if (package / "prompts").is_dir() else package.parent / "prompts"


def list_prompt_sets() -> tuple[str, ...]:
    """The file names of the shipped prompt sets, sorted."""
    return tuple(sorted(path.name for path in prompts_folder().glob("*") if path.suffix in READERS))


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of one prompt file, in the file's order.

    Where an entry has no id it gets ``<first words>-<first 8 hex digits of sha256(prompt)>``, which depends
    on neither its line nor its neighbours.

    Raises:
        SuiteError: the file is missing, not a prompt file, empty, binary, or an entry of it is wrong; the
            sentence names file and line.
    """
    return tuple(prompt for _, prompt in read_located(Path(path)))


def read_located(path: Path) -> list[tuple[str, Prompt]]:
    """As ``read_prompts``, with the place of each prompt."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise SuiteError(f"{path}: a prompt file ends in one of {', '.join(READERS)}.")
    located: list[tuple[str, Prompt]] = []
    made: dict[str, str] = {}
    for where, value in READERS[suffix](path, documents.read_text(path)):
        prompt = _own_prompt(where, value) if suffix == ".jsonl" and _has_id(value) else _published_prompt(where, value)
        if not prompt.id:
            if prompt.text in made:
                raise SuiteError(
                    f"{where}: the same prompt as {made[prompt.text]}: {_short(prompt.text)}.",
                    "take one of them out, or give both an id",
                )
            made[prompt.text] = where
            prompt = msgspec.structs.replace(prompt, id=make_id(prompt.text))
        located.append((where, prompt))
    if not located:
        raise SuiteError(f"{path}: holds no prompts.")
    refuse_double_ids(located)
    return located


def refuse_double_ids(located: Iterable[tuple[str, Prompt]]) -> None:
    """Refuse two prompts whose ids are equal without case: their images would be one file on some systems.

    Raises:
        SuiteError: naming both places.
    """
    first: dict[str, str] = {}
    for where, prompt in located:
        if prompt.id.lower() in first:
            raise SuiteError(
                f"{where}: the id {prompt.id!r} is used twice (case does not count); "
                f"first at {first[prompt.id.lower()]}."
            )
        first[prompt.id.lower()] = where


def make_id(prompt: str) -> str:
    """A stable id: up to 40 characters of the prompt's first words, then 8 hex digits of its sha256."""
    words = _slug(" ".join(prompt[:200].split()[:6]))[:40].strip("-") or "prompt"
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


# --- files -> entries ----------------------------------------------------------------------


def read_jsonl(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Each line that is not blank, decoded; SuiteError where one is not JSON."""
    for where, line in _lines(path, text):
        yield where, _decode(where, line)


def read_json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The items of a list; SuiteError where the text is not JSON, or not a list."""
    if not text.strip():
        return
    value = _decode(str(path), text)
    if not isinstance(value, list):
        raise SuiteError(f"{path}: a .json prompt file is a list of strings or objects, not {_kind(value)}.")
    for number, item in enumerate(value, start=1):
        yield f"{path}, entry {number}", item


def read_csv(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The rows of a table with a prompt column."""
    return read_table(path, csv_rows(path, text), _check_prompt_column)


def read_tsv(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The rows of a table with a prompt column, in which a bare quote is a character."""
    rows = ((where, [_unquote(cell) for cell in line.split("\t")]) for where, line in _lines(path, text))
    return read_table(path, rows, _check_prompt_column)


def read_txt(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Each line that is not blank, without the space around it."""
    for where, line in _lines(path, text):
        yield where, line.strip()


READERS: dict[str, Callable[[Path, str], Iterator[tuple[str, Any]]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_txt,
}
"""The formats by the ends of their files' names."""


def read_table(
    path: Path, rows: Iterator[tuple[str, list[str]]], check_columns: Callable[[str, list[str]], None]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table by the names in its first line, which lose their case and the space around them.

    Args:
        path: the file, for messages.
        rows: the cells of each row, and where it stands.
        check_columns: given the first line's place and names; raises SuiteError where they will not do.

    Raises:
        SuiteError: a column that is named twice, a row with more or fewer cells; and what ``check_columns`` raises.
    """
    place, header = next(rows, (f"{path}:1", [""]))
    columns = [name.strip().lower() for name in header]
    check_columns(place, columns)
    doubled = [name for name in columns if name and columns.count(name) > 1]
    if doubled:
        raise SuiteError(f"{place}: the column {doubled[0]!r} is named twice.")
    for where, cells in rows:
        if len(cells) != len(columns):
            raise SuiteError(f"{where}: has {len(cells)} columns where the first line has {len(columns)}.")
        yield where, dict(zip(columns, cells, strict=True))


def csv_rows(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row that is not empty, with its first line; SuiteError where the text is not CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cells):
                yield f"{path}:{start}", cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise SuiteError(f"{path}:{start}: is not valid CSV: {error}.") from error


def _check_prompt_column(where: str, columns: list[str]) -> None:
    if not any(name in columns for name in _PROMPT_FIELDS):
        near = _nearest(columns, _PROMPT_FIELDS)
        raise SuiteError(
            f"{where}: the first line names no prompt column ({', '.join(_PROMPT_FIELDS)}){near}, "
            f"only {listed(columns)}."
        )


def _unquote(cell: str) -> str:
    # TSV files of the field hold bare quotes (PartiPrompts), so a quote is a character. Only what a spreadsheet alone
    # writes, a cell in quotes with its inner quotes doubled, is undone.
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    if quoted and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    # str.splitlines would also break at U+2028 and friends, which a prompt may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _decode(where: str, text: str) -> Any:
    try:
        return documents.loads(text)
    except UnicodeEncodeError as error:
        raise SuiteError(f"{where}: a string holds half of a surrogate pair (\\ud800 to \\udfff).") from error
    except ValueError as error:
        raise SuiteError(f"{where}: is not valid JSON: {error}.") from error


# --- entries -> prompts ----------------------------------------------------------------------


def _has_id(value: object) -> bool:
    return isinstance(value, dict) and "id" in value


def _own_prompt(where: str, fields: dict[str, Any]) -> Prompt:
    known = [field.encode_name for field in msgspec.structs.fields(Prompt)]
    for name in fields:
        if name not in known:
            near = did_you_mean(name, known)
            raise SuiteError(f"{where}: unknown field {name!r}{near}; the fields are {', '.join(known)}.")
    try:
        prompt = documents.convert(fields, Prompt)
    except ValueError as error:
        raise SuiteError(f"{where}: {error}.") from error
    _refuse_bad_id(where, prompt.id)
    if not all(tag.strip() for tag in prompt.tags) or len(set(prompt.tags)) < len(prompt.tags):
        raise SuiteError(f"{where}: a tag is empty or given twice: {list(prompt.tags)}.")
    return msgspec.structs.replace(prompt, group=prompt.group.strip())


def _published_prompt(where: str, value: object) -> Prompt:
    """A string, or the fields that are known of an object; the id is empty where one must be made."""
    if not isinstance(value, str | dict):
        raise SuiteError(f"{where}: a prompt is a string or an object, not {_kind(value)}.")
    fields = {"prompt": value} if isinstance(value, str) else {str(name).lower(): one for name, one in value.items()}
    text = next((fields[name] for name in _PROMPT_FIELDS if name in fields), None)
    if not isinstance(text, str):
        raise SuiteError(
            f"{where}: needs a text in {' or '.join(_PROMPT_FIELDS)}{_nearest(fields, _PROMPT_FIELDS)}; "
            f"it has the fields {listed(fields)}."
        )
    if not text.strip():
        raise SuiteError(f"{where}: the prompt is empty, as only a .jsonl line with an id may be.")
    negative = next((fields[name] for name in _NEGATIVE_FIELDS if fields.get(name)), "")
    if not isinstance(negative, str):
        raise SuiteError(f"{where}: the negative prompt is {_kind(negative)}, not a text.")
    prompt_id = "" if fields.get("id") is None else str(fields["id"])
    if prompt_id:
        _refuse_bad_id(where, prompt_id)
    group = "" if fields.get("group") is None else fields["group"]
    if not isinstance(group, str | int):
        raise SuiteError(f"{where}: the group is {_kind(group)}, not a name.")
    group = str(group).strip()
    return Prompt(id=prompt_id, text=text, negative=negative, tags=_published_tags(fields), group=group)


def _published_tags(fields: Mapping[str, Any]) -> tuple[str, ...]:
    tags = fields.get("tags")
    names = re.split(r"[;,|]", tags) if isinstance(tags, str) else tags if isinstance(tags, list) else []
    all_names = [*names, *(fields.get(name) for name in _TAG_FIELDS)]
    slugs = (_slug(name) for name in all_names if isinstance(name, str))
    return tuple(dict.fromkeys(slug for slug in slugs if slug))


def _refuse_bad_id(where: str, prompt_id: str) -> None:
    if not is_good_name(prompt_id):
        raise SuiteError(f"{where}: the id {_short(prompt_id)} will not do; an id is {NAME_RULE}.")


def _nearest(names: Iterable[str], known: tuple[str, ...]) -> str:
    return next(filter(None, (did_you_mean(name, known) for name in names)), "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
