"""The training recipes of the embedded family: ``python -m bench.mini.train --help``."""
