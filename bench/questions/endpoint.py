"""A judge that is an OpenAI-compatible server: one request a question, the answer read off its first token.

The images leave this process, and with another machine's address this machine; so an address that is not of this
machine is refused unless ``--allow-remote`` says otherwise. The key comes from the environment and is written nowhere.
"""

from __future__ import annotations

import base64
import email.message
import ipaddress
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from bench import documents
from bench.errors import UsageError
from bench.metrics.declare import JudgeError
from bench.questions.wording import forms, wording
from bench.records import Judge, Question

TOP = 20
"""Tokens whose probabilities are asked for: the most that the interface gives."""
CLOSE = 0.01
"""What an answer outside of these may have at most, to be taken as that much; with more it is unknown."""
TRIES = 3
PAUSE_S = 0.5
"""Before a second try; twice as long before a third."""
GIVE_UP = 3
"""So many images in a row that fail, and it is not asked again."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Status codes that another try may get over."""
SHOWN = 200
"""Characters of an error's text that a sentence quotes, and below the bytes that are read of it."""
ERROR_BYTES = 1 << 16


class FinalError(JudgeError):
    """An answer that no other try and no other image will change, such as a wrong key."""


class EndpointJudge:
    """A server that answers, asked one question at a time."""

    def __init__(self, judge: Judge, *, allow_remote: bool) -> None:
        local = is_local(judge.endpoint)
        if not local and not allow_remote:
            raise UsageError(
                f"The judge {judge.name!r} is at {urlsplit(judge.endpoint).hostname}, which is not this machine: it "
                "would get all images.",
                "name a server of this machine, such as http://127.0.0.1:8000/v1, or give --allow-remote",
            )
        self._judge = judge
        self._key = _key_of(judge)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if local:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._failed = 0
        self._given_up = ""

    def identify(self) -> str:
        """The model's name and what the suite calls its version; a server does not tell its weights."""
        return " ".join(filter(None, (self._judge.model, self._judge.version))).replace(";", ",")

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question]) -> list[float]:
        """The probability of each expected answer, as the first token of the reply.

        Raises:
            JudgeError: no connection, an error of the server, a reply without probabilities, or an expected answer
                whose probability is known only to be below one of ``CLOSE`` or more.
        """
        if self._given_up:
            raise JudgeError(self._given_up)
        picture = base64.b64encode(documents.read_bytes(image, documents.IMAGE_BYTES)).decode()
        kind = {".jpg": "jpeg"}.get(image.suffix, image.suffix.removeprefix("."))
        deadline = time.monotonic() + self._judge.timeout_s
        try:
            answers = [self._answer(f"data:image/{kind};base64,{picture}", one, deadline) for one in questions]
        except JudgeError as error:
            why = self._without_key(str(error))
            self._failed += 1
            if self._failed >= GIVE_UP or isinstance(error, FinalError):
                self._given_up = f"the judge {self._judge.name} was given up: {why}"
            raise JudgeError(why) from None  # the first one may hold the key
        self._failed = 0
        return answers

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, picture: str, question: Question, deadline: float) -> float:
        body = {
            "model": self._judge.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": picture}},
                        {"type": "text", "text": wording(question)},
                    ],
                }
            ],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
            "repetition_penalty": 1.0,  # else vLLM takes the model's own, which moves probabilities
        }
        return probability_of(self._post(body, deadline), forms(question))

    def _post(self, body: Mapping[str, Any], deadline: float) -> Any:
        for attempt in range(1, TRIES + 1):
            try:
                return self._send(body, deadline)
            except urllib.error.HTTPError as error:
                why = f"the endpoint answers {error.code}: {self._said(error)}"
                if error.code not in PASSING:
                    raise FinalError(why) from None
            except TimeoutError:
                raise JudgeError(self._late()) from None
            except (OSError, HTTPException) as error:
                if time.monotonic() >= deadline:
                    raise JudgeError(self._late()) from None
                why = f"the endpoint gives no answer ({error})"
            except ValueError as error:
                raise JudgeError(f"the endpoint's answer is not valid JSON: {error}") from None
            if attempt < TRIES:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise JudgeError(why)

    def _send(self, body: Mapping[str, Any], deadline: float) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = f"{self._judge.endpoint.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, documents.dumps(body).encode(), headers, method="POST")
        with self._opener.open(request, timeout=_left(deadline)) as reply:
            data = b""
            while len(data) < documents.DOCUMENT_BYTES and (part := reply.read1(1 << 16)):
                data += part
                _left(deadline)
            return documents.loads(data.decode(), finite=False)

    def _said(self, error: urllib.error.HTTPError) -> str:
        """The beginning of an error's text, cut only after the key is out of it."""
        try:
            with error:
                return self._without_key(error.read(ERROR_BYTES).decode(errors="replace"))[:SHOWN]
        except (OSError, HTTPException):
            return ""

    def _late(self) -> str:
        return f"the endpoint gave no answers about an image within {self._judge.timeout_s:g} s"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _left(deadline: float) -> float:
    """Seconds until a time of the monotonic clock; TimeoutError where it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def is_local(endpoint: str) -> bool:
    """Whether an address is of this machine by its own words: no name is looked up."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def probability_of(reply: object, wanted: Sequence[str]) -> float:
    """The probability that the first token of a chat completion is one of ``wanted``.

    The sum over the tokens whose text, without the space around it and in small letters, is wanted. Where none of the
    tokens that came with their probabilities is wanted, the smallest of these probabilities is an upper bound.

    Raises:
        JudgeError: there are no such probabilities, or the bound says too little.
    """
    try:
        tops = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]  # type: ignore[index]
        found = [(str(top["token"]), float(top["logprob"])) for top in tops]
    except (LookupError, TypeError, ValueError):
        raise JudgeError("the endpoint's answer has no top_logprobs of its first token") from None
    if not found or any(math.isnan(logprob) or logprob > 1e-3 for _, logprob in found):
        raise JudgeError(f"the endpoint gave the log probabilities {found[:3]}; a log probability is 0 or less")
    own = [math.exp(logprob) for token, logprob in found if token.strip().lower() in wanted]
    if own:
        return min(1.0, math.fsum(own))
    bound = min(1.0, math.exp(min(logprob for _, logprob in found)))
    if bound > CLOSE:
        raise JudgeError(
            f"{' or '.join(wanted)} is not among the {len(found)} most probable answers; its probability may be up to "
            f"{bound:.2g}"
        )
    return bound


def _key_of(judge: Judge) -> str:
    if not judge.key:
        return ""
    key = os.environ.get(judge.key, "")
    if not key:
        raise UsageError(
            f"The judge {judge.name!r} wants a key, and the environment variable {judge.key} is not set.",
            f"export {judge.key}=...",
        )
    if not key.isprintable() or not key.isascii():
        raise UsageError(f"The key in {judge.key} holds signs that no key has.")
    return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A server of this machine must not send the images elsewhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: email.message.Message,
        newurl: str,
    ) -> None:
        """None: the redirect stays an error."""
