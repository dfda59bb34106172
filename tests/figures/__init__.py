"""The figures of speed and memory that ``nox -s bench`` prints: ``python -m tests.figures [NAME...]``."""
