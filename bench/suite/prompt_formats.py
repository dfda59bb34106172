"""The text of a prompt file -> entries: where each stands, and a string or an object of named fields.

==============  ===============================================================================
``.jsonl``      one string or object a line
``.json``       a list of them; an object of objects by their ids, as GenAI-Bench; an object with such a list
                as ``prompts``, ``annotations`` (COCO captions) or ``data``
``.csv .tsv``   a header line with a prompt column, as PartiPrompts and DrawBench; a ``.csv`` may have semicolons
                or tabs, as spreadsheets write it
``.txt``        one prompt a line, blank lines and lines that begin with ``#`` left out; a line that begins with
                ``--`` holds options, as AUTOMATIC1111's "prompts from file" (``--prompt "a kite" --steps 30``)
a folder        one prompt in each ``.txt`` file, named by it, as DPG-Bench
==============  ===============================================================================

A new format is one more reader in ``READERS``.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import documents
from bench.errors import SuiteError
from bench.formatting import listed, plural

LISTS = ("prompts", "annotations", "data")
"""What the list of prompts is called in a ``.json`` file that holds more than the list."""
DELIMITERS = ",;\t"
PROMPT_KEYS = ("prompt", "prompts", "caption", "text", "positive", "positiveprompt")
"""What the prompt is called, by ``field_key``; the first that an entry has."""


class Entries(NamedTuple):
    """What a reader found."""

    found: list[tuple[str, Any]]
    """File and line for messages, and the value."""
    notes: tuple[str, ...] = ()
    """Sentences on what was not taken."""


def read_entries(path: Path) -> Entries:
    """The entries of a prompt file or of a folder of them.

    Raises:
        SuiteError: it is missing, of no known format, or not what its format asks for; the sentence names the line.
    """
    if documents.exists(path) and path.is_dir():
        return read_folder(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise SuiteError(f"{path}: a prompt file ends in one of {', '.join(READERS)}.")
    return READERS[suffix](path, documents.read_text(path))


def read_jsonl(path: Path, text: str) -> Entries:
    """Each line that is not blank, decoded; SuiteError where one is not JSON."""
    return Entries([(where, _decode(where, line)) for where, line in _lines(path, text)])


def read_json(path: Path, text: str) -> Entries:
    """The items of the list or of the object; SuiteError where the text is not JSON, or holds neither."""
    if not text.strip():
        return Entries([])
    value, notes = _decode(str(path), text), tuple[str, ...]()
    if isinstance(value, dict):
        name = next((name for name in LISTS if isinstance(value.get(name), list)), None)
        if name is not None:
            others = value.keys() - {name}
            notes = (f"{path.name}: only the list {name!r} is read, not {listed(others)}.",) if others else ()
            value = value[name]
        elif value and all(isinstance(item, dict) for item in value.values()):
            value = [{"id": key, **item} for key, item in value.items()]
    if not isinstance(value, list):
        raise SuiteError(
            f"{path}: a .json prompt file is a list of strings or objects, or an object with one as "
            f"{' or '.join(LISTS)}, not {kind_of(value)}."
        )
    return Entries([(f"{path}, entry {number}", item) for number, item in enumerate(value, start=1)], notes)


def read_csv(path: Path, text: str) -> Entries:
    """The rows of a table, whose delimiter is the one with which its first line names a prompt column."""
    return Entries(list(read_table(path, csv_rows(path, text, delimiter_of(path, text, PROMPT_KEYS)))))


def read_tsv(path: Path, text: str) -> Entries:
    """The rows of a table with tabs, in which a bare quote is a character."""
    rows = ((where, [_unquote(cell) for cell in line.split("\t")]) for where, line in _lines(path, text))
    return Entries(list(read_table(path, rows)))


def read_txt(path: Path, text: str) -> Entries:
    """Each line that is not blank and no comment, without the space around it; options as an object."""
    lines = [(where, line.strip()) for where, line in _lines(path, text)]
    comments = sum(line.startswith("#") for _, line in lines)
    found = [
        (where, _options(where, line) if line.startswith("--") else line)
        for where, line in lines
        if not line.startswith("#")
    ]
    return Entries(found, (f"{path.name}: lines that begin with # are comments: {comments}.",) if comments else ())


def read_folder(path: Path) -> Entries:
    """The text of each ``.txt`` file, without the space around it, as an object with the file's name as its id."""
    inside = sorted(path.iterdir())
    files = [file for file in inside if file.suffix.lower() == ".txt"]
    if not files:
        raise SuiteError(f"{path}: a folder of prompts holds one .txt file for each; there is none.")
    others = len(inside) - len(files)
    notes = (f"{path.name}: {plural(others, 'file or folder', 'files and folders')} beside the .txt files left out.",)
    found = [(str(file), {"id": file.stem, "prompt": documents.read_text(file).strip()}) for file in files]
    return Entries(found, notes if others else ())


def read_table(path: Path, rows: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table by the names in its first line, without the space around these.

    Args:
        path: the file, for messages.
        rows: the cells of each row, and where it stands.

    Raises:
        SuiteError: a column that is named twice, a row with more or fewer cells.
    """
    place, header = next(rows, (f"{path}:1", [""]))
    columns = [name.strip() for name in header]
    keys = [field_key(name) for name in columns]
    doubled = [name for name, key in zip(columns, keys, strict=True) if key and keys.count(key) > 1]
    if doubled:
        raise SuiteError(f"{place}: the column {doubled[0]!r} is named twice; take one of them out.")
    for where, cells in rows:
        if len(cells) != len(columns):
            raise SuiteError(f"{where}: has {len(cells)} columns where the first line has {len(columns)}.")
        yield where, dict(zip(columns, cells, strict=True))


def csv_rows(path: Path, text: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The cells of each row that is not empty, with its first line; SuiteError where the text is not CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cells):
                yield f"{path}:{start}", cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise SuiteError(f"{path}:{start}: is not valid CSV: {error}.") from error


def delimiter_of(path: Path, text: str, wanted: Collection[str]) -> str:
    """Comma, semicolon or tab: the first with which the first line names a column that is wanted, else the comma."""
    _, head = next(_lines(path, text), ("", ""))
    return next((one for one in DELIMITERS if not {*map(field_key, head.split(one))}.isdisjoint(wanted)), ",")


def field_key(name: str) -> str:
    """A field's name as it is compared, its letters and digits alone: ``Negative Prompt`` is ``negativeprompt``."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def kind_of(value: object) -> str:
    """What a decoded value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _options(where: str, line: str) -> dict[str, str]:
    # The grammar of scripts/prompts_from_file.py in AUTOMATIC1111/stable-diffusion-webui: the words of a shell; those
    # between two options belong to the first.
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise SuiteError(f"{where}: the options cannot be read: {error}.", "quote as a shell asks for it") from error
    options: dict[str, str] = {}
    name = ""
    for word in words:
        if not word.startswith("--"):
            options[name] = f"{options[name]} {word}".strip()
            continue
        name = word[2:]
        if name in options:
            raise SuiteError(f"{where}: the option {word} is given twice.")
        options[name] = ""
    return options


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


READERS: dict[str, Callable[[Path, str], Entries]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_txt,
}
"""The formats by the ends of their files' names."""
