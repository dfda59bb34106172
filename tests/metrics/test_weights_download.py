"""Downloads from a server on this machine: whole, broken off, absent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from bench import published_files
from bench.errors import WeightsError
from bench.metrics import weights
from bench.metrics.catalogue import CATALOGUE
from bench.published_files import Entry, File, download

BODY = bytes(range(256)) * 20_000  # 5 MB: several chunks
ENTRY = Entry(name="head", what="A head", host="github", repository="owner/repo", files=(File(name="w.pth"),))


class Server:
    """Serves ``BODY`` at /file, and does as it is told."""

    def __init__(self) -> None:
        self.answered = 0
        self.break_after: int | None = None
        """Bytes after which the connection breaks off and no other answer is given."""
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.answered += 1
        if self.status != 200:
            handler.send_error(self.status)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[: self.break_after])
        if self.break_after is not None:
            self.status = 503

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    serving = Server()
    monkeypatch.setattr(published_files, "GITHUB", serving.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    disable_progress_bars()
    yield serving
    enable_progress_bars()
    serving.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "hotart-bench/weights/owner/repo/unpinned/w.pth"


def test_a_file_comes_whole(target: Path, server: Server) -> None:
    assert download(ENTRY, "w.pth") == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_a_download_that_breaks_off_never_counts_and_the_next_one_is_whole(target: Path, server: Server) -> None:
    server.break_after = 2_000_000
    with pytest.raises(WeightsError, match="could not be downloaded") as refused:
        download(ENTRY, "w.pth")
    assert "the same command again" in refused.value.hint
    assert not target.exists()
    server.break_after, server.status = None, 200
    assert download(ENTRY, "w.pth") == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_what_the_server_does_not_have_is_none_and_its_faults_are_errors(target: Path, server: Server) -> None:
    server.status = 404
    assert download(ENTRY, "w.pth") is None
    server.status = 503
    with pytest.raises(WeightsError, match=r"owner/repo/w\.pth: could not be downloaded: the server answered 503\."):
        download(ENTRY, "w.pth")
    assert not target.exists()


def test_no_server_at_all_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(published_files, "GITHUB", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(WeightsError, match="could not be downloaded") as refused:
        download(ENTRY, "w.pth")
    assert "--weights-dir" in refused.value.hint


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_the_words_that_forbid_the_network(
    value: str, offline: bool, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    server.status = 404
    monkeypatch.setitem(CATALOGUE, "head", ENTRY)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set" if offline else "has no file"):
        weights.find_weights("head")
    assert bool(server.answered) is not offline
