"""Downloads from a server on this machine: whole, continued, broken off, absent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.errors import WeightsError
from bench.weights import download
from bench.weights.download import download_url

BODY = bytes(range(256)) * 20_000  # 5 MB: several chunks


class Server:
    """Serves ``BODY`` at /file, and does as it is told."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.continues = True
        self.break_after: int | None = None
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.continues else 0
        if self.status != 200:
            handler.send_error(self.status)
            return
        if start >= len(BODY):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(BODY) - start))
        handler.end_headers()
        end = len(BODY) if self.break_after is None else start + self.break_after
        handler.wfile.write(BODY[start:end])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.close()


def test_a_file_comes_whole_with_its_progress(tmp_path: Path, server: Server) -> None:
    told: list[tuple[str, int, int, str]] = []
    target = tmp_path / "deep" / "w.pth"
    assert download_url(server.url, target, lambda *facts: told.append(facts))  # type: ignore[arg-type]
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    done = [facts[1] for facts in told]
    assert done == sorted(done)
    assert told[-1] == ("fetch", len(BODY), len(BODY), "w.pth")


def test_a_download_that_breaks_off_never_counts_and_is_continued(tmp_path: Path, server: Server) -> None:
    target, part = tmp_path / "w.pth", tmp_path / "w.pth.part"
    server.break_after = 2_000_000
    with pytest.raises(WeightsError, match="could not be downloaded") as refused:
        download_url(server.url, target)
    assert "continues" in refused.value.hint
    assert not target.exists()
    assert part.read_bytes() == BODY[:2_000_000]
    server.break_after = None
    assert download_url(server.url, target)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, "bytes=2000000-"]
    assert not part.exists()


def test_a_server_that_does_not_continue_starts_anew(tmp_path: Path, server: Server) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"something else")
    server.continues = False
    assert download_url(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, server: Server) -> None:
    (tmp_path / "w.pth.part").write_bytes(BODY + b"more")
    assert download_url(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_what_the_server_has_not_is_false_and_its_faults_are_errors(tmp_path: Path, server: Server) -> None:
    server.status = 404
    assert not download_url(server.url, tmp_path / "w.pth")
    server.status = 503
    with pytest.raises(WeightsError, match=r"/file: could not be downloaded \(HTTPError\)"):
        download_url(server.url, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


def test_no_server_at_all_is_an_error_with_a_hint(tmp_path: Path, server: Server) -> None:
    server.close()
    with pytest.raises(WeightsError, match="could not be downloaded") as refused:
        download_url(server.url, tmp_path / "w.pth")
    assert "--weights-dir" in refused.value.hint
    server._thread = threading.Thread()  # closed already
    server.close = lambda: None  # type: ignore[method-assign]


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_the_words_that_forbid_the_network(value: str, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert download.is_offline() is offline
