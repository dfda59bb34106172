"""The peak of a process's resident memory."""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes() -> int:
    """The highest resident memory of this process; of this program alone, unlike getrusage's, which a fork inherits."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return int(kib) * 1024
