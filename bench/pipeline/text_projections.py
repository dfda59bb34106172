"""The prompt's keys and values in the UNet's cross-attention, computed once an image instead of once a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor

from bench.pipeline.compiling import is_compiled


class TextProjections:
    """The linear layers that take a prompt's states, each with what it answered last.

    A prompt's states are one tensor in all steps of an image, and so are their keys and values, bit by bit. At SDXL's
    widths they take 27 MB a row in half precision.
    """

    def __init__(self, unet: Any) -> None:
        attentions = [one for one in unet.modules() if isinstance(one, Attention) and one.is_cross_attention]
        self._kept = [_Kept(layer) for one in attentions for layer in (one.to_k, one.to_v)]

    def forget(self) -> None:
        """Compute them anew at the next call: after a weight has changed."""
        for one in self._kept:
            one.given = one.answer = None

    def remove(self) -> None:
        """Let the layers compute at each call again."""
        for one in self._kept:
            one.remove()


class _Kept:
    """A layer's ``forward`` that answers the tensor it was given last with what it answered then; hooks run as ever."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._own, self._project = layer, vars(layer).get("forward"), layer.forward
        self.given: Tensor | None = None
        self.answer: Tensor | None = None
        layer.forward = self

    def __call__(self, states: Tensor) -> Tensor:
        if states is not self.given or self.answer is None:
            self.given, self.answer = states, self._project(states)
        return self.answer

    def remove(self) -> None:
        del self._layer.forward
        if self._own is not None:  # another library's, which wraps the layer too
            self._layer.forward = self._own


@contextmanager
def text_projected_once(unet: Any) -> Iterator[Callable[[], None]]:
    """Within the context a UNet projects a prompt once; gives the call that makes it do so anew.

    Only on a CPU, where a batch of the embedded family takes 1.04 times as long without. At 1024x1024 it is a hundredth
    of SDXL's arithmetic, and a GPU's memory is needed for larger batches; compiled blocks have no layers to be called.
    """
    if unet.device.type != "cpu" or is_compiled(unet):
        yield lambda: None
        return
    kept = TextProjections(unet)
    try:
        yield kept.forget
    finally:
        kept.remove()
