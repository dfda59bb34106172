"""The documents are true: links lead somewhere; commands, flags, verbs and examples are the program's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.cli.app import build
from bench.metrics import Inputs, Metric
from bench.mini.weights import manifest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "reports/**/*.md")
    for path in ROOT.glob(pattern)
    if not path.is_relative_to(ROOT / "reports" / "runs")
)
README = ROOT / "README.md"

_LINK = re.compile(r"\]\(<?([^)\s>]+)>?[^)]*\)|(?:src|href|srcset)=\"([^\"]+)\"")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\s*(?:\$ )?((?:hotart-bench|python -m bench)(?:\s.*)?)$", re.MULTILINE)
_INLINE = re.compile(r"`(hotart-bench[^`\n]*)`")

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def anchor(heading: str) -> str:
    """The fragment that a heading gets where markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    return {anchor(found) for found in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)}


def broken_links(document: Path) -> Iterator[str]:
    for pair in _LINK.findall(prose(document)):
        target = pair[0] or pair[1]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (fragment and file.suffix == ".md" and fragment not in anchors(file)):
            yield target


@documents
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(broken_links(document)) == []


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, with signs\n[a](page.md) [b](#a-title-with-signs) [c](gone.md) [d](#gone)\n")
    assert list(broken_links(page)) == ["gone.md", "#gone"]


_PATH = re.compile(r"`((?:bench|docs|prompts|tests)/[^`\s]*)`")


def lost_paths(document: Path) -> list[str]:
    """The files and folders that a document names between backticks and that are not there; a * is for anything."""
    named = [path.partition("::")[0] for path in _PATH.findall(document.read_text(encoding="utf-8")) if "<" not in path]
    return [path for path in named if not any(ROOT.glob(path.rstrip("/")))]


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "noxfile.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_is_named_is_there(document: Path) -> None:
    assert lost_paths(document) == []


def test_a_lost_path_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`bench/run/` `bench/run.py` ``tests/nothing.py`` `tests/test_*.py::test_x` `tests/<room>.py`")
    assert lost_paths(page) == ["bench/run.py", "tests/nothing.py"]


# --- commands ------------------------------------------------------------------------------


def commands_in(document: Path) -> Iterator[str]:
    text = document.read_text(encoding="utf-8")
    for language, block in _FENCE.findall(text):
        if language in ("", "bash", "console", "sh", "shell", "text"):
            yield from _COMMAND.findall(block.replace("\\\n", " "))
    yield from _INLINE.findall(_FENCE.sub("", text))


def verbs() -> dict[str, set[str]]:
    """The flags of every verb; a verb in a group is "list suites"."""
    top = build()
    found = {"": flags_of(top)}
    for name in top.list_commands(None):
        command = top.get_command(None, name)
        found[name] = flags_of(command)
        for inner in command.list_commands(None) if hasattr(command, "list_commands") else ():
            found[f"{name} {inner}"] = flags_of(command.get_command(None, inner))
    return found


def flags_of(command: object) -> set[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]  # type: ignore[attr-defined]
    options = [opt for parameter in shown for opt in (*parameter.opts, *parameter.secondary_opts)]
    return {"--help", "-h", *(opt for opt in options if opt.startswith("-"))}


def what_is_wrong(command: str, known: dict[str, set[str]]) -> str | None:
    words = command.split("#")[0].removeprefix("python -m bench").removeprefix("hotart-bench").split()
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in known and n), "")
    if not name and words and not words[0].startswith("-"):
        return f"there is no verb {words[0]!r}"
    flags = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    unknown = flags - known[name]
    return f"{name or 'hotart-bench'} has no {sorted(unknown)}" if unknown else None


@documents
def test_every_command_is_one_that_the_program_knows(document: Path) -> None:
    known = verbs()
    wrong = {command: what_is_wrong(command, known) for command in commands_in(document)}
    assert {command: reason for command, reason in wrong.items() if reason} == {}


@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("hotart-bench", True),
        ("hotart-bench --help", True),
        ("hotart-bench run mini -o somewhere --limit 4  # a comment --x", True),
        ("hotart-bench list suites", True),
        ("hotart-bench runn", False),
        ("hotart-bench run --limits 4", False),
        ("hotart-bench --limit 4", False),
    ],
)
def test_a_wrong_command_would_be_found(command: str, right: bool) -> None:
    assert (what_is_wrong(command, verbs()) is None) is right


def test_the_readmes_table_of_verbs_is_complete() -> None:
    rows = re.findall(r"^\|\s*`([^`]+)`(.*)\|", README.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {word.split()[0] for first, rest in rows for word in [first, *re.findall(r"`([^`]+)`", rest)]}
    assert {name for name in verbs() if name and " " not in name} <= listed


# --- what a newcomer does ------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_the_readme_gives_one_command(heading: str) -> None:
    text = README.read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"README.md has no section '## {heading}'"
    fences = _FENCE.findall(section[1])
    assert fences
    assert len(fences[0][1].replace("\\\n", " ").strip().splitlines()) == 1


def test_the_sessions_that_documents_name_exist() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"nox -s (\w+)", path.read_text())}
    assert named
    assert named <= sessions


def test_the_card_of_the_embedded_family_is_true_of_its_files_and_its_session() -> None:
    card = (ROOT / "docs" / "mini.md").read_text(encoding="utf-8")
    said = re.search(r"Together ([\d.]+) MiB", card)
    assert said
    assert float(said[1]) == round(sum(int(one["size_bytes"]) for one in manifest().values()) / 2**20, 1)
    sheet = re.search(r"sheet is written to `([^`]+)`", card)
    assert sheet
    assert f'"bench.mini.evidence", "--sheet", "{sheet[1]}"' in (ROOT / "noxfile.py").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == project["version"]


def test_the_metric_to_copy_works_as_it_stands() -> None:
    (code,) = (
        code for language, code in _FENCE.findall((ROOT / "CONTRIBUTING.md").read_text()) if language == "python"
    )
    names: dict[str, object] = {"__name__": "copied"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    declared = names["colourfulness"]
    assert isinstance(declared, Metric)
    # Left half red, right half green: rg is +-255 (mean 0, deviation 255), yb is 127.5 everywhere.
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0, :, 0] = image[0, 1, :, 1] = 1.0
    pixels = torch.cat([image, torch.full((1, 3, 2, 2), 0.5)])
    inputs = Inputs(
        prompts=("a", "b"),
        pixels=pixels,
        reference_pixels=None,
        image_embeds=None,
        text_embeds=None,
        logit_scale=1.0,
        head=None,
    )
    assert declared(inputs).tolist() == pytest.approx([255.0 + 0.3 * 127.5, 0.0])
