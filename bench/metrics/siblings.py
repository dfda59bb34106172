"""The samples of a prompt, for metrics that compare them with each other. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from bench.records import Render


def siblings(renders: Iterable[Render]) -> Mapping[tuple[str, str, int], tuple[Render, ...]]:
    """Of each (variant, case, sample) the other images that the variant has of the case, those that failed left out."""
    groups: dict[tuple[str, str], list[Render]] = {}
    for render in renders:
        groups.setdefault((render.variant, render.case), []).append(render)
    return {
        (variant, case, render.sample): tuple(
            other for other in group if other.sample != render.sample and other.sha256 is not None
        )
        for (variant, case), group in groups.items()
        for render in group
    }


def digest_of(images: Iterable[str | None]) -> str | None:
    """One sha256 over those of several images, whatever their order; None where there are none.

    That of the sorted hexadecimal sha256, each followed by a line feed.
    """
    known = sorted(image for image in images if image is not None)
    return hashlib.sha256("".join(f"{image}\n" for image in known).encode()).hexdigest() if known else None
