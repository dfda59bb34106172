"""Question files -> questions by prompt: our own, and those that GenEval2, TIFA, DPG-Bench and T2I-CompBench publish.

The questions of ``binding.jsonl`` stand beside it in ``binding.questions.jsonl`` (or ``.json``, ``.csv``, ``.tsv``;
several, such as ``binding.questions-2.jsonl``, are read in the order of their names), so that a published prompt set is
not edited. A line of ours::

    {"id": "bind-two-cats", "question": "How many cats are there?", "answer": "two", "skill": "count"}

What the field publishes holds prompts and questions together. Such a file is read as a prompt file with questions, or,
under a name as above, as the questions of a prompt file.

===============  ======================================================================================
GenEval2         ``prompt``, ``vqa_list`` (pairs of question and answer), ``skills``
TIFA             ``id``, ``caption``, ``question``, ``choices``, ``answer``, ``element_type``
DPG-Bench        ``item_id``, ``question_natural_language``, ``category_broad``; the answer is yes
T2I-CompBench    what its BLIP-VQA is asked: ``image`` (``PROMPT_000000.png``), ``question``, ``dataset``
===============  ======================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from bench.errors import SuiteError
from bench.formatting import did_you_mean, listed, plural, quoted
from bench.records import Prompt, Question
from bench.suite.prompt_formats import READERS, field_key, kind_of, read_entries

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
"""Words of the numbers that may be an answer; larger ones are written with digits."""
MOST_CHARACTERS = 2_000
"""Longest question and answer that is read."""
FIELDS = ("id", "question", "answer", "choices", "skill")
"""What a line of ours may hold."""


class Asked(NamedTuple):
    """A question of a file, and whose it is."""

    where: str
    prompt_id: str
    """Empty where the file names its prompts by their text."""
    prompt: str
    question: Question
    published: bool
    """Whether it is of a format that is not ours: what repeats there is left out, not refused."""


def number_of(answer: str) -> int | None:
    """The whole number that an answer is, in words up to twenty or in digits; None for any other answer."""
    word = answer.strip().casefold()
    if word in NUMBERS:
        return NUMBERS.index(word)
    return int(word) if re.fullmatch(r"[0-9]{1,4}", word) else None


def is_yes_or_no(answer: str) -> bool:
    """Whether an answer is ``yes`` or ``no``, in any case."""
    return answer.strip().casefold() in ("yes", "no")


def is_question_file(path: Path) -> bool:
    """Whether a file holds the questions of a prompt file, by its name."""
    return path.suffix.lower() in READERS and ".questions" in path.stem


def question_files(path: Path) -> list[Path]:
    """The question files beside a prompt file, or beside a folder of prompts, sorted by name."""
    stem = path.name if path.is_dir() else path.stem
    name = re.compile(rf"{re.escape(stem)}\.questions(-[\w-]+)?")
    return sorted(file for file in path.parent.glob("*") if is_question_file(file) and name.fullmatch(file.stem))


def has_questions(entry: object) -> bool:
    """Whether an entry of a prompt file holds questions too, in one of the published formats."""
    return isinstance(entry, dict) and _format_of(_by_key(entry)) not in (None, "ours")


def questions_in(where: str, entry: object) -> list[Asked]:
    """The questions of one entry of a question file or of a published prompt file.

    Raises:
        SuiteError: of no known format; no prompt; a question or an answer that is empty, too long or not a text; an
            answer that is neither yes or no, nor a number, nor among the choices. It names file and line.
    """
    if not isinstance(entry, dict):
        raise SuiteError(f"{where}: a question is an object, not {kind_of(entry)}.")
    fields = _by_key(entry)
    found = _format_of(fields)
    if found is None:
        near = did_you_mean(next(iter(fields), ""), FIELDS)
        raise SuiteError(f"{where}: has no question; the fields are {', '.join(FIELDS)}, not {listed(entry)}{near}.")
    return _FORMATS[found](where, fields)


def attach(
    prompts: Sequence[tuple[str, Prompt]], asked: Iterable[Asked]
) -> tuple[list[tuple[str, Prompt]], tuple[str, ...]]:
    """The prompts with their questions, and sentences on what was left out.

    Raises:
        SuiteError: a question whose id or text no prompt has, or one of ours that a prompt has already.
    """
    by_id = {prompt.id: prompt.id for _, prompt in prompts}
    by_text = {_same(prompt.text): prompt.id for _, prompt in prompts}
    own: dict[str, dict[str, tuple[str, Question]]] = {}
    repeats = 0
    for one in asked:
        key = by_id.get(one.prompt_id) if one.prompt_id else by_text.get(_same(one.prompt))
        if key is None:
            name = one.prompt_id or one.prompt
            near = did_you_mean(name, by_id) if one.prompt_id else ""
            raise SuiteError(
                f"{one.where}: no prompt has the {'id' if one.prompt_id else 'text'} {quoted(name)}{near}."
            )
        questions = own.setdefault(key, {})
        first, _ = questions.setdefault(_same(one.question.text), (one.where, one.question))
        if first == one.where and questions[_same(one.question.text)][1] is one.question:
            continue
        if not one.published:
            raise SuiteError(
                f"{one.where}: the prompt {key!r} is asked {quoted(one.question.text)} at {first} already."
            )
        repeats += 1
    found = [
        (where, msgspec.structs.replace(prompt, questions=tuple(question for _, question in own[prompt.id].values())))
        if prompt.id in own
        else (where, prompt)
        for where, prompt in prompts
    ]
    said = (
        f"{plural(repeats, 'question')} of a prompt {'is' if repeats == 1 else 'are'} there twice; each is asked once."
    )
    return found, (said,) if repeats else ()


def read_question_files(path: Path) -> tuple[list[Asked], tuple[str, ...]]:
    """What the question files beside a prompt file ask, and sentences on what was not taken.

    Raises:
        SuiteError: one of them cannot be read, or as ``questions_in``.
    """
    asked: list[Asked] = []
    notes: list[str] = []
    for file in question_files(path):
        entries = read_entries(file)
        if not entries.found:
            raise SuiteError(f"{file}: holds no questions.")
        asked += [one for where, entry in entries.found for one in questions_in(where, entry)]
        notes += [*entries.notes, *(f"{file.name}: {said}" for said in untaken(entry for _, entry in entries.found))]
    return asked, tuple(notes)


def untaken(entries: Iterable[object]) -> tuple[str, ...]:
    """Sentences on what published formats hold and is not taken: dependencies, and slots without a question."""
    tables = [_by_key(entry) for entry in entries if isinstance(entry, dict)]
    children = sum(str(table.get("dependency", "0")).strip() not in ("", "0") for table in tables)
    slots = sum(_format_of(table) == "t2i-compbench" and not str(table["question"]).strip() for table in tables)
    said = []
    if children:
        said.append(
            f"{plural(children, 'question depends', 'questions depend')} on others; here each counts by itself, so "
            "that the mean of a prompt is not DPG-Bench's."
        )
    if slots:
        said.append(f"{plural(slots, 'slot')} without a question left out.")
    return tuple(said)


# One entry in each format.


def _format_of(fields: Mapping[str, Any]) -> str | None:
    if "vqalist" in fields:
        return "geneval2"
    if "questionnaturallanguage" in fields:
        return "dpg"
    if "question" not in fields:
        return None
    if "elementtype" in fields:
        return "tifa"
    return "t2i-compbench" if "questionid" in fields and "image" in fields else "ours"


def _ours(where: str, fields: Mapping[str, Any]) -> list[Asked]:
    for name in fields:
        if name not in FIELDS:
            raise SuiteError(
                f"{where}: unknown field {quoted(name)}{did_you_mean(name, FIELDS)}; there are {', '.join(FIELDS)}."
            )
    prompt_id = fields.get("id")
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, str | int) or not str(prompt_id).strip():
        raise SuiteError(
            f"{where}: the id is {kind_of(prompt_id)}; it is the id of the prompt that the question is of."
        )
    question = _question(
        where, fields["question"], fields.get("answer", "yes"), fields.get("choices"), fields.get("skill")
    )
    return [Asked(where, str(prompt_id), "", question, published=False)]


def _geneval2(where: str, fields: Mapping[str, Any]) -> list[Asked]:
    pairs, skills = fields["vqalist"], fields.get("skills")
    prompt = _text(where, "the prompt", fields.get("prompt"))
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise SuiteError(f"{where}: vqa_list is not a list of pairs of a question and its answer.")
    if not isinstance(skills, list) or len(skills) != len(pairs):
        raise SuiteError(f"{where}: skills has not one entry for each of the {len(pairs)} questions.")
    return [
        Asked(where, "", prompt, _question(where, text, answer, None, skill), published=True)
        for (text, answer), skill in zip(pairs, skills, strict=True)
    ]


def _tifa(where: str, fields: Mapping[str, Any]) -> list[Asked]:
    question = _question(
        where, fields["question"], fields.get("answer"), fields.get("choices"), fields.get("elementtype")
    )
    return [Asked(where, _text(where, "the id", fields.get("id")), "", question, published=True)]


def _dpg(where: str, fields: Mapping[str, Any]) -> list[Asked]:
    question = _question(where, fields["questionnaturallanguage"], "yes", None, fields.get("categorybroad"))
    return [Asked(where, _text(where, "item_id", str(fields.get("itemid", ""))), "", question, published=True)]


def _t2i_compbench(where: str, fields: Mapping[str, Any]) -> list[Asked]:
    text = fields["question"]
    if isinstance(text, str) and not text.strip():
        return []  # fewer noun phrases than slots
    image = PurePosixPath(_text(where, "the image", fields["image"]))
    prompt = image.stem.rpartition("_")[0]
    if not prompt:
        raise SuiteError(f"{where}: the image {image.name!r} is not named PROMPT_NUMBER.png.")
    return [Asked(where, "", prompt, _question(where, text, "yes", None, fields.get("dataset")), published=True)]


_FORMATS: dict[str, Callable[[str, Mapping[str, Any]], list[Asked]]] = {
    "ours": _ours,
    "geneval2": _geneval2,
    "tifa": _tifa,
    "dpg": _dpg,
    "t2i-compbench": _t2i_compbench,
}


def _question(where: str, text: object, answer: object, choices: object, skill: object) -> Question:
    asked, wanted = _text(where, "the question", text), _text(where, "the answer", answer)
    offered = _choices(where, choices)
    if {choice.casefold() for choice in offered} == {"yes", "no"}:
        offered = ()
    if offered:
        same = [choice for choice in offered if choice.casefold() == wanted.casefold()]
        if not same:
            raise SuiteError(f"{where}: the answer {quoted(wanted)} is not among the choices {listed(offered)}.")
        wanted = same[0]
    elif is_yes_or_no(wanted):
        wanted = wanted.casefold()
    elif number_of(wanted) is None:
        raise SuiteError(
            f"{where}: the answer {quoted(wanted)} is neither yes or no nor a number; give the question choices, among "
            "them this one."
        )
    tested = "" if skill is None else _text(where, "the skill", skill, may_be_empty=True)
    return Question(text=asked, answer=wanted, choices=offered, skill=tested)


def _choices(where: str, value: object) -> tuple[str, ...]:
    if value in (None, ""):
        return ()
    items = [part for part in value.split(";") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise SuiteError(f"{where}: choices is {kind_of(value)}; it is a list of texts.")
    choices = tuple(_text(where, "a choice", str(item) if type(item) is int else item) for item in items)
    if not 2 <= len(choices) <= 26 or len({choice.casefold() for choice in choices}) < len(choices):
        raise SuiteError(f"{where}: choices are 2 to 26 different texts, not {listed(choices)}.")
    return choices


def _text(where: str, what: str, value: object, *, may_be_empty: bool = False) -> str:
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise SuiteError(f"{where}: {what} is {kind_of(value)}, not a text.")
    text = value.strip()
    if not text and not may_be_empty:
        raise SuiteError(f"{where}: {what} is empty.")
    if len(text) > MOST_CHARACTERS:
        raise SuiteError(f"{where}: {what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read.")
    return text


def _by_key(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {field_key(name) or name: value for name, value in entry.items()}


def _same(text: str) -> str:
    """A text as it is compared: white space, case and a full stop at its end do not count."""
    return " ".join(text.split()).rstrip(". ").casefold()
