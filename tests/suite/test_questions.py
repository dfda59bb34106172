"""Question files: ours beside a prompt set, and what the field publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites import write_suite

from bench.errors import SuiteError
from bench.records import Question
from bench.suite import list_prompt_sets, load_suite, protocol_digest, read_prompt_file, read_prompts
from bench.suite.questions import NUMBERS, number_of, question_files, questions_in

PROMPTS = [{"id": "a", "prompt": "two foxes"}, {"id": "b", "prompt": "a pier"}]
ASKED = [
    {"id": "a", "question": "How many foxes are there?", "answer": "two", "skill": "count"},
    {"id": "a", "question": "Is there a fox?", "skill": "object"},
    {"id": "a", "question": "Which colour?", "answer": "RED", "choices": ["red", "grey"]},
]


def lines(entries: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def written(folder: Path, asked: list[dict[str, Any]], name: str = "own.questions.jsonl") -> Path:
    """A prompt file with two prompts, and a question file beside it."""
    (folder / "own.jsonl").write_text(lines(PROMPTS), encoding="utf-8")
    (folder / name).write_text(lines(asked), encoding="utf-8")
    return folder / "own.jsonl"


def refusal(folder: Path, *asked: dict[str, Any]) -> str:
    with pytest.raises(SuiteError) as caught:
        read_prompts(written(folder, list(asked)))
    return str(caught.value)


def test_questions_are_read_from_the_file_beside_the_prompts(tmp_path: Path) -> None:
    foxes, pier = read_prompts(written(tmp_path, ASKED))
    assert foxes.questions == (
        Question(text="How many foxes are there?", answer="two", skill="count"),
        Question(text="Is there a fox?", answer="yes", skill="object"),
        Question(text="Which colour?", answer="red", choices=("red", "grey")),
    )
    assert pier.questions == ()


def test_several_question_files_and_tables_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = written(tmp_path, ASKED[:1], "own.questions-2.jsonl")
    (tmp_path / "own.questions-1.csv").write_text("id,question,answer,choices\nb,Which wood?,oak,oak;pine\n")
    (tmp_path / "owner.questions.jsonl").write_text(lines([{"id": "z", "question": "Of another set?"}]))
    assert [file.name for file in question_files(path)] == ["own.questions-1.csv", "own.questions-2.jsonl"]
    foxes, pier = read_prompts(path)
    assert [one.text for one in foxes.questions] == ["How many foxes are there?"]
    assert pier.questions == (Question(text="Which wood?", answer="oak", choices=("oak", "pine")),)


def test_questions_change_no_protocol(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    before = load_suite(str(suite))
    (tmp_path / "own.questions.jsonl").write_text(lines([{"id": "a", "question": "Is there a fox?"}]))
    after = load_suite(str(suite))
    assert after.prompts != before.prompts
    assert protocol_digest(after) == protocol_digest(before)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"id": "c", "question": "Is it?"}, "no prompt has the id 'c'"),
        ({"id": "A", "question": "Is it?"}, "no prompt has the id 'A'"),
        ({"question": "Is it?"}, "the id is null"),
        ({"id": "a", "question": "  "}, "the question is empty"),
        ({"id": "a", "question": 3.5}, "the question is a number, not a text"),
        ({"id": "a", "question": "x" * 2001}, "2,001 characters"),
        ({"id": "a", "question": "Is it?", "answer": ""}, "the answer is empty"),
        ({"id": "a", "question": "Is it?", "answer": "perhaps"}, "neither yes or no nor a number"),
        ({"id": "a", "question": "Is it?", "answer": "blue", "choices": ["red", "grey"]}, "not among the choices"),
        ({"id": "a", "question": "Is it?", "answer": "red", "choices": ["red"]}, "2 to 26 different texts"),
        ({"id": "a", "question": "Is it?", "answer": "red", "choices": ["red", "Red"]}, "2 to 26 different texts"),
        ({"id": "a", "question": "Is it?", "answer": "red", "choices": 3}, "choices is a number"),
        ({"id": "a", "question": "Is it?", "anwser": "no"}, "unknown field 'anwser' (did you mean 'answer'?)"),
        ({"id": "a", "text": "Is it?"}, "has no question; the fields are id, question"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    found = refusal(tmp_path, ASKED[0], entry)
    assert f"{tmp_path}/own.questions.jsonl:2: " in found
    assert said in found


def test_a_question_that_is_asked_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    found = refusal(tmp_path, ASKED[0], ASKED[1], {**ASKED[0], "question": "how many  foxes are there?"})
    assert "own.questions.jsonl:3: " in found
    assert "own.questions.jsonl:1 already" in found


def test_a_line_that_is_not_an_object_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [])
    with pytest.raises(SuiteError, match="holds no questions"):
        read_prompts(path)
    (tmp_path / "own.questions.jsonl").write_text('"Is there a fox?"\n')
    with pytest.raises(SuiteError, match="a question is an object, not a text"):
        read_prompts(path)


def test_a_question_file_is_no_prompt_set(tmp_path: Path) -> None:
    written(tmp_path, ASKED)
    with pytest.raises(SuiteError, match="holds the questions of a prompt file"):
        read_prompts(tmp_path / "own.questions.jsonl")
    assert "mini.questions.jsonl" not in list_prompt_sets()


# What the field publishes. The lines are made up; only their form is the publishers'.

GENEVAL2 = [
    {
        "prompt": "two red foxes on a pier",
        "atom_count": 3,
        "vqa_list": [["How many foxes are in the image?", "two"], ["Are the foxes red?", "Yes"]],
        "skills": ["count", "attribute"],
    },
    {"prompt": "a pier", "atom_count": 1, "vqa_list": [["Is there a pier?", "Yes"]], "skills": ["object"]},
]
TIFA = [
    {
        "id": "coco_7",
        "caption": "Two foxes.",
        "question": "how many foxes are there?",
        "choices": ["1", "2", "3"],
        "answer": "2",
        "element_type": "counting",
        "element": "two",
        "coco_val_id": "9",
    },
    {
        "id": "coco_7",
        "caption": "Two foxes.",
        "question": "are there foxes?",
        "choices": ["yes", "no"],
        "answer": "yes",
        "element_type": "animal/human",
        "element": "foxes",
    },
]
DPG = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n"
    '7,"A long text, with a comma.",k,1,0,entity,whole,entity - whole (fox),Is there a fox?\n'
    '7,"A long text, with a comma.",k,2,1,attribute,color,"attribute - color (fox, red)",Is the fox red?\n'
)
T2I = [
    {
        "image": "out/samples/two foxes and a pier_000000.png",
        "question_id": 0,
        "question": "two foxes?",
        "dataset": "color",
    },
    {"image": "out/samples/a lone tree_000001.png", "question_id": 1, "question": "", "dataset": "color"},
]


def test_geneval2_is_a_prompt_file_with_questions(tmp_path: Path) -> None:
    (tmp_path / "geneval2_data.jsonl").write_text(lines(GENEVAL2))
    file = read_prompt_file(tmp_path / "geneval2_data.jsonl")
    assert [prompt.text for prompt in file.prompts] == ["two red foxes on a pier", "a pier"]
    assert file.prompts[0].questions == (
        Question(text="How many foxes are in the image?", answer="two", skill="count"),
        Question(text="Are the foxes red?", answer="yes", skill="attribute"),
    )
    assert file.notes == ()


def test_tifa_is_a_prompt_file_with_a_question_a_line(tmp_path: Path) -> None:
    (tmp_path / "tifa.json").write_text(json.dumps(TIFA))
    (prompt,) = read_prompts(tmp_path / "tifa.json")
    assert (prompt.id, prompt.text) == ("coco_7", "Two foxes.")
    assert prompt.questions == (
        Question(text="how many foxes are there?", answer="2", choices=("1", "2", "3"), skill="counting"),
        Question(text="are there foxes?", answer="yes", skill="animal/human"),
    )


def test_dpg_bench_is_the_questions_of_a_folder_of_prompts_or_a_prompt_file(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "7.txt").write_text("A long text, with a comma.")
    (tmp_path / "prompts.questions.csv").write_text(DPG)
    file = read_prompt_file(tmp_path / "prompts")
    expected = (Question(text="Is there a fox?", skill="entity"), Question(text="Is the fox red?", skill="attribute"))
    assert [(prompt.id, prompt.questions) for prompt in file.prompts] == [("7", expected)]
    assert any("1 question depends on others" in note and "not DPG-Bench's" in note for note in file.notes)
    (tmp_path / "dpg_bench.csv").write_text(DPG)
    alone = read_prompt_file(tmp_path / "dpg_bench.csv")
    assert [(prompt.id, prompt.questions) for prompt in alone.prompts] == [("7", expected)]


def test_t2i_compbench_asks_what_its_images_are_named_after(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("two foxes and a pier.\na lone tree\n")
    (tmp_path / "color_val.questions-1.json").write_text(json.dumps(T2I))
    file = read_prompt_file(tmp_path / "color_val.txt")
    assert [prompt.questions for prompt in file.prompts] == [(Question(text="two foxes?", skill="color"),), ()]
    assert any("1 slot without a question" in note for note in file.notes)


def test_what_a_published_set_asks_twice_is_asked_once_and_said(tmp_path: Path) -> None:
    (tmp_path / "tifa.json").write_text(json.dumps([*TIFA, TIFA[0]]))
    file = read_prompt_file(tmp_path / "tifa.json")
    assert len(file.prompts[0].questions) == 2
    assert any("twice" in note for note in file.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"skills": ["count"]}, "skills has not one entry for each of the 2 questions"),
        ({"vqa_list": [["How many?"]]}, "vqa_list is not a list of pairs"),
        ({"vqa_list": "yes"}, "vqa_list is not a list of pairs"),
        ({"vqa_list": [["How many?", "two"], ["What is it?", "a fox"]]}, "neither yes or no nor a number"),
    ],
)
def test_a_damaged_line_of_a_published_set_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "geneval2.jsonl").write_text(lines([{**GENEVAL2[0], **change}]))
    with pytest.raises(SuiteError, match=said) as caught:
        read_prompts(tmp_path / "geneval2.jsonl")
    assert "geneval2.jsonl:1: " in str(caught.value)


@given(st.integers(0, 9999))
def test_numbers_are_read_in_digits_and_up_to_twenty_in_words(number: int) -> None:
    assert number_of(str(number)) == number
    if number < len(NUMBERS):
        assert number_of(f" {NUMBERS[number].capitalize()} ") == number


@given(st.text(max_size=20))
def test_any_text_as_an_answer_is_read_or_refused_in_a_sentence(text: str) -> None:
    try:
        (one,) = questions_in("here", {"id": "a", "question": "Is it?", "answer": text})
    except SuiteError:
        return
    assert one.question.answer in ("yes", "no") or number_of(one.question.answer) is not None
    assert msgspec.json.decode(msgspec.json.encode(one.question), type=Question) == one.question
