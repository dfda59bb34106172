"""Copies to a device that the host does not wait for, so that it runs ahead and the device is never without work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device, cast where it was before, so that its numbers do not depend on the device.

    From the host to CUDA it goes by way of pinned memory, and the host goes on at once; a copy from other memory would
    wait for all that the device was told before. The pinned copy is never written to again: PyTorch's allocator gives
    its memory out anew only after the copy has ended.
    """
    device, tensor = torch.device(device), tensor.to(dtype or tensor.dtype)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


MADE_ON_THE_HOST = ("_get_add_time_ids", "get_guidance_scale_embedding")
"""Methods of diffusers' pipelines that make what a batch needs, which the pipeline then copies and waits."""


@functools.cache
def pipeline_class(name: str) -> Any:
    """A pipeline of diffusers by the name of its class; what it makes on the host for a batch is sent ahead."""
    kind = getattr(diffusers, name)
    methods = {made: _sent_ahead(getattr(kind, made)) for made in MADE_ON_THE_HOST if hasattr(kind, made)}
    return type(name, (kind,), methods)


def _sent_ahead(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(make)
    def made(pipe: Any, *given: Any, **named: Any) -> Tensor:
        return to_device(make(pipe, *given, **named), pipe._execution_device)

    return made


def randn_ahead(
    shape: Sequence[int],
    generator: Sequence[torch.Generator] | torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
) -> Tensor:
    """diffusers' ``randn_tensor``: the same numbers, without waiting where generators of the host draw for a device."""
    drawn = functools.partial(randn_tensor, tuple(shape), generator, dtype=dtype, layout=layout)
    generators = [generator] if generator is None or isinstance(generator, torch.Generator) else generator
    if device is None or any(one is None or one.device.type != "cpu" for one in generators):
        elsewhere: Tensor = drawn(device=device)
        return elsewhere
    return to_device(drawn(device=torch.device("cpu")), device)
