"""``python -m bench.mini.step_evidence``: what SPO claims of single denoising steps, tried on the embedded family.

It draws and scores what ``bench.mini.step_runs`` lists and prints markdown: from which steps DPO's and SPO's gain
comes, whether the step-aware model tells the final order earlier than the plain one, where the preference at a step
contradicts the final one, and whether DPO in the first steps and SPO after them beats SPO alone. ``docs/steps.md``
shows the tables. An hour or more on two cores; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from bench.compare.pairing import pair_prompts, usable_scores
from bench.compare.steps import order_difference, step_curves, step_orders
from bench.mini.evidence import print_table, with_interval
from bench.mini.step_runs import (
    CHOSEN,
    FEW,
    SCHEDULE,
    SWITCH,
    TRAINED,
    Setting,
    draw,
    parts_of,
    read,
    suite_of,
    windowed,
)
from bench.records import Progress, Run, StepOrder, StepScore, StepWindow, Suite

PLAIN, AWARE = "mini-preference", "mini-step-aware"
PAIRS = (("dpo", "base"), ("spo", "base"), ("spo", "dpo"))
METRICS = {"craft": "craft", PLAIN: "preference", "mini-clip": "CLIP"}
"""Metric -> how a table calls it."""
NEWS_S = 30.0

Floats = NDArray[np.float64]
Row = tuple[str, ...]


class Found(NamedTuple):
    """What was drawn at a setting."""

    setting: Setting
    run: Run
    scores: Mapping[tuple[str, str], Mapping[tuple[str, int], float]]
    """(variant, metric) -> image -> score."""
    steps: tuple[StepScore, ...]

    def differences(self, candidate: str, reference: str, metric: str) -> Floats | None:
        """Paired differences of every prompt, (prompts,); None where an image is not drawn yet."""
        above, below = (self.scores.get((name, metric), {}) for name in (candidate, reference))
        suite = self.run.info.suite
        pairs = pair_prompts(suite, above, below, "image")
        if sum(one.samples for one in pairs) < len(suite.prompts) * suite.samples:
            return None
        return np.array([one.difference for one in pairs])


def main(given: Sequence[str] | None = None) -> None:
    """Draw what is missing, then print everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.mini.step_evidence", description=__doc__)
    parts = {part.name: part for setting in CHOSEN for part in parts_of(setting)}
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all by default, of: {', '.join(parts)}")
    parser.add_argument("--work", type=Path, default=Path("build/steps"), help="folder of the runs")
    parser.add_argument("--tables", action="store_true", help="draw nothing: print the tables of what is there")
    chosen = parser.parse_args(given)
    if unknown := [name for name in chosen.parts if name not in parts]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(parts)}")
    torch.set_num_threads(1)  # two take no less time on networks of this size, and the pixels are those of one
    if not chosen.tables:
        for name in chosen.parts or parts:
            draw(parts[name], chosen.work, news(parts[name].title))
    print_all([found for one in CHOSEN if (found := found_at(one, chosen.work)) is not None])


def news(what: str) -> Progress:
    """Tells on stderr how far it is, now and then."""
    told = 0.0

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal told
        if done == total or time.monotonic() - told > NEWS_S:
            told = time.monotonic()
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what} {stage} {done}/{total} {note}\n")
            sys.stderr.flush()

    return tell


def found_at(setting: Setting, place: Path) -> Found | None:
    """What was drawn at a setting so far; None before the first image."""
    drawn = read(setting, place)
    return None if drawn is None else Found(setting, drawn.run, usable_scores(drawn.run), drawn.steps)


def print_all(found: Sequence[Found]) -> None:
    """The tables, of what is there."""
    suite = suite_of(CHOSEN[0])
    extent = f"{len(suite.prompts)} held-out prompts x {suite.samples} samples, DDIM {suite.settings.steps}"
    sys.stdout.write(f"{extent}. 95 % intervals over prompts, each for itself; a band holds all steps of its column.\n")
    for one in found:
        print_part(f"From which steps the gain comes: {one.setting.title}", window_rows(one))
    for metric in ("craft", PLAIN):
        rows = [row for one in found for row in share_rows(one, metric)]
        heads = ("setting", "gain of", *spans_of(suite))
        print_part(f"Share of the whole gain in {METRICS[metric]} by window, %", [heads, *rows])
    for one in found:
        print_part(f"Pairs in the final order, %: {one.setting.title}", order_rows(one))
    print_part("The first step from which on nine tenths are in the final order", decided_rows(found))
    print_part("Pairs in the final order by mini-preference, %", consistency_rows(found))
    print_part("The mean difference in mini-preference at a step", curve_rows(found))
    print_part(f"DPO in the first {SWITCH:.0%} of the steps, SPO after them", schedule_rows(found))


def print_part(name: str, rows: Sequence[Row]) -> None:
    """A table, or that it is not drawn yet."""
    print_table(name, rows if len(rows) > 1 else [(*rows[0],), ("not drawn yet", *[""] * (len(rows[0]) - 1))])


# From which steps the gain comes.


def spans_of(suite: Suite) -> list[str]:
    """The windows' steps as text."""
    return [f"{one.first}-{one.last}" for one in windows(suite, TRAINED[0])]


def windows(suite: Suite, name: str) -> tuple[StepWindow, ...]:
    """The windows of a LoRA's steps."""
    plan = windowed(suite, name).attribution
    return () if plan is None else plan.windows


def window_rows(found: Found) -> list[Row]:
    """The gain of each LoRA as a whole and in each window alone, in each metric, and how far windows add up."""
    rows: list[Row] = [("steps", *(f"{name.upper()}: {word}" for name in TRAINED for word in METRICS.values()))]
    columns = [window_column(found, name, metric) for name in TRAINED for metric in METRICS]
    kept = [column for column in columns if column is not None]
    if len(kept) < len(columns):
        return rows
    heads = ["all", *spans_of(suite_of(found.setting)), "sum less all"]
    return [*rows, *((head, *cells) for head, *cells in zip(heads, *kept, strict=True))]


def window_column(found: Found, name: str, metric: str) -> list[str] | None:
    """Of one LoRA and metric: the whole difference, that of each window, and their sum less the whole."""
    gains = gains_of(found, name, metric)
    if gains is None:
        return None
    return [with_interval(one) for one in (*gains, np.sum(gains[1:], axis=0) - gains[0])]


def gains_of(found: Found, name: str, metric: str) -> list[Floats] | None:
    """Paired differences to base of the whole LoRA and of each window alone; None where one is not drawn yet."""
    variants = [name, *(one.variant for one in windows(suite_of(found.setting), name))]
    gains = [found.differences(variant, "base", metric) for variant in variants]
    kept = [one for one in gains if one is not None]
    return kept if len(kept) == len(gains) else None


def share_rows(found: Found, metric: str) -> list[Row]:
    """Each window's share of the whole gain of DPO and of SPO, and the second less the first, with intervals."""
    dpo, spo = (gains_of(found, name, metric) for name in TRAINED)
    if dpo is None or spo is None:
        return []
    where = found.setting.title
    return [
        (where, "DPO", *(ratio_interval(part, dpo[0]) for part in dpo[1:])),
        (where, "SPO", *(ratio_interval(part, spo[0]) for part in spo[1:])),
        (where, "SPO - DPO", *(share_gap(*pair, spo[0], dpo[0]) for pair in zip(spo[1:], dpo[1:], strict=True))),
    ]


def ratio_interval(part: Floats, whole: Floats) -> str:
    """mean(part) / mean(whole) in percent with its interval over prompts, which are drawn again for both means."""
    return resampled([part, whole], lambda a, b, axis: a.mean(axis) / b.mean(axis), "")


def share_gap(spo_part: Floats, dpo_part: Floats, spo: Floats, dpo: Floats) -> str:
    """SPO's share of a window less DPO's in points of percent, prompts drawn again for all four means together."""
    return resampled(
        [spo_part, spo, dpo_part, dpo],
        lambda a, b, c, d, axis: a.mean(axis) / b.mean(axis) - c.mean(axis) / d.mean(axis),
        "+",
    )


def resampled(samples: Sequence[Floats], statistic: Callable[..., Floats], sign: str) -> str:
    """A statistic of paired samples in percent with the percentiles of its bootstrap; a sign of "+" is always shown."""
    value, dice = float(statistic(*samples, axis=0)), np.random.default_rng(0)
    found = bootstrap(list(samples), statistic, paired=True, vectorized=True, method="percentile", rng=dice)
    ends = found.confidence_interval
    return f"{100 * value:{sign}.0f} [{100 * ends.low:{sign}.0f}, {100 * ends.high:{sign}.0f}]"


# When the order is that of the end.


def order_rows(found: Found) -> list[Row]:
    """Share of pairs in the order of the final images by the plain and the step-aware model, and their difference."""
    pairs = {"two samples of base": ("base", "base"), "SPO against DPO": ("spo", "dpo")}
    heads = [f"{name}: {word}" for name in pairs for word in ("plain", "step-aware", "difference")]
    rows: list[Row] = [("step", *heads)]
    columns: list[dict[int, str]] = []
    for pair in pairs.values():
        orders = {name: order_of(found, pair, name, PLAIN) for name in (PLAIN, AWARE)}
        gap = order_difference(found.run, found.steps, pair, (AWARE, PLAIN), PLAIN)
        plain, aware = orders[PLAIN], orders[AWARE]
        if plain is None or aware is None or gap is None:
            return rows
        columns += [dict(zip(one.steps, map(percent, one.agreement), strict=True)) for one in (plain, aware)]
        columns.append(
            {
                step: f"{100 * mean:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"
                for step, mean, low, high in zip(gap.steps, gap.mean, gap.low, gap.high, strict=True)
            }
        )
    return [*rows, *((str(step), *(column[step] for column in columns)) for step in FEW if step in columns[0])]


def order_of(found: Found, pair: tuple[str, str], metric: str, final: str) -> StepOrder | None:
    """The order of a pair of variants, or of two samples of one, by a metric at the steps; None before it is drawn."""
    own = [one for one in found.steps if one.metric == metric]
    sides = [pair] if pair[0] != pair[1] else [("spo", pair[1])]
    orders = step_orders(found.run, own, sides, {metric: final})
    same = [one for one in orders if (one.candidate, one.reference) == pair and not one.final_is_last_step]
    return same[0] if same else None


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.0f}"


def decided_rows(found: Sequence[Found]) -> list[Row]:
    """When the plain and the step-aware model have decided, and at which steps one is ahead with the whole band."""
    head = ("setting", "pairs", "prompts", "final order by", "plain", "step-aware", "step-aware ahead at", "behind at")
    return [head, *(row for one in found for row in _decided(one))]


def _decided(found: Found) -> Iterator[Row]:
    for pair, name in ((("base", "base"), "two samples of base"), (("spo", "dpo"), "SPO against DPO")):
        for final in (PLAIN, "craft"):
            plain, aware = (order_of(found, pair, name, final) for name in (PLAIN, AWARE))
            gap = order_difference(found.run, found.steps, pair, (AWARE, PLAIN), final)
            if plain is None or aware is None or gap is None:
                continue
            ahead = [step for step, low in zip(gap.steps, gap.low, strict=True) if low > 0]
            behind = [step for step, high in zip(gap.steps, gap.high, strict=True) if high < 0]
            decided = (str(one.decided_step or "never") for one in (plain, aware))
            yield found.setting.title, name, str(gap.prompts), final, *decided, spans(ahead), spans(behind)


def spans(steps: Sequence[int]) -> str:
    """Steps as text: ``1-3, 7``; ``none`` without any."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][-1] == step - 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"


def consistency_rows(found: Sequence[Found]) -> list[Row]:
    """Share of pairs of variants in the final order at some steps, and where the order is the reverse."""
    rows: list[Row] = [("setting", "pair", "prompts", *(f"step {step}" for step in FEW), "reversed at", "decided at")]
    for one in found:
        for pair in PAIRS:
            order = order_of(one, pair, PLAIN, PLAIN)
            if order is None:
                continue
            shares = dict(zip(order.steps, order.agreement, strict=True))
            cells = (percent(shares[step]) if step in shares else "" for step in FEW)
            ends = spans(order.reversed_steps), str(order.decided_step or "never")
            rows.append((one.setting.title, f"{pair[0]} - {pair[1]}", str(order.prompts), *cells, *ends))
    return rows


def curve_rows(found: Sequence[Found]) -> list[Row]:
    """The mean difference of two variants at some steps with its band, and that of the final images."""
    rows: list[Row] = [("setting", "pair", *(f"step {step}" for step in FEW), "final")]
    for one in found:
        own = [score for score in one.steps if score.metric == PLAIN]
        for curve in step_curves(one.run, own, PAIRS):
            ends = zip(curve.mean, curve.low, curve.high, strict=True)
            cells = {
                step: f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
                for step, (mean, low, high) in zip(curve.steps, ends, strict=True)
            }
            final = "" if curve.final is None else f"{curve.final:+.2f}"
            shown = (cells.get(step, "") for step in FEW)
            rows.append((one.setting.title, f"{curve.candidate} - {curve.reference}", *shown, final))
    return rows


# The schedule.


def schedule_rows(found: Sequence[Found]) -> list[Row]:
    """The schedule less SPO at all steps, in each metric, and for orientation all three less base."""
    against = [f"{name} - base: craft, preference" for name in ("DPO", "SPO", "schedule")]
    rows: list[Row] = [("setting", *(f"schedule - SPO: {word}" for word in METRICS.values()), *against)]
    for one in found:
        gains = [one.differences(SCHEDULE, "spo", metric) for metric in METRICS]
        kept = [with_interval(gain) for gain in gains if gain is not None]
        if len(kept) == len(METRICS):
            rows.append((one.setting.title, *kept, *(both_means(one, name) for name in (*TRAINED, SCHEDULE))))
    return rows


def both_means(found: Found, variant: str) -> str:
    """A variant less base in craft and in mini-preference."""
    gains = [found.differences(variant, "base", metric) for metric in ("craft", PLAIN)]
    return ", ".join("" if gain is None else f"{gain.mean():+.3f}" for gain in gains)


if __name__ == "__main__":
    main()
