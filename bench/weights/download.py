"""From the network to this machine: the Hub by its own client, other places over plain https. Imports no torch."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from bench.errors import WeightsError
from bench.records import Progress
from bench.weights.catalogue import Entry

GITHUB = "https://raw.githubusercontent.com"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


def is_offline() -> bool:
    """Whether the user forbids the network, in the words of the Hub's client."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """Where weights lie that are not on the Hub; the Hub's client has a cache of its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "hotart-bench" / "weights"


def cached(entry: Entry, name: str) -> Path | None:
    """A file that was downloaded before, without asking the network."""
    if entry.host == "github":
        path = _github_path(entry, name)
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(entry.repository, name, revision=entry.revision)
    return Path(found) if isinstance(found, str) else None


def download(entry: Entry, name: str, progress: Progress | None = None) -> Path | None:
    """The file, downloaded to the cache; None where the repository has no such file.

    Raises:
        WeightsError: it cannot be had: no network, no such repository or revision.
    """
    if entry.host == "github":
        target = _github_path(entry, name)
        return target if download_url(_github_url(entry, name), target, progress) else None
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(entry.repository, name, revision=entry.revision))
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # the Hub's client, its transport and the disk each have errors of their own
        raise _failed(f"{entry.repository}/{name}", error) from error


def download_url(url: str, target: Path, progress: Progress | None = None) -> bool:
    """The file behind an address, brought to ``target``; False where the server has none.

    What a broken download left (``<target>.part``) is continued where the server can. The target's name
    is given only to a whole file, so that half of one is never taken for it.

    Raises:
        WeightsError: no network, an error of the server, a connection that breaks off, or a full disk.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            _write_body(answer, part, have, target.name, progress)
    except urllib.error.HTTPError as error:
        if error.code == http.client.NOT_FOUND:
            return False
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()  # longer than the file is now, or whole already: its hash is not known here, so anew
            return download_url(url, target, progress)
        raise _failed(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, error) from error
    part.replace(target)
    return True


def _write_body(answer: http.client.HTTPResponse, part: Path, have: int, name: str, progress: Progress | None) -> None:
    """Append the answer to the part, or start it anew where the server does not continue."""
    resumed = answer.status == http.client.PARTIAL_CONTENT
    done = have if resumed else 0
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    with part.open("ab" if resumed else "wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress("fetch", done, total or done, name)
    if total is not None and done != total:
        raise http.client.IncompleteRead(b"", total - done)


def _failed(what: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{what}: could not be downloaded ({type(error).__name__}).",
        "the same command again continues; or give a folder that holds it with --weights-dir",
    )


def _github_path(entry: Entry, name: str) -> Path:
    return cache_folder() / entry.repository / (entry.revision or "unpinned") / name


def _github_url(entry: Entry, name: str) -> str:
    return f"{GITHUB}/{entry.repository}/{entry.revision or 'HEAD'}/{urllib.parse.quote(name)}"
