"""The lock object that keeps a second writer away from a run on an object store.

A store's objects do not go with the process that wrote them, so the lock is a lease: its holder renews it, and
one that was not renewed for ``LEASE_S`` is void. A holder that died on this machine is known at once.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time

import msgspec
import psutil

from bench.errors import MachineError
from bench.records import Record
from bench.store.remote import Objects

LOCK = ".lock.json"
RENEW_S = 30.0
LEASE_S = 180.0
SETTLE_S = 2.0
"""How long a taker of a void lease waits to see whether another one took it too."""


class Holder(Record, frozen=True):
    """What the lock object holds."""

    token: str
    host: str
    process: int
    process_start: float
    renewed: float
    """Seconds since the epoch, by the holder's clock."""


class Lease:
    """The right to write below a URL, from ``Lease(objects)`` to ``release``; renewed by a thread of its own.

    Raises:
        MachineError: another driver holds it.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._token = secrets.token_hex(8)
        self._lost: MachineError | None = None
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """What tells this holding from all others."""
        return self._token

    def check(self) -> None:
        """Raise MachineError where the lease is not ours any more: nothing may be written."""
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            self._objects.delete([LOCK])

    def _take(self) -> None:
        if self._objects.create(LOCK, self._card()):
            return
        holder = self._holder()
        if holder is not None and not is_void(holder):
            raise MachineError(
                f"{self._objects.url}: in use by process {holder.process} on {holder.host}, "
                f"seen {max(0, round(time.time() - holder.renewed))} s ago.",
                f"wait until it ends, or choose another folder with -o; a driver that died is forgotten "
                f"after {LEASE_S:.0f} s",
            )
        self._objects.put(LOCK, self._card())
        time.sleep(SETTLE_S)
        if not self._is_ours():
            raise MachineError(f"{self._objects.url}: another driver took it at the same moment.", "wait until it ends")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                if not self._is_ours():
                    self._lost = MachineError(
                        f"{self._objects.url}: another driver took over, because this one was silent for too long.",
                        "wait until it ends; then the same command continues",
                    )
                    return
                self._objects.put(LOCK, self._card())
            except MachineError:
                continue  # a store that is away for a moment; whoever writes will be told, and the lease has time

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self._token

    def _holder(self) -> Holder | None:
        data = self._objects.get(LOCK)
        try:
            return None if data is None else msgspec.json.decode(data, type=Holder)
        except msgspec.DecodeError:
            return None  # half a lock of some other program holds nothing

    def _card(self) -> bytes:
        own = psutil.Process()
        return msgspec.json.encode(
            Holder(
                token=self._token,
                host=platform.node(),
                process=os.getpid(),
                process_start=own.create_time(),
                renewed=time.time(),
            )
        )


def is_void(holder: Holder) -> bool:
    """Whether a lease has run out, or its holder was a process of this machine that is no more."""
    if time.time() - holder.renewed > LEASE_S:
        return True
    if holder.host != platform.node():
        return False
    try:
        return abs(psutil.Process(holder.process).create_time() - holder.process_start) > 1
    except psutil.NoSuchProcess:
        return True
