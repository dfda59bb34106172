"""The signals by which a user, a terminal or a scheduler stops a process of ours."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def on_stop(handler: Callable[[int, FrameType | None], object]) -> None:
    """Call ``handler`` when this process is to stop, in the place of an earlier handler.

    A signal that was ignored when the process began stays ignored: ``nohup``, a shell's background job.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
