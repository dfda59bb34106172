"""The facts of this machine, and the devices that it is asked for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from bench import machine
from bench.errors import UsageError
from bench.machine import git_state, git_user, machine_facts, package_versions, pick_device
from bench.records import Git


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    """A torch with as many devices as the test needs, in the place of the real one."""
    torch = ModuleType("torch")
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000)
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        device_count=lambda: cuda, get_device_properties=lambda device: properties
    )
    torch.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))  # type: ignore[attr-defined]
    torch.get_num_threads = lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "device"),
    [
        ("auto", 2, False, "cuda:0"),
        ("auto", 0, True, "mps"),
        ("auto", 0, False, "cpu"),
        ("cuda", 1, False, "cuda:0"),
        ("cuda:1", 2, False, "cuda:1"),
        ("cuda:01", 2, False, "cuda:1"),
        ("mps", 0, True, "mps"),
        ("cpu", 1, False, "cpu"),
    ],
)
def test_a_device_name_becomes_a_device_of_this_machine(
    name: str, cuda: int, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device(name) == device


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda", "this machine has only cpu"),
        ("cuda:0", "this machine has only cpu"),
        ("mps", "this machine has only cpu"),
        (
            "gpu",
            "--device is 'gpu' (did you mean 'cpu'?); allowed are auto, cpu, cuda, cuda:<number> and mps",
        ),
        ("cuda:", "--device is 'cuda:'"),
        ("cuda:x", "--device is 'cuda:x'"),
        ("cuda:-1", "--device is 'cuda:-1'"),
        ("cuda:²", "--device is 'cuda:²'"),
        ("mps:0", "--device is 'mps:0'"),
        ("", "--device is ''"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch)
    with pytest.raises(UsageError) as caught:
        pick_device(name)
    assert sentence in caught.value.message


def test_a_number_beyond_the_devices_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=2)
    with pytest.raises(UsageError, match="this machine has only cuda:0, cuda:1, cpu"):
        pick_device("cuda:2")


def test_cpu_is_answered_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    assert pick_device("cpu") == "cpu"


def test_facts_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch)
    facts = machine_facts("cpu")
    assert facts.device_name == facts.cpu != ""
    assert 1 <= facts.cores <= (os.cpu_count() or 1)
    assert facts.memory_bytes == psutil.virtual_memory().total
    assert (facts.device, facts.threads, facts.device_memory_bytes, facts.driver) == ("cpu", 3, None, None)


def test_facts_of_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=1)
    monkeypatch.setattr(machine, "_output_of", lambda command: "570.1\n570.1" if command[0] == "nvidia-smi" else None)
    facts = machine_facts("cuda:0")
    assert (facts.device, facts.device_name) == ("cuda:0", "NVIDIA H200")
    assert (facts.device_memory_bytes, facts.driver) == (150_000_000_000, "570.1")


def test_versions_are_those_of_the_installed_packages() -> None:
    versions = package_versions()
    assert next(iter(versions)) == "python"
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == __import__("numpy").__version__
    assert set(versions) <= {"python", *machine.PACKAGES}
    assert all(versions.values())


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package-anywhere"))
    assert list(package_versions()) == ["python", "numpy"]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_state_follows_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "gone") is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-q", "-m", "first")
    state = git_state(tmp_path)
    assert state is not None
    assert (state.commit, state.dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "untracked.txt").touch()
    assert git_state(tmp_path) == state
    (tmp_path / "a.txt").write_text("two", encoding="utf-8")
    changed = git_state(tmp_path)
    assert changed is not None
    assert (changed.commit, changed.dirty) == (state.commit, True)


@pytest.mark.parametrize("place", ["config", "an included file", "the worktree's configuration", "a submodule"])
def test_git_state_starts_no_program_that_a_repository_names(place: str, tmp_path: Path) -> None:
    repository, marker = tmp_path / "repository", tmp_path / "started"
    program = f"sh -c 'touch {marker}; cat'"
    for folder in (repository, repository / "inner"):
        folder.mkdir()
        git(folder, "init", "-q")
        (folder / ".gitattributes").write_text("* filter=own\n", encoding="utf-8")
        (folder / "a.txt").write_text("one", encoding="utf-8")
        git(folder, "add", ".gitattributes", "a.txt")
        git(folder, "commit", "-q", "-m", "first")
    git(repository, "-c", "advice.addEmbeddedRepo=false", "add", "inner")
    git(repository, "commit", "-q", "-m", "inner")
    match place:
        case "config":
            git(repository, "config", "filter.own.clean", program)
        case "an included file":
            git(repository, "config", "-f", ".git/more", "filter.own.process", program)
            git(repository, "config", "include.path", "more")
        case "the worktree's configuration":
            git(repository, "config", "extensions.worktreeConfig", "true")
            git(repository, "config", "--worktree", "filter.own.clean", program)
        case "a submodule":
            git(repository / "inner", "config", "filter.own.clean", program)
    for folder in (repository, repository / "inner"):
        git(folder, "config", "core.fsmonitor", program)
        (folder / "a.txt").write_text("two", encoding="utf-8")
    commit = git(repository, "-c", "core.fsmonitor=false", "rev-parse", "HEAD")
    state = git_state(repository)
    assert state == Git(commit=commit, dirty=True if place == "a submodule" else None)
    assert not marker.exists()
    git(repository / "inner" if place == "a submodule" else repository, "status")  # and git itself does
    assert marker.exists()


def test_no_git_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_a_program_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TIMEOUT_S", 0.05)
    assert machine._output_of((sys.executable, "-c", "import time; time.sleep(30)")) is None


@pytest.mark.parametrize(
    ("config", "who"),
    [
        ("[user]\nname = Ada Lovelace\nemail = ada@example.org", "Ada Lovelace <ada@example.org>"),
        ("[user]\nname = Ada", "Ada"),
        ("[user]\nemail = ada@example.org", None),
        ("", None),
    ],
)
def test_git_knows_who_commits(config: str, who: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-repository"))
    assert git_user(tmp_path) == who
