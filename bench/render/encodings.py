"""Encoded prompts as they are needed: a window of the next ones at a time, within a budget of the host's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch

from bench.pipeline.denoise import Encoded
from bench.records import PlannedImage, Suite

WINDOW = 64
"""Prompts that are encoded together. On a GPU the host waits once a window, not once a batch."""
KEPT_BYTES = 2**25
"""What is kept for the variants to come: 100 prompts at SDXL's widths in half precision. Encoding one anew takes a
hundredth of drawing it."""

Batches = Sequence[Sequence[PlannedImage]]
Encode = Callable[[Batches, Mapping[str, Encoded]], Mapping[str, Encoded]]


class Encodings:
    """Prompts by id as one set of text encoders reads them; those used last are kept.

    A negative prompt that many prompts share, which for SDXL may be all zeros, is kept once.

    Args:
        suite: whose prompts.
        kept_bytes: how much is kept, the window that is being drawn apart.
    """

    def __init__(self, suite: Suite, kept_bytes: int = KEPT_BYTES) -> None:
        self._negatives = {prompt.id: prompt.negative for prompt in suite.prompts}
        self._kept_bytes, self._bytes = kept_bytes, 0
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._shared: dict[tuple[str, int], Encoded] = {}

    def of(self, batches: Batches, number: int, encode: Encode) -> Mapping[str, Encoded]:
        """The prompts of a batch.

        Args:
            batches: of the variant, in the order that they are drawn in.
            number: of the batch, from 0.
            encode: encodes the prompts of batches but for those that are known.
        """
        wanted = dict.fromkeys(image.prompt_id for image in batches[number])
        if not wanted.keys() <= self._kept.keys():
            self._keep(encode(_window(batches, number), self._kept))
        for name in wanted.keys() & self._kept.keys():
            self._kept.move_to_end(name)
        return {name: self._kept[name] for name in wanted if name in self._kept}

    def _keep(self, found: Mapping[str, Encoded]) -> None:
        for name, encoded in found.items():
            if name not in self._kept:
                self._kept[name] = self._with_shared(name, encoded)
                self._bytes += _own_bytes(encoded)
            self._kept.move_to_end(name)
        while self._bytes > self._kept_bytes and len(self._kept) > len(found):
            self._bytes -= _own_bytes(self._kept.popitem(last=False)[1])

    def _with_shared(self, name: str, encoded: Encoded) -> Encoded:
        """The same with the negative prompt's tensors that are there already, where they are equal bit by bit."""
        if encoded.negative is None:
            return encoded
        known = self._shared.setdefault((self._negatives[name], encoded.negative.shape[1]), encoded)
        if not (_equal(known.negative, encoded.negative) and _equal(known.negative_pooled, encoded.negative_pooled)):
            return encoded
        return encoded._replace(negative=known.negative, negative_pooled=known.negative_pooled)


def _window(batches: Batches, number: int) -> Batches:
    """The batches from one on, until they have ``WINDOW`` prompts."""
    names: set[str] = set()
    window = []
    for batch in islice(batches, number, None):
        window.append(batch)
        names.update(image.prompt_id for image in batch)
        if len(names) >= WINDOW:
            break
    return window


def _own_bytes(encoded: Encoded) -> int:
    """What a prompt takes, without its negative prompt."""
    return sum(part.nbytes for part in (encoded.prompt, encoded.pooled) if part is not None)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))
