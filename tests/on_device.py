"""Tensors that behave as those on a GPU do when the host asks for their values: here, by raising."""

from __future__ import annotations

from typing import Any

import torch

ASKING = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "nonzero", "cpu", "__contains__"}
"""Methods for which the host waits until the device has done all that it was told before."""


class HostWaits(Exception):
    """The host asked for a value that lies on the device."""


class OnDevice(torch.Tensor):
    """A tensor of which no value can be had; whatever is computed with it is one too."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        indexed = name == "__getitem__" and not isinstance(args[0], cls) and isinstance(args[1], cls)
        if name in ASKING or indexed:
            raise HostWaits(name)
        return super().__torch_function__(func, types, args, kwargs or {})


def on_device(tensor: torch.Tensor) -> OnDevice:
    """The tensor as one on a device."""
    return tensor.as_subclass(OnDevice)
