"""Help, version, exit at the edges of the process, and what is imported for it."""

import errno
import importlib
import inspect
import io
import os
import signal
import subprocess
import sys

import pytest

from bench.cli.app import LISTS, VOTE_VERBS, build
from bench.cli.app import VERBS as TABLE
from bench.stopping import SIGNALS

FIRST = ["quick", "init", "run", "render", "score", "measure", "report", "compare", "plot"]
VERBS = [
    *FIRST,
    "gate",
    "baseline",
    "steps",
    "sweep",
    "grid",
    "merge",
    "card",
    "history",
    "inspect",
    "plan",
    "calibrate",
    "fetch",
    "doctor",
]
VOTING = ["make", "serve", "add", "status"]
LISTED = ["suites", "variants", "metrics", "prompts"]
HEAVY = {"torch", "diffusers", "transformers", "peft", "open_clip", "pandas", "matplotlib", "torchmetrics"}


def launch(*arguments, env=None, **how):
    """A command in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **(env or {})},
        check=False,
        timeout=60,
        **how,
    )


def test_the_verbs_are_those_of_the_contract():
    top = build()
    assert top.list_commands(None) == [*VERBS, "vote", "ledger", "list"]
    assert top.get_command(None, "vote").list_commands(None) == VOTING
    assert top.get_command(None, "list").list_commands(None) == LISTED


@pytest.mark.parametrize(("target", "text"), [*TABLE.values(), *LISTS.values(), *VOTE_VERBS.values()])
def test_the_list_of_verbs_says_what_each_verb_says_first(target, text):
    if target:
        module, _, function = target.partition(":")
        said = inspect.getdoc(getattr(importlib.import_module(module), function))
        assert said.startswith(f"{text}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_verb_it_teaches(arguments, cli):
    answer = cli(*arguments)
    assert (answer.code, answer.err) == (0, "")
    assert "hotart-bench run\n" in answer.out
    assert all(f"\n  {verb} " in answer.out for verb in [*VERBS, "list"])
    assert all(f"\n    {code} " in answer.out for code in (0, 1, 2, 3, 4, 5, 6, 70, 130))


@pytest.mark.parametrize(
    "verb",
    [
        *([verb] for verb in [*VERBS, "ledger", "list"]),
        *(["list", what] for what in LISTED),
        ["ledger", "show"],
        ["ledger", "merge"],
    ],
    ids=" ".join,
)
def test_every_verb_has_its_purpose_and_examples(verb, cli):
    answer = cli(*verb, "--help")
    command = " ".join(["hotart-bench", *verb])
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: {command}")
    examples = answer.out.partition("Examples:")[2].split("\n")
    assert any(line.strip().startswith(command) for line in examples)
    assert max(map(len, answer.out.splitlines())) <= 80


def test_no_purpose_is_cut_short_in_the_list_of_verbs(cli):
    assert "..." not in cli("--help").out.partition("Commands:")[2]
    assert "..." not in cli("list", "--help").out.partition("Commands:")[2]


def test_version(cli):
    answer = cli("--version")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("hotart-bench ")


def test_what_needs_no_model_imports_none_of_the_heavy_packages(run_folder):
    code = (
        "import sys; from bench.cli import run_command_line as run; "
        "codes = {run(line.split()) for line in sys.argv[1:]}; "
        "print(*codes, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    lists = [f"list {what}" for what in LISTED]
    done = subprocess.run(
        [sys.executable, "-c", code, "--help", *lists, f"compare {run_folder}"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    exit_code, *imported = done.stderr.splitlines()[-1].split()
    assert exit_code == "0"
    assert HEAVY.isdisjoint(imported)


def test_a_table_in_20_columns_of_ascii_without_a_terminal(run_folder):
    done = launch("compare", run_folder, env={"COLUMNS": "20", "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "mini-aesthetic\n  reference: " in done.stdout
    assert "\\u2212" in done.stdout


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_reader_that_leaves_early_is_not_an_error(run_folder, form):
    command = [sys.executable, "-m", "bench", "compare", str(run_folder), "--format", form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_reader_that_leaves_the_help_early_is_not_an_error():
    command = [sys.executable, "-m", "bench", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


class FullDisk(io.StringIO):
    """A stdout whose disk has no room left; its file number is one that may be closed."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self):
        return self.number


def test_a_full_disk_behind_stdout(cli, run_folder, monkeypatch, tmp_path):
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", FullDisk(file.fileno()))
        answer = cli("compare", run_folder)
    assert answer.code == 6
    assert answer.err.startswith("hotart-bench: The disk is full")


WAITING = """
import time
import bench.cli.app
def wait():
    print("waiting", flush=True)
    time.sleep(60)
    return 0
bench.cli.app.parse = lambda arguments: wait
bench.cli.main()
"""


VERB_MODULES = {target.partition(":")[0] for target, _ in [*TABLE.values(), *LISTS.values()]} - {""}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list", "--help"], ["rnu"], ["--version"], ["--nothing"]], ids=" ".join
)
def test_help_and_a_misspelt_verb_import_no_verb(arguments):
    code = (
        "import sys; from bench.cli import run_command_line as run; run(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60)
    imported = set(done.stderr.splitlines()[-1].split())
    assert "bench.cli.app" in imported
    assert VERB_MODULES.isdisjoint(imported)
    assert HEAVY.isdisjoint(imported)


def test_no_verb_needs_torch_to_be_imported():
    code = f"import sys, {', '.join(sorted(VERB_MODULES))}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    imported = set(done.stdout.split())
    assert imported >= VERB_MODULES
    assert {"torch", "diffusers", "transformers", "peft", "open_clip", "pandas"}.isdisjoint(imported)


def interrupted(*arguments, **named):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("bench.cli.app.build", ["list", "suites"]),
        ("bench.cli.app.importlib.import_module", ["list", "suites"]),
        ("bench.cli.app.package_versions", ["--version"]),
        ("bench.cli.lists.shipped_suites", ["list", "suites"]),
    ],
    ids=["before the arguments are read", "importing the verb", "reading an argument", "in the verb"],
)
def test_an_interrupt_ends_with_130_wherever_it_comes(where, arguments, cli, monkeypatch):
    assert cli(*arguments).code == 0
    monkeypatch.setattr(where, interrupted)
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.startswith("hotart-bench: Stopped.")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_ctrl_c_kill_and_a_closed_terminal_end_with_130_and_a_sentence(number):
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"waiting"
        process.send_signal(number)
        told = process.stderr.read().decode()
    assert process.returncode == 130
    assert told.startswith("hotart-bench: Stopped. What was finished is kept; the same command continues")
    assert len(told.splitlines()) == 1


def ended(code, number=signal.SIGTERM, times=1, closed=""):
    """How a process of this code ended that got a signal each time it said that it waits."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(times):
            assert process.stdout.readline().strip() == "waiting"
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


VERB = """
import time, bench.cli, bench.cli.app
def wait():
    print("waiting", flush=True)
    time.sleep(60)
def verb():
{body}
bench.cli.app.parse = lambda arguments: verb
bench.cli.main()
"""
SWALLOWED = {
    "by a library": ("    try: wait()\n    except BaseException: pass\n    return 0", 1),
    "as an error of its own": ("    try: wait()\n    except BaseException: raise ImportError('half a module')", 1),
    "as an exit": ("    try: wait()\n    except BaseException: raise SystemExit(0)", 1),
    "by a finalizer": ("    class Held:\n        def __del__(self): wait()\n    Held()\n    return 0", 1),
    "while another is answered": ("    try: wait()\n    finally: wait()", 2),
}


@pytest.mark.parametrize("kind", SWALLOWED)
def test_no_signal_to_stop_is_lost_and_none_shows_a_traceback(kind):
    body, times = SWALLOWED[kind]
    code, _, err = ended(VERB.format(body=body), times=times)
    assert code == 130
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert err.startswith("hotart-bench: Stopped.") or times == 2


def test_a_signal_after_the_end_changes_nothing_of_it():
    late = "import atexit\n@atexit.register\ndef late(): wait()\n" + VERB.format(body="    return 5")
    assert ended(late) == (5, "", "")


def test_a_signal_before_the_command_line_is_imported_ends_with_130_and_a_sentence():
    code = "import sys, time, bench.machine, bench.__main__ as entry\ndef wait():\n    print('waiting', flush=True)\n"
    code += "    time.sleep(60)\nbench.machine.spare_collector = wait\nentry.main()"
    assert ended(code) == (130, "", "hotart-bench: Stopped before it began. Nothing was changed.\n")


def test_a_signal_that_was_ignored_stays_so():
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + VERB.format(
        body="    import os\n    os.kill(os.getpid(), signal.SIGHUP)\n    return 0"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_verb_that_does_not_say_that_it_is_done_does_not_end_well(cli, monkeypatch):
    monkeypatch.setattr("bench.cli.app.parse", lambda arguments: lambda: None)
    answer = cli("list")
    assert answer.code == 70
    assert "does not say how it ended" in answer.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_streams_that_take_nothing_change_no_error(closed):
    command = ["sh", "-c", f'exec "$0" -m bench "$@" {closed}', sys.executable, "compare", "gone"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 2


def test_what_is_opened_is_never_taken_for_a_closed_stdout(run_folder, tmp_path):
    command = ["sh", "-c", 'exec "$0" -m bench "$@" >&-', sys.executable, "plot", str(run_folder), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_no_python_that_is_started_takes_modules_from_the_working_directory(tmp_path):
    (tmp_path / "signal.py").write_text("raise SystemExit('a forged signal.py')")
    code = (
        "import os, subprocess, sys\nos.environ.pop('PYTHONSAFEPATH', None)\nimport bench.cli\nimport bench.__main__\n"
    )
    code += "bench.cli.main = lambda: sys.exit(subprocess.run([sys.executable, '-c', 'import signal']).returncode)\n"
    code += "bench.__main__.main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
