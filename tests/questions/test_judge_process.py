"""A judge that is a program: every way in which one goes wrong, with real processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from judges import HELLO, program, starts

from bench.errors import WeightsError
from bench.metrics.declare import JudgeError
from bench.questions.process import ProcessJudge
from bench.records import Judge, Question

ASKED = (Question(text="Is there a fox?"), Question(text="How many?", answer="two"))
COUNTED = "open(MARKS, 'a').write('started\\n')\n"


@contextmanager
def opened(judge: Judge) -> Iterator[ProcessJudge]:
    with closing(ProcessJudge(judge)) as found:
        yield found


def ask(judge: ProcessJudge) -> list[float]:
    return judge.ask(Path("fox.png"), "ab" * 32, "a fox", ASKED)


def refusal(judge: ProcessJudge) -> str:
    with pytest.raises(JudgeError) as caught:
        ask(judge)
    return str(caught.value)


def test_a_program_is_asked_in_one_line_and_its_answers_are_taken_in_order(tmp_path: Path) -> None:
    body = (
        "for line in sys.stdin:\n"
        "    open(MARKS, 'a').write(line)\n"
        "    say(id=json.loads(line)['id'], answers=[0, 0.75])\n"
    )
    with opened(program(tmp_path, body)) as judge:
        assert judge.identify() == "toy 1"
        assert ask(judge) == [0.0, 0.75]
        assert ask(judge) == [0.0, 0.75]

    first, second = map(json.loads, (tmp_path / "marks").read_text().splitlines())
    assert first == {
        "id": "1",
        "image": str(Path("fox.png").absolute()),
        "sha256": "ab" * 32,
        "prompt": "a fox",
        "questions": [
            {"question": "Is there a fox?", "answer": "yes", "choices": []},
            {"question": "How many?", "answer": "two", "choices": []},
        ],
    }
    assert second["id"] == "2"


def test_its_weights_are_part_of_who_it_is(tmp_path: Path) -> None:
    hello = HELLO.replace("weights_sha256=None", "weights_sha256='0123456789abcdef'")
    with opened(program(tmp_path, hello=hello)) as judge:
        assert judge.identify() == "toy 1 0123456789ab"


def test_one_that_dies_is_started_once_more_for_an_image_and_then_given_up_with_its_last_words(tmp_path: Path) -> None:
    body = COUNTED + "sys.stdin.readline()\nprint('no memory left', file=sys.stderr)\nsys.exit(3)\n"
    with opened(program(tmp_path, body)) as judge:
        assert refusal(judge) == "the judge toy: it ended with exit code 3; its last words: 'no memory left'"
        assert starts(tmp_path) == 2
        assert "no memory left" in refusal(judge)
        assert starts(tmp_path) == 4
        assert refusal(judge).startswith("the judge toy was given up: it ended with exit code 3")
        assert starts(tmp_path) == 4


def test_one_that_dies_on_one_image_only_goes_on_with_the_next(tmp_path: Path) -> None:
    body = (
        COUNTED + "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if 'poison' in asked['image']: sys.exit(1)\n"
        "    say(id=asked['id'], answers=[0.5, 0.5])\n"
    )
    with opened(program(tmp_path, body)) as judge:
        for _ in range(3):
            with pytest.raises(JudgeError, match="exit code 1"):
                judge.ask(Path("poison.png"), "", "", ASKED)
            assert ask(judge) == [0.5, 0.5]


def test_one_that_dies_once_answers_the_second_time(tmp_path: Path) -> None:
    body = COUNTED + (
        "if len(open(MARKS).readlines()) == 1: sys.exit(1)\n"
        "for line in sys.stdin: say(id=json.loads(line)['id'], answers=[1, 1])\n"
    )
    with opened(program(tmp_path, body)) as judge:
        assert ask(judge) == [1.0, 1.0]
    assert starts(tmp_path) == 2


def test_one_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    body = (
        "import subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(MARKS, 'a').write(f'{child.pid}\\n')\n"
        "time.sleep(600)\n"
    )
    with opened(program(tmp_path, body, timeout_s=0.15)) as judge:
        assert "it gave no answer within 1.5 s" in refusal(judge)
    for line in (tmp_path / "marks").read_text().splitlines():
        for _ in range(100):
            if not psutil.pid_exists(int(line)) or psutil.Process(int(line)).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.02)
        else:
            pytest.fail("a process that the judge started is still running")


def test_one_that_never_reads_a_long_request_is_killed_in_time(tmp_path: Path) -> None:
    long = tuple(Question(text=f"{number} {'a' * 1_900}?") for number in range(100))
    deaf = program(tmp_path, "import time\ntime.sleep(600)\n", timeout_s=0.15)
    with opened(deaf) as judge, pytest.raises(JudgeError, match=r"no answer within 1\.5 s"):
        judge.ask(Path("fox.png"), "ab" * 32, "a fox", long)


def test_a_long_request_arrives_whole(tmp_path: Path) -> None:
    long = tuple(Question(text=f"{number} {'a' * 1_900}?") for number in range(100))
    with opened(program(tmp_path)) as judge:
        assert judge.ask(Path("fox.png"), "ab" * 32, "a fox", long) == [0.25] * 100


def test_one_that_prints_prose_is_refused_with_its_words(tmp_path: Path) -> None:
    with opened(program(tmp_path, "for line in sys.stdin: print('The answer is yes.', flush=True)\n")) as judge:
        said = refusal(judge)
    assert "it printed 'The answer is yes.', which is not a line of the protocol" in said
    assert "belongs on its error stream" in said


def test_one_that_prints_when_it_is_imported_is_refused_when_it_starts(tmp_path: Path) -> None:
    judge = program(tmp_path, hello="print('Loading checkpoint shards: 100%')\n" + HELLO)
    with opened(judge) as found, pytest.raises(WeightsError) as caught:
        found.identify()
    assert "'Loading checkpoint shards: 100%'" in str(caught.value)
    assert "'toy' does not start" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1.7", "the judge gave 1.7 for question 2; a probability is a number from 0 to 1"),
        ("-0.1", "the judge gave -0.1 for question 2"),
        ("True", "the judge gave True for question 2"),
        ("None", "the judge gave None for question 2"),
        ("'yes'", "the judge gave 'yes' for question 2"),
        ("float('nan')", "not a line of the protocol"),
        ("float('inf')", "not a line of the protocol"),
    ],
)
def test_an_answer_that_is_no_probability_is_refused(tmp_path: Path, given: str, said: str) -> None:
    body = f"for line in sys.stdin: say(id=json.loads(line)['id'], answers=[0.5, {given}])\n"
    with opened(program(tmp_path, body)) as judge:
        assert said in refusal(judge)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("answers=[0.5]", "the judge gave [0.5], not 2 answers"),
        ("answers='yes'", "not 2 answers"),
        ("error='cannot read the image'", "the judge says: cannot read the image"),
        ("answers=[0, 0], hands=2", "unknown field 'hands'"),
    ],
)
def test_a_reply_without_an_answer_for_each_question_is_refused(tmp_path: Path, reply: str, said: str) -> None:
    body = COUNTED + f"for line in sys.stdin: say(id=json.loads(line)['id'], {reply})\n"
    with opened(program(tmp_path, body)) as judge:
        assert said in refusal(judge)
        refusal(judge)
        refusal(judge)
    assert starts(tmp_path) == 1  # it keeps to the protocol, so it is not started again


@pytest.mark.parametrize("reply", ["id='7', answers=[0, 0]", "answers=[0, 0]"])
def test_a_reply_to_something_else_is_refused(tmp_path: Path, reply: str) -> None:
    with opened(program(tmp_path, f"for line in sys.stdin: say({reply})\n")) as judge:
        assert "and was asked '1'" in refusal(judge)


def test_a_full_error_stream_stops_nobody(tmp_path: Path) -> None:
    body = (
        "for line in sys.stdin:\n"
        "    sys.stderr.write('x' * (1 << 20) + '\\n' + 'warning\\n' * 20000)\n"
        "    say(id=json.loads(line)['id'], answers=[0.5, 0.5])\n"
    )
    with opened(program(tmp_path, body)) as judge:
        assert ask(judge) == [0.5, 0.5]
        assert ask(judge) == [0.5, 0.5]


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    body = "sys.stdin.readline()\nwhile True: sys.stdout.write('x' * 65536)\n"
    with opened(program(tmp_path, body)) as judge:
        assert "longer than 1,048,576 bytes" in refusal(judge)


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ("import json\nprint(json.dumps({'judge': 'toy'}))\n", "its first line is to have judge, version"),
        ("print('[]')\n", "a line of the protocol is an object"),
        (HELLO.replace("protocol=1", "protocol=2"), "it speaks the protocol 2, not 1"),
        (HELLO.replace("'1'", "").replace('version="1"', "version=1"), "judge and version are to be texts"),
        ("", "it ended with exit code 0"),
        ("raise SystemExit('no model')\n", "it ended with exit code 1; its last words: 'no model'"),
    ],
)
def test_a_program_that_does_not_say_who_it_is_is_refused(tmp_path: Path, hello: str, said: str) -> None:
    with opened(program(tmp_path, "", hello=hello)) as judge, pytest.raises(WeightsError) as caught:
        judge.identify()
    assert said in str(caught.value)


def test_a_program_that_is_not_there_is_refused_with_its_name() -> None:
    with opened(Judge(name="toy", command=("/nowhere/judge",))) as judge, pytest.raises(WeightsError, match="nowhere"):
        judge.identify()


def test_a_program_ends_when_its_input_does(tmp_path: Path) -> None:
    body = (
        "open(MARKS, 'a').write(f'{os.getpid()}\\n')\n"
        + "for line in sys.stdin: pass\nopen(MARKS, 'a').write('ended\\n')\n"
    )
    with opened(program(tmp_path, body)) as judge:
        judge.identify()
        while not starts(tmp_path):
            time.sleep(0.01)
    assert (tmp_path / "marks").read_text().splitlines()[1:] == ["ended"]
    assert not psutil.pid_exists(int((tmp_path / "marks").read_text().splitlines()[0]))
