"""Tensors that behave as those on a GPU do when the host asks for their values: here, by raising."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

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


class Copy(NamedTuple):
    """A tensor that went from the host to the card."""

    numel: int
    waited: bool
    """Whether the host waited until the card had done all that it was told before."""


class Card(TorchFunctionMode):
    """Within it "cuda" is a device, and networks lie on it; their numbers are computed here.

    A tensor on it is an ``OnDevice``, so that asking for its value raises, and so does computing with it and one of the
    host's that is more than a number. ``copies`` are those to it, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Copy] = []
        self._pinned: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cuda") if _on_card(args[0]) else func(*args)
        if func is torch.device:
            return func(*args, **kwargs)
        if name == "pin_memory":
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        asked = any(_is_cuda(one) for one in (*args, *kwargs.values()))
        if name == "to" and not _on_card(args[0]) and (asked or any(map(_on_card, args[1:]))):
            pinned = any(args[0] is one for one in self._pinned)
            self.copies.append(Copy(args[0].numel(), not (pinned and kwargs.get("non_blocking"))))
            asked = True
        elif any(map(_on_card, args)) and any(_on_host(one) for one in args):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        here = [torch.device("cpu") if _is_cuda(one) else one for one in args]
        named = {key: torch.device("cpu") if _is_cuda(one) else one for key, one in kwargs.items()}
        found = func(*here, **named)
        return on_device(found) if asked and isinstance(found, torch.Tensor) else found


def _is_cuda(value: object) -> bool:
    return str(value) == "cuda" if isinstance(value, str | torch.device) else False


def _on_card(value: object) -> bool:
    return isinstance(value, OnDevice | torch.nn.Parameter)


def _on_host(value: object) -> bool:
    return isinstance(value, torch.Tensor) and not _on_card(value) and value.ndim > 0
