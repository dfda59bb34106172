"""``python -m bench`` and the console script ``hotart-bench``."""

from __future__ import annotations

import contextlib
import os

from bench.stopping import on_stop


def main() -> None:
    """Run the command line."""
    on_stop(_stop_before_it_begins)
    _open_streams()
    # No Python that is started from here, by us or by a library, takes modules from the working directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    from bench.machine import spare_collector

    spare_collector()
    from bench.cli import main as run_cli

    run_cli()


def _stop_before_it_begins(*_: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"hotart-bench: Stopped before it began. Nothing was changed.\n")
    os._exit(130)


def _open_streams() -> None:
    """Open what was closed (``>&-``) as a place that takes all, or the next file opened would be taken for stdout."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)


if __name__ == "__main__":
    main()
