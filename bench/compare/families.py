"""What looking at many differences costs: p-values adjusted within families."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench import stats
from bench.records import Delta


def adjust_p_values(deltas: Sequence[Delta]) -> tuple[Delta, ...]:
    """``deltas`` in their order, with ``p_holm`` and ``p_bh`` filled in within each one's family.

    The differences over all prompts of one pair of variants are a family: one for each metric compared.
    The tags of one pair and one metric are another: one for each tag compared. A difference without a
    p-value is in no family. Naming fewer metrics makes the first family smaller, so that choice must not
    be made by the results.
    """
    families: dict[tuple[str, str, str | None], list[int]] = {}
    for number, delta in enumerate(deltas):
        if delta.p is not None:
            within = None if delta.tag is None else delta.metric
            families.setdefault((delta.candidate, delta.reference, within), []).append(number)
    adjusted = list(deltas)
    for numbers in families.values():
        p_values = [p for number in numbers if (p := deltas[number].p) is not None]
        both = zip(stats.holm(p_values), stats.benjamini_hochberg(p_values), strict=True)
        for number, (p_holm, p_bh) in zip(numbers, both, strict=True):
            adjusted[number] = msgspec.structs.replace(deltas[number], p_holm=p_holm, p_bh=p_bh)
    return tuple(adjusted)
