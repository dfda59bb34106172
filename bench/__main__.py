"""``python -m bench`` and the console script ``hotart-bench``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from bench.machine import spare_collector

    spare_collector()
    from bench.cli import main as run_cli

    run_cli()


if __name__ == "__main__":
    main()
