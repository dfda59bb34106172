"""Where a verb reads and writes: run folders may lie on an object store, everything else lies on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from bench.baseline import read_baseline
from bench.cli.app import LISTS, VERBS, VOTE_VERBS, build
from bench.errors import UsageError
from bench.plots.style import write_figures
from bench.store.journal import make_folder, write_whole
from bench.weights_lock import lock_path

URL = "memory://bucket/place"


def path_parameters() -> Iterator[tuple[str, ...]]:
    """For each parameter of each verb that is a path: the command with a URL there and a word for all that it needs."""
    groups = (
        ((), build(), VERBS),
        (("list",), build().get_command(None, "list"), LISTS),
        (("vote",), build().get_command(None, "vote"), VOTE_VERBS),
    )
    for first, group, verbs in groups:
        for verb, (target, _) in verbs.items():
            module, _, function = target.partition(":")
            hints = get_type_hints(getattr(importlib.import_module(module), function)) if target else {}
            parameters = group.get_command(None, verb).params
            for path in parameters:
                if hints.get(path.name) in (Path, Path | None):
                    needed = [one for one in parameters if one.required or one is path]
                    yield (*first, verb, *(word for one in needed for word in given(one, one is path)))


def given(parameter: Any, is_path: bool) -> list[str]:
    flag = parameter.opts[-1:] if parameter.param_type_name == "option" else []
    return [*flag, URL if is_path else "word"]


PATHS = list(path_parameters())


def test_the_verbs_have_such_parameters() -> None:
    assert {(words[0], words[words.index(URL) - 1]) for words in PATHS} >= {
        *[("gate", flag) for flag in ("--junit", "--summary", "--json")],
        *[("merge", "--output"), ("plot", "--output"), ("baseline", "--output"), ("baseline", "--calibration")],
        *[("calibrate", "--output"), ("score", "--images"), ("score", "--prompts"), ("run", "--weights-dir")],
    }


@pytest.mark.parametrize("words", PATHS, ids=" ".join)
def test_a_url_is_refused_where_a_path_of_this_machine_is_meant(words, cli, home) -> None:
    before = sorted(home.rglob("*"))
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert f"{URL} is a URL, and this has to lie on this machine" in answer.err
    assert sorted(home.rglob("*")) == before


OTHERS = {
    "a suite": (["run", URL], f"{URL} is a URL"),
    "a suite or run": (["render", URL], f"{URL}: there is no run here, and a suite is a file"),
    "a suite that is swept": (["sweep", URL, "--lora", "spo"], f"{URL} is a URL"),
    "a suite that is listed": (["list", "variants", URL], f"{URL} is a URL"),
    "a set of prompts": (["list", "prompts", f"{URL}.txt"], f"{URL}.txt is a URL"),
    "a baseline": (
        ["gate", "run", "--baseline", f"{URL}.json"],
        f"no run at {URL}.json, and a frozen baseline is read",
    ),
    "a run": (["compare", URL], f"{URL}: there is no run here"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_url_that_is_read_is_a_run_or_refused(kind, cli, home) -> None:
    words, said = OTHERS[kind]
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert "memory:/b" not in answer.err


def test_a_url_in_a_suite_is_named_as_it_stands(cli, home) -> None:
    (home / "own.toml").write_text((home / "own.toml").read_text().replace('"two.txt"', f'"{URL}.txt"'))
    answer = cli("run", "own.toml")
    assert answer.code == 2
    assert f"'{URL}.txt'" in answer.err


def test_the_lock_file_of_weights_lies_on_this_machine(monkeypatch) -> None:
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", f"{URL}.json")
    with pytest.raises(UsageError, match=r"place\.json is a URL"):
        lock_path()


def test_no_writer_or_reader_makes_a_folder_of_a_url(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("s3://bucket/x.json")
    for attempt in (
        lambda: write_whole(place, b""),
        lambda: make_folder(place),
        lambda: read_baseline(place),
        lambda: write_figures([], place, "png", 100),
    ):
        with pytest.raises(UsageError, match=r"s3://bucket/x\.json is a URL"):
            attempt()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["run", "own.toml", "-o"], ["plot", "run", "-o"], ["gate", "new", "--json"]])
def test_a_link_that_leads_nowhere_is_named(words, cli, home, gate_place) -> None:
    (home / "link").symlink_to("gone")
    if words[0] == "plot":
        (home / "run").symlink_to(gate_place / "old")
    if words[0] == "gate":
        (home / "new").symlink_to(gate_place / "same")
        words = [words[0], "new", "--baseline", str(gate_place / "old.json"), words[-1]]
    answer = cli(*words, "link/x.json" if words[0] == "gate" else "link")
    assert answer.code == 2
    assert "link: is a link to gone, where there is nothing" in answer.err
    assert "File exists" not in answer.err
