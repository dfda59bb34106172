"""``[judges.NAME]`` in a suite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites import METRICS, write_suite

from bench.errors import SuiteError
from bench.records import Judge
from bench.suite import load_suite, protocol_digest


def suite_with(folder: Path, table: str) -> Path:
    return write_suite(folder, "[limits]", f"{table}\n\n[limits]")


def test_a_judge_is_a_program_an_endpoint_or_a_model(tmp_path: Path) -> None:
    (tmp_path / "judge.py").touch()
    (tmp_path / "qwen").mkdir()
    suite = load_suite(
        str(
            suite_with(
                tmp_path,
                '[judges.own]\ncommand = ["python", "judge.py", "--fast"]\ntimeout_s = 30\n'
                '[judges.served]\nendpoint = "http://127.0.0.1:8000/v1"\nmodel = "qwen"\nversion = "r2"\n'
                'key = "JUDGE_KEY"\n'
                '[judges.local]\nvlm = "qwen"\n[judges.hub]\nvlm = "Qwen/Qwen3-VL-8B-Instruct@main"',
            )
        )
    )
    assert suite.judges == (
        Judge(name="own", command=("python", str(tmp_path / "judge.py"), "--fast"), timeout_s=30.0),
        Judge(name="served", endpoint="http://127.0.0.1:8000/v1", model="qwen", version="r2", key="JUDGE_KEY"),
        Judge(name="local", vlm=str(tmp_path / "qwen")),
        Judge(name="hub", vlm="Qwen/Qwen3-VL-8B-Instruct@main"),
    )
    assert protocol_digest(suite) == protocol_digest(load_suite(str(write_suite(tmp_path))))


def test_its_metrics_are_known_by_its_name(tmp_path: Path) -> None:
    path = suite_with(tmp_path, '[judges.own]\ncommand = ["judge"]')
    text = path.read_text().replace('"saturation"]', '"soft-tifa-am-own"]')
    path.write_text(text.replace("[limits]\n", '[limits]\nsoft-tifa-am-own = "0.05"\n'))
    suite = load_suite(str(path), known_metrics=METRICS)
    assert suite.metrics == ("mini-aesthetic", "soft-tifa-am-own")
    assert suite.limits[0].name == "soft-tifa-am-own"
    path.write_text(path.read_text().replace("soft-tifa-am-own", "soft-tifa-am-won"))
    with pytest.raises(SuiteError, match="did you mean 'soft-tifa-am-own'"):
        load_suite(str(path), known_metrics=METRICS)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[judges.own]", "judges.own has none of command, endpoint, vlm; it needs one"),
        ('[judges.own]\ncommand = ["a"]\nvlm = "b"', "judges.own has command and vlm of"),
        ("[judges.own]\ncommand = []", "judges.own.command is empty"),
        ('[judges.own]\ncommand = "judge"', "judges.own: command: expected `array`"),
        ('[judges.own]\ncomand = ["a"]', "unknown field judges.own.comand (did you mean 'command'?)"),
        ('[judges.own]\nendpoint = "http://127.0.0.1/v1"', "judges.own.model is empty or missing"),
        ('[judges.own]\nendpoint = "127.0.0.1:8000"\nmodel = "a"', "write an address such as"),
        ('[judges.own]\nendpoint = "file:///etc/passwd"\nmodel = "a"', "write an address such as"),
        ('[judges.own]\nendpoint = "http://me:pw@127.0.0.1/v1"\nmodel = "a"', "holds a user, a password"),
        ('[judges.own]\ncommand = ["a"]\nmodel = "b"', "judges.own.model goes with an endpoint, not with command"),
        ('[judges.own]\nendpoint = "http://[::1/v1"\nmodel = "a"', "is no address, such as"),
        ('[judges.own]\nendpoint = "http://127.0.0.1:99999/v1"\nmodel = "a"', "is no address, such as"),
        ('[judges.own]\nendpoint = "http://127.0.0.1/v1#x"\nmodel = "a"', "a query or a fragment"),
        ('[judges.own]\nvlm = "a/b"\ntimeout_s = 5', "a vlm has no time limit"),
        ('[judges.own]\ncommand = ["a"]\ntimeout_s = 0', "timeout_s"),
        ('[judges.own]\ncommand = ["a"]\ntimeout_s = nan', "timeout_s"),
        ('[judges.mini]\ncommand = ["a"]', "is the embedded family's own"),
        ('[judges."My Judge"]\ncommand = ["a"]', "has lower-case letters"),
        ('[judges]\nown = "a"', "judges.own is 'a'; a judge is a table"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(str(suite_with(tmp_path, table)))
    assert said.replace("`", "") in str(caught.value).replace("`", "")


@pytest.mark.parametrize("key", ["sk-proj-0123456789", "Bearer abc", "lower"])
def test_a_key_in_a_suite_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    table = f'[judges.own]\nendpoint = "http://127.0.0.1:1/v1"\nmodel = "a"\nkey = "{key}"'
    with pytest.raises(SuiteError, match="not the name of an environment variable") as caught:
        load_suite(str(suite_with(tmp_path, table)))
    assert key not in str(caught.value) + caught.value.hint
