"""The lock object: one writer at a time, a dead one forgotten, one that was passed over stopped."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest
from object_stores import empty_memory

from bench.errors import MachineError
from bench.store import objects as lock
from bench.store.objects import LEASE_S, LOCK, Holder, ObjectLock, Objects


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    empty_memory()
    yield Objects("memory://bucket/run")
    empty_memory()


def left_by(objects: Objects, *, host: str, process: int, start: float = 0.0, seconds_ago: float = 0.0) -> None:
    holder = Holder(token="old", host=host, process=process, process_start=start, renewed=time.time() - seconds_ago)
    objects.put(LOCK, msgspec.json.encode(holder))


def test_a_second_driver_is_refused_and_told_who_holds_it(objects: Objects) -> None:
    first = ObjectLock(objects)
    with pytest.raises(MachineError, match=rf"in use by process \d+ on {platform.node()}, seen \d+ s ago"):
        ObjectLock(objects)
    first.release()
    assert objects.names() == frozenset()
    ObjectLock(objects).release()


def test_a_driver_on_another_machine_is_believed_until_its_lock_is_void(objects: Objects) -> None:
    left_by(objects, host="elsewhere", process=1, seconds_ago=LEASE_S - 20)
    with pytest.raises(MachineError, match="in use by process 1 on elsewhere"):
        ObjectLock(objects)
    left_by(objects, host="elsewhere", process=1, seconds_ago=LEASE_S + 1)
    ObjectLock(objects).release()


def test_a_driver_of_this_machine_that_is_dead_is_forgotten_at_once(objects: Objects) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_by(objects, host=platform.node(), process=dead.pid)
    ObjectLock(objects).release()


def test_another_process_of_the_same_number_is_not_the_holder(objects: Objects) -> None:
    left_by(objects, host=platform.node(), process=os.getpid(), start=1.0)
    ObjectLock(objects).release()


def test_of_two_that_take_a_void_lock_the_last_one_has_it(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(objects, host="elsewhere", process=1, seconds_ago=LEASE_S + 1)
    monkeypatch.setattr(lock.time, "sleep", lambda _: left_by(objects, host="elsewhere", process=2))
    with pytest.raises(MachineError, match="another driver took it at the same moment"):
        ObjectLock(objects)


def test_a_driver_that_was_passed_over_may_not_write_any_more(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    held = ObjectLock(objects)
    held.check()
    left_by(objects, host="elsewhere", process=1)
    held._thread.join(20)
    with pytest.raises(MachineError, match="another driver took over"):
        held.check()
    held.release()
    assert b"elsewhere" in (objects.get(LOCK) or b""), "the new holder's lock stays"


def test_a_lock_is_renewed(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    held = ObjectLock(objects)
    first, until = objects.get(LOCK), time.monotonic() + 20
    while objects.get(LOCK) == first and time.monotonic() < until:
        time.sleep(0.01)
    assert objects.get(LOCK) != first
    held.release()
