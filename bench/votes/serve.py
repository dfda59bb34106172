"""A voting page served to this machine alone; each vote is on the disk before the page says so."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

from bench import documents
from bench.errors import HotartError, MachineError, UsageError
from bench.records import VOTES_KIND, VOTES_SCHEMA, VotesFile
from bench.store.journal import make_folder, write_whole
from bench.votes.make import PAGE, PICTURES
from bench.votes.page import SAVES

HERE = "127.0.0.1"
VOTES = "votes"
"""The folder beside the page that voters' files are written to, and the address that they are sent to."""
MOST_BYTES = 2**25
"""Of one voter's votes."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class VoteServer(ThreadingHTTPServer):
    """Serves the page of a folder, its pictures, and nothing else."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.page = _saving_page(folder)
        self.pictures = frozenset(path.name for path in (folder / PICTURES).iterdir())
        super().__init__((HERE, port), _Handler)
        self.hosts = frozenset(f"{name}:{self.server_port}" for name in (HERE, "localhost"))

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HERE}:{self.server_port}/"


def open_server(folder: Path, port: int) -> VoteServer:
    """A server of a voting page, which listens; ``serve_forever`` answers.

    Args:
        folder: as ``make_page`` wrote it.
        port: 0 for a free one.

    Raises:
        UsageError: it is no voting page.
        MachineError: the port is taken, or the folder cannot be written.
    """
    if not (folder / PAGE).is_file() or not (folder / PICTURES).is_dir():
        raise UsageError(
            f"{folder}: is no voting page (no {PAGE} with {PICTURES}/).", "hotart-bench vote make RUN -o DIR"
        )
    make_folder(folder / VOTES)
    try:
        return VoteServer(folder, port)
    except OSError as error:
        raise MachineError(
            f"Port {port} cannot be opened: {error.strerror}.", "choose another one with --port"
        ) from error


def _saving_page(folder: Path) -> bytes:
    page = documents.read_text(folder / PAGE)
    if SAVES not in page:
        raise UsageError(f"{folder / PAGE}: is not a page of this version.", "hotart-bench vote make RUN -o DIR")
    return page.replace(SAVES, SAVES.replace('content=""', f'content="{VOTES}"')).encode()


def save_votes(folder: Path, body: bytes) -> VotesFile:
    """Write what the page sends as the voter's file, whole or not at all.

    Raises:
        ValueError: it is not a file of votes.
        MachineError: the disk is full, read-only or otherwise unwilling.
    """
    table = documents.loads(body.decode())
    if not isinstance(table, dict) or (table.get("kind"), table.get("schema")) != (VOTES_KIND, VOTES_SCHEMA):
        raise ValueError("not a file of votes")
    found = documents.convert(table, VotesFile)
    path = folder / VOTES / f"{found.ballot}-{found.voter}.json"
    write_whole(path, body)
    return found


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "hotart-bench", ""
    timeout = 60

    def do_GET(self) -> None:
        server = cast(VoteServer, self.server)
        name = self.path.removeprefix(f"/{PICTURES}/")
        if not self._is_for_us():
            return
        if self.path in ("/", f"/{PAGE}"):
            self._answer(HTTPStatus.OK, server.page, "text/html; charset=utf-8")
        elif name in server.pictures:
            data = documents.read_bytes(server.folder / PICTURES / name, documents.IMAGE_BYTES)
            self._answer(HTTPStatus.OK, data, "image/webp")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain")

    def do_POST(self) -> None:
        server = cast(VoteServer, self.server)
        if not self._is_for_us():
            return
        size = self.headers.get("Content-Length", "")
        if self.path != f"/{VOTES}" or not size.isdecimal() or int(size) > MOST_BYTES:
            self._answer(HTTPStatus.BAD_REQUEST, b"Votes are sent to /votes.\n", "text/plain")
            return
        try:
            found = save_votes(server.folder, self.rfile.read(int(size)))
        except (ValueError, RecursionError):
            self._answer(HTTPStatus.BAD_REQUEST, b"This is no file of votes.\n", "text/plain")
        except HotartError as error:
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE, f"{error.message}\n".encode(), "text/plain; charset=utf-8")
        else:
            self._answer(HTTPStatus.OK, json.dumps({"votes": len(found.votes)}).encode(), "application/json")

    def _is_for_us(self) -> bool:
        """Whether the page of this server asks: another site in the same browser must not read or write here."""
        server = cast(VoteServer, self.server)
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in server.hosts and origin in (None, *(f"http://{one}" for one in server.hosts)):
            return True
        self._answer(HTTPStatus.FORBIDDEN, b"This server answers its own page alone.\n", "text/plain")
        return False

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows the address alone."""
