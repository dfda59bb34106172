"""Scoring by a judge: what is asked, kept, asked again and not believed; with a program as the judge."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from fake_metrics import nulls, of_metric, put_image, rendered
from fakes import png_bytes
from judges import HELLO, program, serving, starts

from bench.errors import UsageError
from bench.frames import load_run as load_frames
from bench.records import Judge, Question, RunOptions, Suite
from bench.report.skills import skill_tables
from bench.run import run_stage
from bench.score import score
from bench.store import RunFolder, load_answers, load_run

NAMES = ("soft-tifa-am-toy", "soft-tifa-gm-toy")
LOOKS = """\
for line in sys.stdin:
    asked = json.loads(line)
    open(MARKS, "a").write(line)
    there = lambda one: one["question"].split()[-1].rstrip("?") in asked["image"]
    yes = [0.9 if there(one) else 0.1 for one in asked["questions"]]
    say(id=asked["id"], answers=[p if one["answer"] == "yes" else 1 - p for p, one in zip(yes, asked["questions"])])
"""
"""Looks at the name of the image, which has the id of its prompt in it."""


def asked_of(prompt_id: str) -> tuple[Question, ...]:
    return (Question(text=f"Is this {prompt_id}?", skill="object"), Question(text="Is this nothing?", answer="no"))


def with_questions(suite: Suite, judge: Judge, *, bare: int = 1) -> Suite:
    """The suite with questions of all prompts but the last ones."""
    prompts = [
        msgspec.structs.replace(prompt, questions=asked_of(prompt.id) if index < len(suite.prompts) - bare else ())
        for index, prompt in enumerate(suite.prompts)
    ]
    return msgspec.structs.replace(suite, prompts=tuple(prompts), judges=(judge,), metrics=NAMES)


def folder_with(path: Path, judge: Judge, *, prompts: int = 14) -> RunFolder:
    """Rendered images of two variants, with questions of all prompts but one."""
    folder = rendered(path, prompts=prompts, samples=1, variants=("base", "spo"), metrics=())
    info = folder.run().info
    folder.write_info(msgspec.structs.replace(info, suite=with_questions(info.suite, judge)))
    return folder


def requests(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "marks").read_text().splitlines()]


def test_each_image_is_asked_once_and_both_means_are_made_of_the_answers(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS)
    with folder_with(tmp_path / "run", judge) as folder:
        assert score(folder) == 2 * 14 * 2
        for metric in NAMES:
            values = [one.value for one in of_metric(folder, metric) if one.value is not None]
            assert values == pytest.approx([0.9] * 26)
        assert set(nulls(folder, NAMES[0]).values()) == {"the prompt has no questions"}
        assert len(folder.answers()) == 2 * 26
        frame = load_frames(folder.path).answers
        assert len(frame.merge(load_frames(folder.path).renders, left_on="image_sha256", right_on="sha256")) == 2 * 26
        assert frame["probability"].tolist() == [one.probability for one in folder.answers()]
        assert frame["question"].tolist() == [one.question.text for one in folder.answers()]
        images = {str(one["image"]) for one in requests(tmp_path) if one["prompt"]}
        assert len(images) == 26
        asked = starts(tmp_path)
        assert score(folder) == 0
        assert starts(tmp_path) == asked


def test_answers_are_kept_so_that_another_mean_of_them_costs_nothing(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS)
    with folder_with(tmp_path / "run", judge) as folder:
        score(folder, metrics=NAMES[:1])
        asked = starts(tmp_path)
        assert score(folder, metrics=NAMES[1:]) == 28
        assert starts(tmp_path) == asked


def test_a_new_question_is_asked_alone_of_every_image(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS)
    with folder_with(tmp_path / "run", judge) as folder:
        score(folder)
        info, asked = folder.run().info, starts(tmp_path)
        first = info.suite.prompts[0]
        new_question = Question(text="Is this nothing else?", answer="no")
        more = msgspec.structs.replace(first, questions=(*first.questions, new_question))
        suite = msgspec.structs.replace(info.suite, prompts=(more, *info.suite.prompts[1:]))
        folder.write_info(msgspec.structs.replace(info, suite=suite))
        assert score(folder) == 2 * 14 * 2  # another version of both metrics
        new = [one for one in requests(tmp_path)[asked:] if str(one["prompt"]) == first.text]
        texts = [[question["question"] for question in one["questions"]] for one in new]  # type: ignore[attr-defined]
        assert texts[-2:] == [["Is this nothing else?"]] * 2


def test_another_skill_of_a_question_is_not_asked_again(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", program(tmp_path, LOOKS))
    suite = folder.run().info.suite
    folder.close()
    run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu"))
    asked = starts(tmp_path)
    renamed = [
        msgspec.structs.replace(
            prompt, questions=tuple(msgspec.structs.replace(one, skill="action") for one in prompt.questions)
        )
        for prompt in suite.prompts
    ]
    changed = msgspec.structs.replace(suite, prompts=tuple(renamed))
    run_stage("score", changed, tmp_path / "run", RunOptions(device="cpu"))
    assert starts(tmp_path) == asked
    (table,) = skill_tables(load_run(tmp_path / "run"), load_answers(tmp_path / "run"))
    ((skill, (questions, means)),) = table.rows.items()
    assert (skill, questions) == ("action", 26)
    assert means == pytest.approx((0.9, 0.9))


def test_an_image_that_was_rendered_anew_is_asked_again(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS)
    with folder_with(tmp_path / "run", judge) as folder:
        score(folder)
        one = folder.renders()[0]
        put_image(folder, (one.variant, one.prompt_id, one.sample), png_bytes("spo", "anew", 0, 0))
        assert score(folder) == 2


def test_another_version_of_the_judge_is_another_version_of_the_metric(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", program(tmp_path, LOOKS))
    suite = folder.run().info.suite
    folder.close()
    first = run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu"))
    assert first.scores == 56
    versions = {facts.name: facts.version for facts in load_run(tmp_path / "run").info.metrics}
    assert versions[NAMES[0]].startswith("1; toy 1; questions ")
    assert run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu")).done_before
    program(tmp_path, LOOKS, hello=HELLO.replace('version="1"', 'version="2"'))
    assert not run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu")).done_before
    run = load_run(tmp_path / "run")
    assert {one.version for one in run.scores} == {versions[NAMES[0]].replace("toy 1", "toy 2")}
    assert {one.identity for one in load_answers(tmp_path / "run")} == {"toy 1", "toy 2"}


def test_a_judge_that_fails_a_canary_gives_nulls_with_the_reason_and_is_tried_again(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS.replace("0.9 if there(one) else 0.1", "0.8"))
    with folder_with(tmp_path / "run", judge) as folder:
        score(folder)
        reasons = set(nulls(folder, NAMES[0]).values())
        assert len(of_metric(folder, NAMES[0])) == len(nulls(folder, NAMES[0])) == 28
        assert folder.answers() == ()
        (said,) = reasons - {"the prompt has no questions"}
        assert said is not None
        assert said.startswith("the judge toy is not believed: canary 'empty'")
        program(tmp_path, LOOKS)
        assert score(folder) == 2 * 26
        assert len(nulls(folder, NAMES[0])) == 2


def test_with_few_prompts_the_run_says_which_canary_was_not_asked(tmp_path: Path) -> None:
    judge = program(tmp_path, LOOKS)
    with folder_with(tmp_path / "run", judge, prompts=4) as folder:
        score(folder)
        (note,) = [note for note in folder.run().info.settings_notes if "canary" in note]
        assert note.startswith("The judge toy was not asked the canary of pairing: only 3 prompts")
        assert len(nulls(folder, NAMES[0])) == 2


def test_a_judge_that_dies_on_an_image_costs_that_image_only(tmp_path: Path) -> None:
    dying = '    if "spo/case-003" in asked["image"]: sys.exit("out of memory")\n'
    body = LOOKS.replace("    open(MARKS", f"{dying}    open(MARKS")
    with folder_with(tmp_path / "run", program(tmp_path, body)) as folder:
        score(folder)
        bad = {key: why for key, why in nulls(folder, NAMES[0]).items() if why != "the prompt has no questions"}
        assert list(bad) == [("spo", "case-003", 0)]
        assert "ended with exit code 1; its last words: 'out of memory'" in str(bad["spo", "case-003", 0])
        program(tmp_path, LOOKS)
        assert score(folder) == 2


def test_an_image_that_is_gone_is_not_asked_about(tmp_path: Path) -> None:
    with folder_with(tmp_path / "run", program(tmp_path, LOOKS)) as folder:
        folder.image_path("spo", "case-005", 0).unlink()
        score(folder)
        assert "is missing" in str(nulls(folder, NAMES[0])["spo", "case-005", 0])
        assert not [one for one in requests(tmp_path) if "spo/case-005" in str(one["image"])]


def test_an_image_that_is_gone_is_no_fault_of_the_judge(tmp_path: Path) -> None:
    opens = LOOKS.replace("    open(MARKS", "    open(asked['image'], 'rb').close()\n    open(MARKS", 1)
    with folder_with(tmp_path / "run", program(tmp_path, opens)) as folder:
        folder.image_path("base", "case-005", 0).unlink()
        score(folder)
        why = {key: said for key, said in nulls(folder, NAMES[0]).items() if said != "the prompt has no questions"}
        assert list(why) == [("base", "case-005", 0)]
        assert "is missing" in str(why["base", "case-005", 0])


def test_an_endpoint_elsewhere_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    far = Judge(name="toy", endpoint="https://judge.example/v1", model="x")
    folder = folder_with(tmp_path / "run", far)
    suite = folder.run().info.suite
    folder.close()
    with pytest.raises(UsageError, match="not this machine"):
        run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu"))
    assert (tmp_path / "run" / "scores.jsonl").read_bytes() == b""


def test_no_key_and_no_answer_of_a_server_is_written_into_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-1234")
    with serving(lambda body: (401, "key sk-secret-1234 is wrong")) as server:
        far = Judge(name="toy", endpoint=server.url, model="x", key="JUDGE_KEY")
        folder = folder_with(tmp_path / "run", far)
        suite = folder.run().info.suite
        folder.close()
        run_stage("score", suite, tmp_path / "run", RunOptions(device="cpu"))
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-1234"
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file() and file.suffix != ".png"]
    assert len(files) >= 3
    assert not [file for file in files if b"sk-secret" in file.read_bytes()]
    assert "the endpoint answers 401: key [key] is wrong" in (tmp_path / "run" / "scores.jsonl").read_text()
