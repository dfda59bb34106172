"""The server of a voting page: it answers its own page alone, and what it was sent is on the disk."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from vote_runs import cast, make_voted, newest_ballot

from bench.errors import MachineError, UsageError
from bench.votes.page import SAVES
from bench.votes.read import read_votes
from bench.votes.serve import VOTES, VoteServer, open_server


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    return make_voted(tmp_path_factory.mktemp("vote"), prompts=2, samples=1, variants=("base", "spo"))


@pytest.fixture(scope="module")
def server(made) -> Iterator[VoteServer]:
    with open_server(made[1], 0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: VoteServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_page_is_told_that_its_votes_are_kept(server, made):
    status, page = ask(server, "GET", "/")
    assert status == 200
    assert b'<meta name="hotart-bench-saves" content="votes">' in page
    assert SAVES in (made[1] / "index.html").read_text(), "the file itself stays as it is"


def test_pictures_are_served_and_nothing_else(server, made):
    name = next((made[1] / "pictures").iterdir()).name
    assert ask(server, "GET", f"/pictures/{name}")[1] == (made[1] / "pictures" / name).read_bytes()
    (made[1] / "secret.txt").write_text("secret")
    for path in (
        "/secret.txt",
        "/pictures/../secret.txt",
        "/votes",
        "/votes/",
        "/pictures/",
        "//etc/passwd",
        "/%2e%2e/x",
    ):
        assert ask(server, "GET", path)[0] == 404


def test_votes_are_on_the_disk_before_the_answer(server, made):
    file = cast(newest_ballot(made[0]), "ab" * 12, name="Ada")
    assert ask(server, "POST", "/votes", msgspec.json.encode(file)) == (
        200,
        json.dumps({"votes": len(file.votes)}).encode(),
    )
    assert read_votes(made[1] / VOTES / f"{file.ballot}-{file.voter}.json") == file
    assert ask(server, "POST", "/votes", msgspec.json.encode(file))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"kind": "hotart-bench votes", "schema": 1}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_file_of_votes_is_refused_and_nothing_is_written(server, made, body):
    before = sorted((made[1] / VOTES).iterdir())
    assert ask(server, "POST", "/votes", body)[0] == 400
    assert sorted((made[1] / VOTES).iterdir()) == before


def test_a_voter_cannot_name_another_file(server, made):
    table = msgspec.to_builtins(cast(newest_ballot(made[0]), "ab" * 12))
    for voter in ("../../x", "a/b", "", "AB" * 12):
        assert ask(server, "POST", "/votes", json.dumps({**table, "voter": voter}).encode())[0] == 400
    assert not (made[1].parent / "x.json").exists()


def test_other_sites_in_the_same_browser_are_refused(server, made):
    file = msgspec.json.encode(cast(newest_ballot(made[0]), "cd" * 12))
    assert ask(server, "GET", "/", Host="evil.example")[0] == 403, "a name that was pointed here"
    assert ask(server, "POST", "/votes", file, Origin="http://evil.example")[0] == 403
    own = f"http://127.0.0.1:{server.server_port}"
    assert ask(server, "POST", "/votes", file, Origin=own)[0] == 200


def test_votes_beyond_any_voter_are_refused_unread(server):
    assert ask(server, "POST", "/votes", b"x", Content_Length="99999999999")[0] == 400
    assert ask(server, "POST", "/elsewhere", b"{}")[0] == 400


def test_a_folder_without_a_page_and_a_taken_port_are_refused(server, made, tmp_path):
    with pytest.raises(UsageError, match="no voting page"):
        open_server(tmp_path, 0)
    with pytest.raises(MachineError, match="cannot be opened") as refused:
        open_server(made[1], server.server_port)
    assert "--port" in refused.value.hint
    (tmp_path / "pictures").mkdir()
    (tmp_path / "index.html").write_text("<p>")
    with pytest.raises(UsageError, match="not a page of this version"):
        open_server(tmp_path, 0)


def test_ctrl_c_ends_the_command_and_loses_no_vote(made, tmp_path):
    run, page = made
    command = [sys.executable, "-m", "bench", "vote", "serve", str(page), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        address = process.stdout.readline().strip()
        port = int(address.rstrip("/").rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        file = cast(newest_ballot(run), "ee" * 12)
        connection.request("POST", "/votes", msgspec.json.encode(file))
        assert connection.getresponse().status == 200
        connection.close()
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(20) == 130
    assert time.monotonic() - start < 10
    assert "Traceback" not in said
    assert "Stopped" in said
    assert read_votes(page / VOTES / f"{file.ballot}-{file.voter}.json") == file
