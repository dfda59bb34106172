"""A judge that is an OpenAI-compatible server: what it is asked, what is read off its answer, and what goes wrong."""

from __future__ import annotations

import base64
import itertools
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judges import Reply, serving, tops

from bench.errors import UsageError
from bench.metrics.declare import JudgeError
from bench.questions import endpoint
from bench.questions.endpoint import EndpointJudge, is_local, probability_of
from bench.records import Judge, Question

FOX = Question(text="Is there a fox?")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "fox.png"
    file.write_bytes(b"the bytes of a PNG")
    return file


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.0)


def judge_at(url: str, **fields: Any) -> EndpointJudge:
    return EndpointJudge(Judge(name="far", endpoint=url, model="qwen", **fields), allow_remote=False)


def refusal(reply: Reply, image: Path, **fields: Any) -> tuple[str, int]:
    """Why a server's answer was refused, and how often it was asked."""
    with serving(reply) as server:
        with pytest.raises(JudgeError) as caught:
            judge_at(server.url, **fields).ask(image, "", "", [FOX])
        return str(caught.value), len(server.bodies)


def test_each_question_is_one_request_with_the_image_and_without_what_moves_probabilities(image: Path) -> None:
    with serving(lambda body: (200, tops(Yes=math.log(0.75), No=math.log(0.25)))) as server:
        count = Question(text="How many foxes?", answer="two")
        assert judge_at(server.url).ask(image, "", "a fox", [FOX, FOX, FOX]) == pytest.approx([0.75] * 3)
        with pytest.raises(JudgeError, match="two or 2 is not among the 2 most probable"):
            judge_at(server.url).ask(image, "", "a fox", [count])
    first, last = server.bodies[0], server.bodies[3]
    picture, text = first["messages"][0]["content"]
    assert picture["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
    assert text["text"] == "Is there a fox? Answer in one word."
    assert last["messages"][0]["content"][1]["text"] == "How many foxes? Answer in one word."
    asked = {name: first[name] for name in first if name != "messages"}
    assert asked == {
        "model": "qwen",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "repetition_penalty": 1.0,
    }
    assert "Authorization" not in server.headers[0]


def test_every_spelling_of_the_answer_counts_and_no_other_token(image: Path) -> None:
    reply = tops(**{"Yes": math.log(0.5), " yes": math.log(0.2), "YES": math.log(0.1), "Yes,": math.log(0.1)})
    assert probability_of(reply, ("yes",)) == pytest.approx(0.8)
    numbers = tops(**{"three": math.log(0.25), "3": math.log(0.5), "13": math.log(0.125)})
    assert probability_of(numbers, ("three", "3")) == pytest.approx(0.75)


def test_a_choice_is_asked_and_answered_by_its_letter(image: Path) -> None:
    with serving(lambda body: (200, tops(B=math.log(0.875), A=math.log(0.125)))) as server:
        colour = Question(text="Which colour?", answer="blue", choices=("red", "blue"))
        assert judge_at(server.url).ask(image, "", "", [colour]) == pytest.approx([0.875])
    text = server.bodies[0]["messages"][0]["content"][1]["text"]
    assert text == "Which colour?\nA. red\nB. blue\nAnswer with the letter of one of these."


def test_an_answer_outside_the_most_probable_is_taken_for_their_smallest_where_that_is_small() -> None:
    assert probability_of(tops(No=math.log(0.999), Maybe=math.log(1e-6)), ("yes",)) == pytest.approx(1e-6)
    with pytest.raises(JudgeError, match=r"may be up to 0\.3"):
        probability_of(tops(No=math.log(0.7), Maybe=math.log(0.3)), ("yes",))


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=20), st.integers(0, 20))
def test_a_probability_is_never_outside_0_to_1(logprobs: list[float], wanted: int) -> None:
    tokens = {f"{'yes' if index < wanted else 'no'}{' ' * index}": one for index, one in enumerate(logprobs)}
    try:
        assert 0 <= probability_of(tops(**tokens), ("yes",)) <= 1
    except JudgeError:
        assert wanted == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes, there is a fox.", "is not valid JSON"),
        ({"choices": []}, "no top_logprobs"),
        ({"choices": [{"message": {"content": "yes"}, "logprobs": None}]}, "no top_logprobs"),
        (tops(Yes=1.7), "a log probability is 0 or less"),
        ('{"choices":[{"logprobs":{"content":[{"top_logprobs":[{"token":"Yes","logprob":NaN}]}]}}]}', "0 or less"),
        ({"choices": [{"logprobs": {"content": [{"top_logprobs": []}]}}]}, "0 or less"),
    ],
)
def test_an_answer_without_probabilities_is_refused_at_once(image: Path, answer: Any, said: str) -> None:
    why, asked = refusal(lambda body: (200, answer), image)
    assert said in why
    assert asked == 1


def test_an_error_that_may_pass_is_tried_three_times(image: Path) -> None:
    why, asked = refusal(lambda body: (500, "CUDA error"), image)
    assert (why, asked) == ("the endpoint answers 500: CUDA error", 3)
    statuses = itertools.chain((503, 429), itertools.repeat(200))
    with serving(lambda body: (next(statuses), tops(Yes=0.0))) as server:
        assert judge_at(server.url).ask(image, "", "", [FOX]) == [1.0]
    assert len(server.bodies) == 3


def test_after_three_images_in_a_row_nothing_is_asked_any_more(image: Path) -> None:
    with serving(lambda body: (500, "broken")) as server:
        judge = judge_at(server.url)
        for _ in range(5):
            with pytest.raises(JudgeError):
                judge.ask(image, "", "", [FOX])
    assert len(server.bodies) == 9


def test_a_wrong_key_is_not_tried_again_and_never_repeated(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-1234")
    with serving(lambda body: (401, "the key sk-secret-1234 is not valid")) as server:
        judge = judge_at(server.url, key="JUDGE_KEY")
        said = []
        for _ in range(2):
            with pytest.raises(JudgeError) as caught:
                judge.ask(image, "", "", [FOX])
            said.append(str(caught.value))
    assert len(server.bodies) == 1
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-1234"
    assert said[0] == "the endpoint answers 401: the key [key] is not valid"
    assert "sk-secret" not in said[1]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, "x" * 195 + "sk-secret-1234"),
        (500, "x" * 195 + "sk-secret-1234"),
        (200, tops(**{"sk-secret-1234": 5.0})),
        (200, "sk-secret-1234"),
    ],
)
def test_a_key_that_a_server_repeats_is_in_no_sentence_not_even_a_part_of_it(
    image: Path, monkeypatch: pytest.MonkeyPatch, status: int, answer: Any
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-1234")
    why, _ = refusal(lambda body: (status, answer), image, key="JUDGE_KEY")
    assert "sk-s" not in why


def test_the_time_limit_is_of_an_image_whatever_drips_and_however_many_questions(image: Path) -> None:
    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.15)
        return 200, tops(Yes=0.0)

    with serving(slow) as server, pytest.raises(JudgeError, match=r"within 0\.4 s"):
        judge_at(server.url, timeout_s=0.4).ask(image, "", "", [FOX] * 6)
    assert 1 < len(server.bodies) < 6


def test_a_key_that_is_not_set_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UsageError, match="JUDGE_KEY is not set"):
        judge_at("http://127.0.0.1:9/v1", key="JUDGE_KEY")


def test_a_server_that_is_gone_is_told(image: Path) -> None:
    with serving(lambda body: (200, {})) as server:
        url = server.url
    with pytest.raises(JudgeError, match="the endpoint gives no answer"):
        judge_at(url).ask(image, "", "", [FOX])


def test_a_server_that_hangs_is_told(image: Path) -> None:
    release = threading.Event()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        release.wait(5)
        return 200, {}

    with serving(reply) as server:
        with pytest.raises(JudgeError, match=r"no answers about an image within 0\.05 s"):
            judge_at(server.url, timeout_s=0.05).ask(image, "", "", [FOX])
        release.set()


def test_a_redirect_is_not_followed_since_it_could_lead_anywhere(image: Path) -> None:
    why, asked = refusal(lambda body: (302, "elsewhere"), image)
    assert "the endpoint answers 302" in why
    assert asked == 1


def test_another_machine_is_refused_without_leave() -> None:
    far = Judge(name="far", endpoint="https://judge.example/v1", model="qwen")
    with pytest.raises(UsageError, match=r"judge\.example, which is not this machine") as caught:
        EndpointJudge(far, allow_remote=False)
    assert "--allow-remote" in caught.value.hint
    assert EndpointJudge(far, allow_remote=True).identify() == "qwen"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.8.9.10", "localhost:1", "[::1]:8000"])
def test_addresses_of_this_machine_need_no_leave(host: str) -> None:
    assert is_local(f"http://{host}/v1")


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "0.0.0.0", "192.168.1.2:8000", "localhost.example", "127.0.0.1.example", "[fe80::1]", "2130706433"],
)
def test_other_addresses_do(host: str) -> None:
    assert not is_local(f"http://{host}/v1")


def test_a_proxy_of_the_environment_gets_nothing_of_this_machine(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body: (500, "proxy")) as proxy, serving(lambda body: (200, tops(Yes=0.0))) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert judge_at(server.url).ask(image, "", "", [FOX]) == [1.0]
    assert proxy.bodies == []
