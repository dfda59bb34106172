"""Checkpoints and LoRAs of the Hub, held to the bytes that ``fetch`` recorded. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.checkpoints.families import COMPONENTS
from bench.checkpoints.locate import Place, beside
from bench.checkpoints.safetensors_files import weight_files, weights_sha256
from bench.documents import utc_now
from bench.errors import WeightsError
from bench.weights_lock import PinnedSource, lock_path, read_lock, write_lock

DECISIVE = (".safetensors", ".yaml")
"""Suffixes of files that change what is read when they appear beside those that were recorded."""


def pin(place: Place) -> bool:
    """Record the sha256 of all that is read of a place of the Hub; once recorded, refuse other bytes.

    Returns:
        Whether it is of the Hub; nothing is recorded of other places.

    Raises:
        WeightsError: it was recorded with other bytes, or holds an index of shards that cannot be read.
        MachineError: the lock file cannot be read or written.
    """
    if place.repository is None or place.path is None:
        return False
    check_pins([place])
    lock = read_lock()
    if _key(place) not in lock.sources:
        path = Path(place.path)
        hashes = {name: weights_sha256(file) for name, file in _files(place).items()}
        source = PinnedSource(commit=_commit(path), files=hashes, recorded=utc_now())
        write_lock(msgspec.structs.replace(read_lock(), sources={**lock.sources, _key(place): source}))
    return True


def check_pins(places: Iterable[Place]) -> None:
    """Raises WeightsError where a place holds other bytes than ``fetch`` recorded of it, with both hashes."""
    sources = read_lock().sources
    for place in places:
        known = sources.get(_key(place))
        if known is None or place.path is None:
            continue
        files = _files(place)
        for name in sorted(files.keys() | known.files.keys()):
            if name not in known.files and not name.endswith(DECISIVE):
                continue
            found = weights_sha256(files[name]) if name in files else "none, for it is gone"
            wanted = known.files.get(name, "none, for it was not there")
            if found != wanted:
                version = f" (commit {known.commit})" if known.commit else ""
                raise WeightsError(
                    f"{place.what}: {name} has sha256 {found}, not {wanted}, as fetch recorded it on {known.recorded}"
                    f"{version} in {lock_path()}.",
                    f"name the commit that is meant: {place.repository}@COMMIT; or take {_key(place)} out of that file",
                )


def _key(place: Place) -> str:
    file = "" if place.file is None else f"/{place.file}"
    return f"{place.repository}@{place.revision or 'unpinned'}{file}"


def _commit(path: Path) -> str:
    """The commit that the Hub's cache keeps a snapshot of, by its folder."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def _files(place: Place) -> dict[str, Path]:
    """All that is read of a place, by path in it: weights, configurations and tokenizers."""
    path = Path(place.path or "")
    if path.is_file():
        other = path.with_name(beside(place).rpartition("/")[2])
        return {file.name: file for file in (path, other) if file.is_file()}
    weights = [file for part in ("", *COMPONENTS) for file in weight_files(path / part) if file.is_file()]
    texts = [file for pattern in ("*.json", "*/*.json", "*/*.txt") for file in path.glob(pattern)]
    return {file.relative_to(path).as_posix(): file for file in (*weights, *texts)}
