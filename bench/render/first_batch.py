"""What a variant's first batch tells of all the others: a VAE that overflows, images that are all broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.records import Settings

REMEDY = 'a VAE that holds in float16 (vae = "madebyollin/sdxl-vae-fp16-fix") or dtype = "bfloat16" helps'


class Image(Protocol):
    """What is known of an image; ``Render`` and ``Drawn`` both are."""

    @property
    def decode_dtype(self) -> str | None:
        """Precision that it was decoded in."""

    @property
    def error(self) -> str | None:
        """Why there is none."""


def first_batch_doubt(images: Sequence[Image], settings: Settings, vae_dtype: str) -> str:
    """A sentence on a batch from which no better is to be expected of the next; empty where there is nothing.

    Args:
        images: of the batch.
        settings: of the suite.
        vae_dtype: the precision that the VAE decodes in, unless an image is not finite.
    """
    again = sum(one.decode_dtype == "float32" != vae_dtype for one in images)
    errors = [one.error for one in images if one.error is not None]
    if errors and len(errors) == len(images):
        remedy = f"; {REMEDY}" if settings.dtype == "float16" else "; see that checkpoint, VAE and sampler go together"
        return f"every image of the first batch is broken ({errors[0]}){remedy}"
    if again:
        return (
            f"its VAE overflows in {vae_dtype}: {again} of the first {len(images)} images were decoded again in "
            f"float32, which takes time and memory; {REMEDY}"
        )
    return ""
