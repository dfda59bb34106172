"""The contributor's guide, as sessions. ``nox -l`` lists them, ``nox -s NAME`` runs one, ``nox`` the usual.

Every session installs what it needs into an environment of its own, so a fresh clone and ``pip install nox``
are enough. What a session takes after ``--`` goes to its program: ``nox -s tests -- -k seeds``.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "light", "docs"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

HEAVY = {"diffusers", "open_clip_torch", "timm", "torch", "torchmetrics", "torchvision", "transformers"}
"""What only rendering, scoring and measuring need: the packages that are torch or bring it along."""


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests against the installed package: what you change, you run this on.

    Tests mirror ``bench/``: ``bench/frames.py`` is tested by ``tests/test_frames.py``, a room of several files by
    ``tests/test_<room>*.py`` or in a folder of its name. They need no network and no GPU, and Chromium with its driver
    for the report. Warnings are errors; nothing is skipped.
    """
    session.install(".[test]")
    session.run("pytest", *(session.posargs or ["-n", "logical"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout; ``ruff check --fix .`` and ``ruff format .`` repair most of it."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly: records pass between rooms, and this is what holds the rooms to them.

    Once as Linux, Windows and macOS each: what one of them lacks (``os.killpg``, ``fcntl``) is found without having it.
    """
    session.install(".[dev]")
    for platform in ("linux", "win32", "darwin"):
        session.run("mypy", "--platform", platform, *session.posargs)


@nox.session
def light(session: nox.Session) -> None:
    """Use ``list``, ``compare``, ``plot``, ``report``, ``baseline``, ``gate`` and ``card`` where there is no torch.

    They need no model. A report is read and a list is asked for far more often than a run is made; neither waits
    for torch, and a laptop without it can do both. A room that imports torch too early fails here.
    """
    session.install(*_light_requirements())
    session.install("--no-deps", ".")
    heavy = session.run("python", "-c", _FIND_HEAVY, silent=True)
    if heavy and heavy.strip():
        session.error(f"this environment must hold none of: {heavy.strip()}")
    place = Path(session.create_tmp()).resolve()
    session.chdir(place)  # away from the source folder: the installed package is what is tried
    run = str(place / "run")
    tests_folder = str(Path(__file__).resolve().parent / "tests")
    session.run("python", "-c", _WRITE_RUN, run, env={"PYTHONPATH": tests_folder})
    session.run("hotart-bench", "--help", silent=True)
    for what in ("suites", "variants", "metrics", "prompts"):
        session.run("hotart-bench", "list", what)
    session.run("hotart-bench", "compare", run)
    session.run("hotart-bench", "plot", run, "-o", str(place / "plots"))
    session.run("hotart-bench", "plot", run, "--sheet", "--prompts", "4", "-o", str(place / "plots"))
    session.run("hotart-bench", "report", run)
    session.run("hotart-bench", "report", run, "--folder")
    frozen = str(place / "baseline.json")
    session.run("hotart-bench", "baseline", f"{run}-old", "-o", frozen, "--by", "nox", "--replace", "--why", "anew")
    session.run("hotart-bench", "gate", f"{run}-new", "--baseline", frozen)
    session.run("hotart-bench", "card", run, "--variant", "spo", "-o", str(place / "card" / "README.md"))


@nox.session
def docs(session: nox.Session) -> None:
    """Check that the documents are true: links lead somewhere, commands and flags are those of ``--help``."""
    session.install(".[test]")
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compute the figures of speed and memory: one JSON object a line, then a table. Minutes, on two cores.

    A figure that falls short is printed as it is and fails nothing. ``-- help_over_python`` computes one.
    """
    session.install(".[test]")
    session.run("python", "-m", "tests.figures", *session.posargs)


@nox.session
def page(session: nox.Session) -> None:
    """Measure the page of a large run in Chromium: first paint, memory, search, sort, scroll. Minutes, on two cores.

    One JSON object a line, then a table. The runs are made, their pictures painted; ``-- large`` takes one of them.
    What is measured and how stands in ``tests/figures/page.py``.
    """
    session.install(".[test]")
    session.run("python", "-m", "tests.figures.page", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def gpu(session: nox.Session) -> None:
    """Compute the figures of a full-size run on a GPU: random weights of SDXL's shape, 1024x1024, the whole panel.

    One JSON object a line. Half an hour or so, 20 GB of disk and 40 GiB of GPU memory; without CUDA it says so and
    ends well. What is measured and how stands in ``tests/figures/full_size.py``.
    """
    session.install(".[gpu,test]")
    session.run("python", "-m", "tests.figures.full_size", *session.posargs)


@nox.session
def gate(session: nox.Session) -> None:
    """Gate the embedded family as it is here against the committed baseline: did its pictures get worse?

    Renders and scores the suite ``mini`` and gates it against ``reports/baseline-mini.json``. Quality only,
    since the baseline's machine is hardly yours: timings of unlike machines are never compared. A minute on two
    cores. A change that is meant is accepted with ``hotart-bench baseline``; ``docs/ci.md`` says how.
    """
    session.install(".")
    place = Path(session.create_tmp()).resolve()
    run = str(place / "run")
    session.run("hotart-bench", "render", "mini", "-o", run, "--fresh", "--device", "cpu")
    session.run("hotart-bench", "score", run, "--device", "cpu")
    outputs = [f"--junit={place / 'gate.xml'}", f"--summary={place / 'gate.md'}", f"--json={place / 'gate.json'}"]
    baseline = str(Path(__file__).resolve().parent / "reports" / "baseline-mini.json")
    session.run("hotart-bench", "gate", run, "--baseline", baseline, "--other-machine", *outputs, *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Interrupt ``run``, ``render``, ``score``, ``gate``, ``compare`` and ``merge`` at 200 random moments.

    None may end with 0 unless its work was done, show a traceback or leave half a file, and the same command has to go
    on and end well. Linux, and most of an hour on two cores; ``-- MOMENTS SEED`` takes other numbers. A seeded tenth is
    ``tests/test_interrupts.py``.
    """
    session.install(".[test]")
    session.run("python", "tests/interrupts.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutate files of every kind that is read, 2,000 times each: no traceback, no hang. An hour on two cores.

    ``-- suite scores`` takes these kinds, ``-- suite:17`` one mutation, ``-- --count 100`` fewer of each. The tests run
    the first few of each by the same code.
    """
    session.install(".[test]")
    place = Path(session.create_tmp()).resolve()
    tests_folder = str(Path(__file__).resolve().parent / "tests")
    paths = {"PYTHONPATH": tests_folder, "HOTART_WEIGHTS_LOCK": str(place / "weights.lock.json")}
    session.run("python", "-m", "fuzz", *session.posargs, env=paths)


@nox.session
def mini(session: nox.Session) -> None:
    """Compute the evidence of the embedded family anew from the shipped weights and print it.

    What ``docs/mini.md`` claims is what this prints: how good the base is, and by how much DPO and SPO raise
    craft over it on held-out prompts and seeds. The contact sheet goes to ``build/mini/sheet.png``. Long on a CPU.
    """
    session.install(".[test]")
    session.run("python", "-m", "bench.mini.evidence", "--sheet", "build/mini/sheet.png", *session.posargs)


@nox.session
def steps(session: nox.Session) -> None:
    """Try on the embedded family what SPO claims of single denoising steps, and print the tables of ``docs/steps.md``.

    Runs go to ``build/steps``; an interrupted session goes on where it was. About an hour of two cores;
    ``-- cfg3-steps`` draws one part, ``-- --tables`` prints what is there.
    """
    session.install(".[test]")
    session.run("python", "-m", "bench.mini.step_evidence", *session.posargs)


_FIND_HEAVY = f"""
import importlib.util
print(*(name for name in {sorted(HEAVY | {"open_clip"})} if importlib.util.find_spec(name)))
"""

_WRITE_RUN = """
import sys
from pathlib import Path
from fakes import make_run, write_run
from gate_runs import make_folder
run = sys.argv[1]
write_run(make_run(run), run)
make_folder(Path(f"{run}-old"))
make_folder(Path(f"{run}-new"), seed=1)
"""


def _light_requirements() -> list[str]:
    """Return the requirements of ``pyproject.toml`` without those in ``HEAVY``."""
    needed: list[str] = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    return [item for item in needed if re.split(r"[^A-Za-z0-9_.-]", item)[0] not in HEAVY]
