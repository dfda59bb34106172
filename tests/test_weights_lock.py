"""The user's lock file: what was seen first, and hashes that are computed once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from bench.errors import MachineError, WeightsError
from bench.published_files import Entry, File, check_file
from bench.weights_lock import Lock, hash_once, lock_path, read_lock

LOOSE = Entry(name="loose", what="Unpinned", host="hub", repository="o/n", files=(File(name="gone.pt"),))


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "weights.lock.json"
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(path))
    return path


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every file that is really hashed."""
    hashed: list[str] = []
    real = hashlib.file_digest

    def noting(file, kind):
        hashed.append(file.name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noting)
    return hashed


def test_a_file_is_hashed_once_until_it_changes(
    tmp_path: Path, lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = count_hashing(monkeypatch)
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    for _ in range(3):
        assert hash_once(path) == hashlib.sha256(b"one").hexdigest()
    assert len(hashed) == 1
    path.write_bytes(b"two")  # as long as before
    os.utime(path, ns=(1, 1))
    assert hash_once(path) == hashlib.sha256(b"two").hexdigest()
    assert len(hashed) == 2


def test_a_file_put_in_its_place_is_hashed_anew(tmp_path: Path, lock_file: Path) -> None:
    path, other = tmp_path / "w.pt", tmp_path / "other.pt"
    path.write_bytes(b"one")
    hash_once(path)
    stamp = path.stat().st_mtime_ns
    other.write_bytes(b"two")
    os.utime(other, ns=(stamp, stamp))
    other.replace(path)
    assert hash_once(path) == hashlib.sha256(b"two").hexdigest()


def test_bytes_swapped_in_place_with_the_time_put_back_are_hashed_anew(tmp_path: Path, lock_file: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    hash_once(path)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock of files has gone on
        with path.open("r+b") as file:
            file.write(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert hash_once(path) == hashlib.sha256(b"two").hexdigest()


def test_a_lock_file_of_before_is_read_and_kept(tmp_path: Path, lock_file: Path) -> None:
    lock_file.parent.mkdir()
    old = {"schema": 1, "files": {"o/n@unpinned/gone.pt": {"sha256": "00", "size_bytes": 2}}, "hashed": {}}
    lock_file.write_text(json.dumps(old), "utf-8")
    (tmp_path / "w.pt").write_bytes(b"one")
    hash_once(tmp_path / "w.pt")
    found = json.loads(lock_file.read_text("utf-8"))
    assert (found["schema"], found["files"]) == (2, old["files"])


def test_files_that_are_gone_are_forgotten_and_records_are_kept(tmp_path: Path, lock_file: Path) -> None:
    gone, kept = tmp_path / "gone.pt", tmp_path / "kept.pt"
    gone.write_bytes(b"\x80gone")  # as a pickle begins
    kept.write_bytes(b"kept")
    check_file(LOOSE, LOOSE.files[0], gone)
    gone.unlink()
    hash_once(kept)
    found = json.loads(lock_file.read_text("utf-8"))
    assert list(found["hashed"]) == [str(kept)]
    assert found["files"]["o/n@unpinned/gone.pt"]["sha256"] == hashlib.sha256(b"\x80gone").hexdigest()
    assert list(lock_file.parent.iterdir()) == [lock_file]  # no temporary file is left


def test_no_lock_file_yet_is_an_empty_one(lock_file: Path) -> None:
    assert read_lock() == Lock()
    assert lock_path() == lock_file


def test_without_a_name_it_lies_in_the_users_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTART_WEIGHTS_LOCK", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert lock_path() == tmp_path / "hotart-bench" / "weights.lock.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a lock file of weights"),
        ('{"files": {"a": 1}}', "is not a lock file of weights"),
        ('{"files": {}, "files": {}}', "given twice"),
        ('{"schema": 99}', "has schema 99"),
    ],
)
def test_a_damaged_or_newer_lock_file_is_refused(lock_file: Path, text: str, words: str) -> None:
    lock_file.parent.mkdir()
    lock_file.write_text(text, "utf-8")
    with pytest.raises(WeightsError, match=words) as refused:
        read_lock()
    assert refused.value.hint


def test_a_place_that_cannot_be_written_says_which_variable_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder", "utf-8")
    monkeypatch.setattr("bench.weights_lock.read_lock", Lock)
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "file" / "lock.json"))
    with pytest.raises(MachineError, match="cannot be recorded") as refused:
        hash_once(tmp_path / "file")
    assert "HOTART_WEIGHTS_LOCK" in refused.value.hint
