"""Without a connection it is asked once and said once; a download that fails says why."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import errors

from bench import downloads, published_files
from bench.cli.fetch import told_once
from bench.downloads import _asked, failed, no_connection
from bench.errors import MachineError, WeightsError

GATED, PRIVATE, REVISION = errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked in earnest."""
    monkeypatch.setattr(downloads, "_asked", _asked)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_a_server_that_is_not_there_is_told_at_once_with_the_systems_reason(asked: None) -> None:
    with socket.socket() as held:  # bound, and listening to nobody
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/a/path"
        start = time.monotonic()
        said = no_connection(url)
        assert said is not None
        assert said.startswith("there is no connection to 127.0.0.1 (")
        assert "refused" in said
        assert no_connection(url) == said
        assert time.monotonic() - start < 5


def test_a_whole_suite_without_a_connection_is_one_sentence_in_seconds(
    asked: None, cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HUB", "TIMEOUT_S"):
        monkeypatch.setattr(downloads, name, {"HUB": "http://127.0.0.1:1", "TIMEOUT_S": 5}[name])
    monkeypatch.setattr(published_files, "GITHUB", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start = time.monotonic()
    answer = cli("fetch", "sdxl")
    assert time.monotonic() - start < 15
    assert answer.code == 3
    assert answer.err.count("there is no connection") == 1
    assert answer.err.count("Errno") == 1
    for name in ("stabilityai/stable-diffusion-xl-base-1.0", "madebyollin/sdxl-vae-fp16-fix", "THUDM/ImageReward"):
        assert name in answer.err.splitlines()[-2]
    assert answer.err.splitlines()[-1].startswith("  next: hotart-bench fetch")


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_a_network_that_the_user_forbids_is_not_asked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(downloads, "_asked", lambda server, minute: pytest.fail("asked"))
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert no_connection("http://127.0.0.1:1") == "HF_HUB_OFFLINE is set"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/cache"),
            MachineError,
            "No space left on device /cache.",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/cache"), MachineError, "Permission denied /cache."),
        (GATED.__new__(GATED), WeightsError, "its owner asks to accept terms first."),
        (PRIVATE.__new__(PRIVATE), WeightsError, "there is no such repository, or it is private."),
        (REVISION.__new__(REVISION), WeightsError, "the repository has no such revision."),
        (caused(OSError("the client's"), TimeoutError("read timed out")), WeightsError, "read timed out."),
        (KeyError(), WeightsError, "KeyError."),
    ],
)
def test_a_download_that_fails_says_why(error: Exception, kind: type, words: str) -> None:
    found = failed("owner/name", error)
    assert type(found) is kind
    assert found.message == f"owner/name: could not be downloaded: {words}"
    assert found.hint


def test_a_reason_is_told_once_after_all_that_it_holds_for() -> None:
    assert told_once(["a: gone.", "b: torn.", "c: gone.", "no colon"]) == "a, c: gone. b: torn. no colon"
