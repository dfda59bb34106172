"""Scores that do not follow the images: the same on every prompt, or nearly so beside the other side's."""

from __future__ import annotations

from bench.stats.effects import Floats, sd

FLAT = 0.01
"""Scores whose standard deviation over the prompts is under this share of the other side's do not follow the images."""


def flat_scores(above: Floats, below: Floats, at_its_end: float | None = None) -> str:
    """Why scores tell nothing that do not vary, or next to nothing beside the other side's; empty where they do.

    Args:
        above: (n,) the candidate's prompt means, n >= 2.
        below: (n,) the reference's.
        at_its_end: the best score that there is, as of a face found on every picture, or that of an image with none of
            what must not rise: a side of nothing else tells just that.
    """
    sides = {"the candidate": above, "the reference": below}
    spreads = {side: sd(means) for side, means in sides.items() if (means != at_its_end).any()}
    widest = max(spreads.values(), default=0.0)
    if len(spreads) == 2 and widest == 0:
        return "it gives every prompt the same score on both sides, so it tells nothing"
    for side, spread in spreads.items():
        if spread == 0:
            return f"{side} has the same score on every prompt, so its scores say nothing of its images"
        if spread < FLAT * widest:
            return (
                f"the scores of {side} vary from prompt to prompt by less than {FLAT:.0%} of the other side's, so they "
                "say nothing of its images"
            )
    return ""
