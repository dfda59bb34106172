"""The parent's side of one child: what it makes of replies, errors, deaths, garbage and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest

from bench.errors import HotartError, IncomparableError, InvalidError, MachineError, UsageError, WeightsError
from bench.measure import process as children
from bench.measure.process import Failure, Ready, Reply, Request, child_environment, encode, run_child, start_children
from bench.measure.stopwatch import Shot
from bench.records import Settings, Variant

REQUEST = Request(
    variant=Variant(name="spo", checkpoint="mini"),
    settings=Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim"),
    device="cpu",
    weights_dir=None,
    round=0,
    warmups=0,
    shots=(Shot(prompt="x" * 200_000, negative="", seed=1),),  # more than a pipe holds
)
REPLY = Reply(timings=(), threads=2, notes=())


def make_child(folder: Path, body: str) -> list[str]:
    """A command that runs ``body`` after reading its request as ``request``."""
    script = folder / "child.py"
    start = "import json, os, signal, subprocess, sys, time\nrequest = json.loads(sys.stdin.readline())\n"
    script.write_text(start + textwrap.dedent(body))
    return [sys.executable, str(script)]


def run_one(command: Sequence[str], request: Request, on_image: Callable[[int], None]) -> Reply:
    """Start a child, and give it its turn."""
    with start_children(command, [request]) as (child,):
        return run_child(child, on_image)


def say(*messages: int | Ready | Reply | Failure) -> str:
    """The body of a child that sends ``messages``."""
    return "".join(f"sys.stdout.buffer.write({encode(message)!r})\n" for message in messages)


def test_the_child_gets_the_request_and_its_reply_comes_back(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    ticks: list[int] = []
    body = f"open({str(seen)!r}, 'w').write(json.dumps(request))\n" + say(1, 2, REPLY)
    assert run_one(make_child(tmp_path, body), REQUEST, ticks.append) == REPLY
    assert ticks == [1, 2]
    assert json.loads(seen.read_text())["shots"][0]["prompt"] == "x" * 200_000


def test_each_child_compiles_into_an_empty_cache_of_its_own(tmp_path: Path) -> None:
    seen = tmp_path / "seen.txt"
    body = f"""
        cache = os.environ["TORCHINDUCTOR_CACHE_DIR"]
        assert os.listdir(cache) == []
        open(os.path.join(cache, "kernel"), "w").close()
        open({str(seen)!r}, "a").write(cache + "\\n")
    """
    command = make_child(tmp_path, textwrap.dedent(body) + say(REPLY))
    for _ in range(2):
        run_one(command, REQUEST, lambda done: None)
    first, second = seen.read_text().splitlines()
    assert first != second
    assert not Path(first).exists()


def test_what_the_child_writes_to_stderr_does_not_block_it(tmp_path: Path) -> None:
    body = "sys.stderr.write('w' * 1_000_000)\n" + say(REPLY)
    assert run_one(make_child(tmp_path, body), REQUEST, lambda done: None) == REPLY


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2, UsageError),
        (3, WeightsError),
        (4, IncomparableError),
        (5, InvalidError),
        (6, MachineError),
        (70, HotartError),
    ],
)
def test_a_failure_is_raised_as_the_class_of_its_exit_code(tmp_path: Path, code: int, kind: type[HotartError]) -> None:
    child = make_child(tmp_path, say(Failure(exit_code=code, message="it is torn", hint="fetch it")))
    with pytest.raises(HotartError) as caught:
        run_one(child, REQUEST, lambda done: None)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("it is torn", "fetch it")


def test_a_killed_child_is_the_machines_error_with_its_last_words(tmp_path: Path) -> None:
    body = """
        for number in range(9):
            print("line", number, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with pytest.raises(MachineError, match="SIGKILL, most often because memory ran out") as caught:
        run_one(make_child(tmp_path, body), REQUEST, lambda done: None)
    assert "of spo, round 1," in caught.value.message
    assert "line 4\nline 5\nline 6\nline 7\nline 8" in caught.value.message
    assert "line 3" not in caught.value.message
    assert caught.value.hint


def test_a_crashed_child_is_named_by_its_signal(tmp_path: Path) -> None:
    child = make_child(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(MachineError, match=r"was ended by SIGSEGV\.$"):
        run_one(child, REQUEST, lambda done: None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('a bug')", "exit code 1 and no reply.*ValueError: a bug"),
        ("", r"exit code 0 and no reply\.$"),
        ("print('hello')", "not a message: b'hello"),
        ("print('{}')", "not a message"),
        (
            "sys.stdout.buffer.write(b'\\xff\\x00' * 5000 + b'\\n'); sys.stdout.flush(); time.sleep(600)",
            "not a message",
        ),
        (say(1) + 'sys.stdout.write(\'{"type": "Reply"\')', "not a message"),
    ],
    ids=["traceback", "nothing", "text", "empty object", "bytes, then hangs", "torn reply"],
)
def test_any_other_end_is_an_internal_error(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(HotartError, match=rf"(?s){message}") as caught:
        run_one(make_child(tmp_path, body), REQUEST, lambda done: None)
    assert type(caught.value) is HotartError
    assert len(caught.value.message) < 1000


def test_a_child_that_never_reads_its_request_is_told_by_its_exit() -> None:
    with pytest.raises(HotartError, match="exit code 0 and no reply"):
        run_one([sys.executable, "-c", ""], REQUEST, lambda done: None)


def test_ctrl_c_ends_the_child_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = f"""
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open({str(pids)!r} + ".part", "w").write(f"{{os.getpid()}} {{helper.pid}}")
        os.rename({str(pids)!r} + ".part", {str(pids)!r})
        time.sleep(600)
    """

    def press() -> None:
        while not pids.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_one(make_child(tmp_path, body), REQUEST, lambda done: None)
    deadline = time.monotonic() + 10
    for pid in map(int, pids.read_text().split()):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} outlived Ctrl-C"
            time.sleep(0.01)


def test_the_child_runs_the_package_that_runs_here(tmp_path: Path) -> None:
    decoy = tmp_path / "bench"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise RuntimeError('the wrong bench')")
    found = subprocess.run(
        [sys.executable, "-P", "-c", "import bench.measure.process as ours; print(ours.__file__)"],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()).resolve() == Path(children.__file__).resolve()


def test_an_installed_package_is_not_put_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = str(Path(children.__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(children.site, "getsitepackages", lambda: [])
    assert child_environment()["PYTHONPATH"].split(os.pathsep) == [home, "mine"]
    monkeypatch.setattr(children.site, "getsitepackages", lambda: [home])
    assert child_environment()["PYTHONPATH"] == "mine"


def test_no_turn_begins_before_all_are_ready_and_one_comes_after_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = f"""
        number = request["round"]
        def note(what):
            with open({str(log)!r}, "a") as file:
                file.write(f"{{what}} {{number}}\\n")
        time.sleep(0.3 * (number == 1))
        note("ready")
        sys.stdout.buffer.write({encode(Ready())!r})
        sys.stdout.flush()
        sys.stdin.readline()
        note("begins")
        time.sleep(0.1)
        note("ends")
        sys.stdout.buffer.write({encode(REPLY)!r})
    """
    requests = [msgspec.structs.replace(REQUEST, round=number) for number in range(3)]
    with start_children(make_child(tmp_path, body), requests) as started:
        for child in started:
            assert run_child(child, lambda done: None) == REPLY
    lines = log.read_text().splitlines()
    assert sorted(lines[:3]) == ["ready 0", "ready 1", "ready 2"]
    assert lines[3:] == [f"{what} {number}" for number in range(3) for what in ("begins", "ends")]


def test_one_that_dies_before_its_turn_is_told_then_and_costs_no_other(tmp_path: Path) -> None:
    body = f"if request['round'] == 1: sys.exit('no such library')\nsys.stdout.buffer.write({encode(Ready())!r})\n"
    body += "sys.stdout.flush()\nsys.stdin.readline()\n" + say(REPLY)
    requests = [msgspec.structs.replace(REQUEST, round=number) for number in range(2)]
    with start_children(make_child(tmp_path, body), requests) as (first, second):
        assert run_child(first, lambda done: None) == REPLY
        with pytest.raises(HotartError, match=r"round 2, ended with exit code 1(?s:.*)no such library"):
            run_child(second, lambda done: None)


def test_those_that_still_wait_end_with_the_block(tmp_path: Path) -> None:
    body = say(Ready()) + "sys.stdout.flush()\ntime.sleep(600)"
    with pytest.raises(ZeroDivisionError), start_children(make_child(tmp_path, body), [REQUEST] * 2) as started:
        raise ZeroDivisionError
    assert [child.process.returncode for child in started] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(("free_gib", "cores", "expected"), [(64, 4, 4), (64, 1, 1), (9, 8, 2), (3, 8, 1)])
def test_as_many_start_together_as_cores_and_a_quarter_of_the_free_memory_allow(
    monkeypatch: pytest.MonkeyPatch, free_gib: int, cores: int, expected: int
) -> None:
    monkeypatch.setattr(children, "usable_cores", lambda: cores)
    monkeypatch.setattr(children.psutil, "virtual_memory", lambda: SimpleNamespace(available=free_gib * 2**30))
    assert children.children_at_once() == expected
