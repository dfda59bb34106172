"""Pipes, sockets, devices, folders, links to themselves and huge files where a file is read: a sentence, at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from fakes import png_bytes
from fuzz.trial import bounded_memory
from gate_runs import make_folder
from suites import write_suite

from bench.baseline import freeze, write_baseline
from bench.formatting import NONE
from bench.mini.weights import pipeline_folder
from bench.records import Acceptance
from bench.report.facts import elapsed, when
from bench.store import load_run

SECONDS = 10


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(before)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    path.touch()  # holes, which take no room; a file of weights is mapped, which counts as memory here
    os.truncate(path, 2**30 if path.suffix == ".safetensors" else 10 * 2**30)


ODD: dict[str, Callable[[Path], None]] = {one.__name__: one for one in (pipe, endless, listening, loop, folder, huge)}


@pytest.fixture
def place(home):
    """A working directory with one good file of each kind."""
    write_suite(home, '"mini:spo"', '"own.safetensors"')
    tiny.write_lora(home / "own.safetensors", 1)
    shutil.copytree(pipeline_folder(), home / "model")
    (home / "recipe.toml").write_text('schema = 1\nmethod = "copy"\nmodels = ["random:tiny"]\n', encoding="utf-8")
    (home / "images").mkdir()
    (home / "images" / "1.png").write_bytes(png_bytes("base", "fox", 0, 0))
    (home / "table.csv").write_text("image,prompt\n1.png,a fox\n", encoding="utf-8")
    for name, seed in (("old", 0), ("new", 1)):
        make_folder(home / name, prompts=4, samples=1, seed=seed)
    accepted = Acceptance(by="Ada", time="2025-01-01T00:00:00+00:00")
    write_baseline(freeze(load_run(home / "old"), acceptance=accepted), home / "baseline.json")
    return home


GATE = ("gate", "new", "--baseline", "baseline.json")
SCORE = ("score", "--images", "images", "--prompts", "table.csv", "-o", "out", "--metrics", "saturation")
READ = {
    # what is read: the command that reads it
    "own.toml": ("list", "variants", "own.toml"),
    "own.jsonl": ("list", "variants", "own.toml"),
    "own.safetensors": ("inspect", "own.safetensors"),
    "model/model_index.json": ("inspect", "model"),
    "model/unet/config.json": ("inspect", "model"),
    "model/scheduler/scheduler_config.json": ("inspect", "model"),
    "model/unet/diffusion_pytorch_model.safetensors": ("inspect", "model"),
    "recipe.toml": ("merge", "recipe.toml", "-o", "out.safetensors"),
    "images/1.png": SCORE,
    "table.csv": SCORE,
    "images": SCORE,
    "baseline.json": GATE,
    "new/run.json": GATE,
    "new/renders.jsonl": GATE,
    "new/scores.jsonl": GATE,
    "new/timings.jsonl": ("report", "new"),
    "new/gate.json": ("report", "new"),
}


def in_time(cli, arguments):
    """What a command answers, if it does within ``SECONDS`` and in bounded memory."""

    def stop(number, frame):
        raise BaseException(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with bounded_memory():
            return cli(*arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_plain_file_is_refused_in_a_sentence(odd, name, place, cli):
    path = place / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    ODD[odd](path)
    answer = in_time(cli, READ[name])
    assert "Traceback" not in answer.err
    if (odd, name) == ("folder", "images"):
        assert "there is no image '1.png' in images" in answer.err
    assert answer.code in (2, 3, 5, 6), answer
    last = [line for line in answer.err.splitlines() if line.startswith("hotart-bench: ")]
    assert len(last) == 1, answer.err
    said = Path(name).parent if Path(name).parent.name == "unet" and odd != "huge" else Path(name)
    assert said.name in last[0], answer.err


WRITTEN = {
    # what is written: the command that writes it
    "gate.out": (*GATE, "--json", "gate.out"),
    "gate.xml": (*GATE, "--junit", "gate.xml"),
    "gate.md": (*GATE, "--summary", "gate.md"),
    "frozen.json": ("baseline", "new", "-o", "frozen.json", "--by", "Ada"),
    "merged.safetensors": ("merge", "recipe.toml", "-o", "merged.safetensors"),
    "drawn": ("plot", "new", "-o", "drawn"),
    "out": SCORE,
    "new/plots": ("report", "new"),
    "new/.lock": ("score", "new", "--metrics", "saturation"),
    "new/report.html": ("report", "new"),
}
"""Of ``folder`` and the like the place is; what stands there is replaced whole, or left and named."""


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("odd", ["pipe", "endless", "listening", "loop", "folder"])
def test_a_place_for_output_that_is_taken_is_replaced_or_named(odd, name, place, cli, blank_plots):
    path = place / name
    ODD[odd](path)
    answer = in_time(cli, WRITTEN[name])
    assert "Traceback" not in answer.err
    assert answer.code in (0, 1, 2, 5, 6), answer
    said = [line for line in answer.err.splitlines() if line.startswith("hotart-bench: ")]
    if answer.code in (2, 6):
        assert path.name in said[0], answer.err
    assert stat.S_ISCHR(Path("/dev/zero").stat().st_mode)


def test_the_lock_of_a_folder_from_elsewhere_overwrites_nothing(place, cli):
    (place / "mine.txt").write_text("precious", encoding="utf-8")
    (place / "new" / ".lock").symlink_to("../mine.txt")
    answer = cli("score", "new", "--metrics", "saturation")
    assert answer.code == 6
    assert ".lock: cannot be opened for writing: it is a link" in answer.err
    assert (place / "mine.txt").read_text("utf-8") == "precious"


def test_a_file_that_may_not_be_read_is_named(place, cli, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)  # tests may run as root, who may read all
    for name in ("own.toml", "baseline.json", "new/scores.jsonl"):
        command = READ[name]
        answer = cli(*command)
        assert answer.code in (2, 6), answer
        assert f"{name}: cannot be read: Permission denied." in answer.err


OPENERS = {
    # what opens files by itself: why it may
    "bench/documents.py": "it is the one that the others go through",
    "bench/machine.py": "/proc/cpuinfo",
    "bench/measure/meters.py": "/proc/self/status",
    "bench/checkpoints/families.py": "shapes that come with the package",
    "bench/checkpoints/scheduler.py": "a table of schedulers that comes with the package",
    "bench/suite/tokens.py": "a vocabulary that comes with a package",
    "bench/suite/training_prompts.py": "a list that comes with the package",
    "bench/report/__init__.py": "templates that come with the package",
    "bench/votes/page.py": "templates that come with the package",
    "bench/plots/sheet.py": "a font that comes with a package",
    "bench/mini/weights.py": "the manifest that comes with the package",
    "bench/store/object_store.py": "the working folder that this program fills",
    "bench/lora/parse.py": "one number of a file whose header was read",
    "bench/published_files.py": "files of weights that were found to be plain",
    "bench/metrics/safety.py": "a file of weights whose hash was checked",
}


def test_whatever_is_read_from_elsewhere_is_opened_by_one_function():
    root = Path(__file__).parents[1]
    reads = re.compile(r"(?<!documents)\.read_(?:text|bytes)\(|\bopen\([^)]*[\"']r?b[\"']|json\.load\(|np\.fromfile\(")
    found = {
        path.relative_to(root).as_posix()
        for path in (root / "bench").rglob("*.py")
        if "mini/train" not in path.as_posix() and reads.search(path.read_text("utf-8"))
    }
    assert found - OPENERS.keys() == set(), "read with documents.read_bytes or open_plain, or say here why not"


@pytest.mark.parametrize("odd", ["yesterday", "2025-01-02T04:04:05+-01:00", "", "2025-02-30T00:00:00"])
def test_a_time_that_is_none_is_shown_as_it_stands(odd):
    assert when(odd) == odd
    assert elapsed(odd, "2025-01-02T03:04:05+00:00") == NONE
    assert elapsed("2025-01-02T03:04:05", "2025-01-02T03:06:45+00:00") == "2 min 40 s"
