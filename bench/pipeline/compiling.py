"""Compiling a pipeline's networks with torch: the blocks that repeat, or the whole UNet and the VAE's decoder.

Both compile anew for every shape. Were sizes left open once a second batch size is met, an image's bytes would depend
on what was drawn before it. What is compiled reads the weights where they lie, so variants are changed beneath it.
"""

from __future__ import annotations

from typing import Any

import torch

SHAPES = 64
"""Shapes for which the code of a network may be compiled: a UNet's blocks differ in width, and runs in batch sizes."""


def compile_blocks(unet: Any) -> None:
    """Compile the blocks that repeat in a UNet, each kind once; nothing where any of it is compiled already."""
    if not is_compiled(unet):
        _allow_shapes()
        unet.compile_repeated_blocks(fullgraph=True, dynamic=False)


def compile_whole(pipe: Any) -> None:
    """Compile the whole UNet and the VAE's decoder, each as one graph; nothing of one that is compiled already.

    ``Uncompiled`` lets them run as they are written.
    """
    _allow_shapes()
    for network in (pipe.unet, pipe.vae.decoder):
        if not is_compiled(network):
            network.compile(fullgraph=True, dynamic=False)


def _allow_shapes() -> None:
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, SHAPES)


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether it or any part of it is compiled."""
    return any(one._compiled_call_impl is not None for one in module.modules())


class Uncompiled:
    """Lets networks run as they are written, compiled or not, until ``remove`` is called."""

    def __init__(self, *networks: torch.nn.Module) -> None:
        self._compiled = [
            (module, module._compiled_call_impl)
            for network in networks
            for module in network.modules()
            if module._compiled_call_impl is not None
        ]
        for module, _ in self._compiled:
            module._compiled_call_impl = None

    def remove(self) -> None:
        """Give them back what was compiled."""
        for module, call in self._compiled:
            module._compiled_call_impl = call
        self._compiled.clear()
