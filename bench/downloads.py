"""Downloads: whether there is a connection, and why one failed. Imports no torch."""

from __future__ import annotations

import errno
import functools
import os
import time
from urllib.parse import urlsplit

from huggingface_hub import constants

from bench.errors import HotartError, MachineError, WeightsError

HUB = constants.ENDPOINT
TIMEOUT_S = 10
"""A server that has not answered by then counts as one that cannot be reached."""
OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""A full disk, or a folder that must not be written."""
ELSEWHERE = (
    "hotart-bench fetch SUITE, or fetch --metrics NAME, where there is a network; or --weights-dir DIR with the files "
    "in DIR/owner/name/"
)
"""The hint where nothing can be downloaded."""


def no_connection(url: str) -> str | None:
    """Why nothing can be downloaded from a server, as a clause; None where it answers, whatever it says.

    The server is asked once a minute at most and without trying again: the Hub's client tries each file for 23 s.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(url)
    return _asked(f"{parts.scheme}://{parts.netloc}", int(time.monotonic() // 60))


@functools.cache
def _asked(server: str, minute: int) -> str | None:
    from huggingface_hub import get_session  # knows the user's proxies; imports the HTTP client, 0.1 s

    try:
        get_session().head(server, timeout=TIMEOUT_S)
    except Exception as error:  # each HTTP client has errors of its own
        return f"there is no connection to {urlsplit(server).hostname} ({_said(error)})"
    return None


def failed(what: str, error: Exception) -> HotartError:
    """The error for a download of ``what`` that failed, with the true reason: a MachineError for disk and permission.

    Gated, private and missing repositories and revisions are told as the Hub's client tells them apart.
    """
    from huggingface_hub import errors  # imports the HTTP client

    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in OF_THIS_MACHINE:
        where = f" {error.filename}" if error.filename else ""
        return MachineError(
            f"{what}: could not be downloaded: {os.strerror(number)}{where}.",
            "make room, or name another folder in HF_HOME (XDG_CACHE_HOME for the files of GitHub)",
        )
    again, sign_in = "the same command again continues; or --weights-dir DIR with the files", ": hf auth login"
    status = getattr(getattr(error, "response", None), "status_code", None)
    why, hint = _said(error), again
    if isinstance(error, errors.GatedRepoError):
        why, hint = "its owner asks to accept terms first", f"accept them on its page on the Hub, then{sign_in}"
    elif isinstance(error, errors.RevisionNotFoundError):
        why, hint = "the repository has no such revision", "correct the revision, or leave it out"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why, hint = (
            "there is no such repository, or it is private",
            f"correct the name, or if private{sign_in}",
        )
    elif status is not None:
        why = f"the server answered {status}"
    return WeightsError(f"{what}: could not be downloaded: {why}.", hint)


def _said(error: BaseException) -> str:
    """What the innermost error says, which is the one that knows: a name that is not known, a connection refused."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())[:120].rstrip(".")
    return text or type(error).__name__
