"""Small programs that judge, well or badly, and a server that answers like an OpenAI-compatible one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.records import Judge

HELLO = """\
import json, os, sys
say = lambda **what: print(json.dumps(what), flush=True)
say(judge="toy", version="1", weights_sha256=None, device="cpu", protocol=1)
"""
ANSWER = """\
for line in sys.stdin:
    asked = json.loads(line)
    say(id=asked["id"], answers=[0.25 for _ in asked["questions"]])
"""


def program(folder: Path, body: str = ANSWER, *, hello: str = HELLO, timeout_s: float = 20.0) -> Judge:
    """A judge whose program is ``hello`` and then ``body``; ``marks`` in its folder is a file that it may count in."""
    file = folder / "judge.py"
    file.write_text(hello + body.replace("MARKS", repr(str(folder / "marks"))), encoding="utf-8")
    return Judge(name="toy", command=(sys.executable, str(file)), timeout_s=timeout_s)


def starts(folder: Path) -> int:
    """How many lines a program wrote to ``marks``."""
    file = folder / "marks"
    return len(file.read_text().splitlines()) if file.exists() else 0


Reply = Callable[[dict[str, Any]], tuple[int, Any]]
"""A request's body -> status code, and the body of the answer (text as it is, anything else as JSON)."""


class Server:
    """What a test server was asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""


def tops(**logprobs: float) -> dict[str, Any]:
    """A chat completion whose first token has these log probabilities."""
    found = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
    return {"choices": [{"logprobs": {"content": [{"token": "x", "logprob": 0.0, "top_logprobs": found}]}}]}


@contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    """A server of this machine at a free port."""
    server = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            status, answer = server.reply(body)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://192.0.2.1/v1/chat/completions")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked may have gone
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
