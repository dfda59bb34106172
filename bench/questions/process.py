"""A judge that is a program: a process in an environment of its own, spoken to in lines of JSON.

The protocol stands in ``docs/questions.md``. The program's first line says who it is; then it gets a line for each
image and gives one back. One image is on its way at a time, so that what goes wrong belongs to an image. Its error
stream is read all the time: a full pipe would stop it.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench import documents
from bench.errors import WeightsError
from bench.metrics.declare import JudgeError
from bench.records import Judge, Question

PROTOCOL = 1
STARTING = 10
"""A program may take so many times as long for its first answer as for others: it may be loading its model."""
GIVE_UP = 2
"""So many images in a row that it fails on, twice each, and it is not started again."""
END_S = 5.0
"""How long a program has to end after its input has."""
LINE_BYTES = 1 << 20
SHOWN = 200
"""Characters of a line, and of the error stream, that a sentence quotes."""


class BrokenOffError(Exception):
    """The process died, hangs or does not keep to the protocol."""


class ProcessJudge:
    """A program that answers. It is started when it is needed; each image is tried twice, the second time anew."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._process: _Process | None = None
        self._failed = 0
        self._given_up = ""

    def identify(self) -> str:
        """Who the program says that it is: its name, version and weights.

        Raises:
            WeightsError: it cannot be started, or does not say so.
        """
        try:
            return self._started().identity
        except BrokenOffError as error:
            raise WeightsError(
                f"The judge {self._judge.name!r} does not start: {error}.",
                "try it alone; its first line is to be who it is (docs/questions.md)",
            ) from error

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question]) -> list[float]:
        """The probability of each expected answer.

        Raises:
            JudgeError: it gave no such probabilities, broke off twice, or was given up before.
        """
        if self._given_up:
            raise JudgeError(self._given_up)
        request = {
            "image": str(image.absolute()),
            "sha256": sha256,
            "prompt": prompt,
            "questions": [
                {"question": one.text, "answer": one.answer, "choices": list(one.choices)} for one in questions
            ],
        }
        try:
            reply = self._exchange(request)
        except BrokenOffError as error:
            self._failed += 1
            if self._failed >= GIVE_UP:
                self._given_up = f"the judge {self._judge.name} was given up: {error}"
            raise JudgeError(f"the judge {self._judge.name}: {error}") from error
        self._failed = 0
        return _answers(reply, len(questions))

    def close(self) -> None:
        """End the program: its input ends; what is left of it after a while is killed, with all that it started."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _exchange(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        for attempt in (1, 2):
            try:
                return self._started().exchange(request)
            except BrokenOffError:
                if self._process is not None:
                    self._process.kill()
                    self._process = None
                if attempt == 2:
                    raise
        raise AssertionError

    def _started(self) -> _Process:
        if self._process is None:
            process = _Process(self._judge)
            try:
                process.greet()
            except BrokenOffError:
                process.kill()
                raise
            self._process = process
        return self._process


class _Process:
    """One start of the program, with threads that read what it writes."""

    def __init__(self, judge: Judge) -> None:
        self._timeout_s = judge.timeout_s
        self._count = 0
        self.identity = ""
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=20)
        try:
            self._child = subprocess.Popen(
                judge.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONUTF8": "1"},
            )
        except (OSError, ValueError) as error:
            raise BrokenOffError(f"{judge.command[0]} cannot be started ({error})") from error
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._child.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._child.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def greet(self) -> None:
        """Read the first line; ``identity`` is set."""
        hello = self._receive(STARTING * self._timeout_s)
        names = ("judge", "version", "weights_sha256", "protocol")
        if any(name not in hello for name in names):
            raise BrokenOffError(f"its first line is to have {', '.join(names)}; it has {', '.join(hello)}")
        if hello["protocol"] != PROTOCOL:
            raise BrokenOffError(f"it speaks the protocol {hello['protocol']!r}, not {PROTOCOL}")
        texts = [hello[name] for name in names[:3] if hello[name] is not None]
        if not all(isinstance(text, str) and text.strip() for text in texts) or len(texts) < 2:
            raise BrokenOffError("judge and version are to be texts, and weights_sha256 one or null")
        self.identity = " ".join([*texts[:2], *(text[:12] for text in texts[2:])]).replace(";", ",")

    def exchange(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request, and receive the reply to it."""
        first, self._count = self._count == 0, self._count + 1
        line = documents.dumps({"id": str(self._count), **request}) + "\n"
        # In a thread: a pipe takes 64 KiB at once, and the rest only when the program reads.
        threading.Thread(target=self._write, args=(line.encode(),), daemon=True).start()
        reply = self._receive(self._timeout_s * (STARTING if first else 1))
        if reply.get("id") != str(self._count):
            raise BrokenOffError(f"it answered the request {reply.get('id')!r}, and was asked {str(self._count)!r}")
        return reply

    def _write(self, line: bytes) -> None:
        assert isinstance(self._child.stdin, io.BufferedWriter)
        pipe = self._child.stdin.raw  # without the lock of its buffer, which would stop ``end``
        with contextlib.suppress(OSError, ValueError):  # the program has ended; who reads its output says so
            while line:
                line = line[pipe.write(line) or 0 :]

    def _receive(self, timeout_s: float) -> Mapping[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise BrokenOffError(f"it gave no answer within {timeout_s:g} s{self._said()}") from None
        if not line.endswith(b"\n"):
            if len(line) >= LINE_BYTES:
                raise BrokenOffError(f"a line of it is longer than {LINE_BYTES:,} bytes")
            raise BrokenOffError(self._ended())
        try:
            value = documents.loads(line.decode())
        except ValueError as error:
            shown = line.decode(errors="replace").strip()[:SHOWN]
            raise BrokenOffError(
                f"it printed {shown!r}, which is not a line of the protocol ({error}); whatever else a program prints "
                "belongs on its error stream"
            ) from error
        if not isinstance(value, dict):
            raise BrokenOffError(f"it printed {line.decode().strip()[:SHOWN]!r}; a line of the protocol is an object")
        return value

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1.0)
        self._readers[1].join(1.0)
        code = self._child.poll()
        how = "closed its output" if code is None else f"ended with exit code {code}"
        return f"it {how}{self._said()}"

    def _said(self) -> str:
        text = " ".join(" ".join(self._errors).split())
        return f"; its last words: {text[-SHOWN:]!r}" if text else ""

    def _read_lines(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                line = stream.readline(LINE_BYTES)
                self._lines.put(line)
                if not line.endswith(b"\n"):
                    return

    def _read_errors(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(LINE_BYTES):
                self._errors.append(line.decode(errors="replace"))

    def end(self) -> None:
        """Close its input and wait a while; then as ``kill``."""
        with contextlib.suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process and those that it started."""
        with contextlib.suppress(OSError):
            if sys.platform != "win32":
                os.killpg(self._child.pid, signal.SIGKILL)
            else:
                self._child.kill()
        self._child.wait()
        for reader in self._readers:
            reader.join(1.0)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _answers(reply: Mapping[str, Any], wanted: int) -> list[float]:
    """The probabilities of a reply; JudgeError where it has none, or others than from 0 to 1."""
    if "error" in reply:
        raise JudgeError(f"the judge says: {str(reply['error'])[:SHOWN]}")
    unknown = reply.keys() - {"id", "answers"}
    if unknown:
        raise JudgeError(f"the judge's reply has the unknown field {min(unknown)!r}; it has id and answers, or error")
    answers = reply.get("answers")
    if not isinstance(answers, list) or len(answers) != wanted:
        raise JudgeError(f"the judge gave {str(answers)[:SHOWN]}, not {wanted} answers")
    return [checked_probability(answer, number) for number, answer in enumerate(answers, 1)]


def checked_probability(answer: object, number: int) -> float:
    """An answer as a probability; JudgeError where it is not one."""
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 <= answer <= 1:
        raise JudgeError(f"the judge gave {answer!r} for question {number}; a probability is a number from 0 to 1")
    return float(answer)
