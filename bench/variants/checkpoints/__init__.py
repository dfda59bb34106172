"""Checkpoints of every layout behind one protocol, ``bench.variants.checkpoint.Checkpoint``. Imports no torch.

``open_checkpoint(variant, weights_dir)`` gives what a variant is rendered from; ``open_source(name, ...)`` a whole
checkpoint by its name; ``open_named(name, ...)`` the same, of which components may be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.variants.checkpoints.opening import open_checkpoint, open_named, open_source, scheduler_config
    from bench.variants.checkpoints.tokens import tokenizers

__all__ = ["open_checkpoint", "open_named", "open_source", "scheduler_config", "tokenizers"]


def __getattr__(name: str) -> Any:
    # Not at the top: the sources of checkpoints, which opening them needs, need this package's configurations.
    if name == "tokenizers":
        from bench.variants.checkpoints import tokens

        return tokens.tokenizers
    if name in __all__:
        from bench.variants.checkpoints import opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
