"""What a card tells of a variant: found once, for the Hub's README and for a model page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from bench import formatting as text
from bench.card.licences import Chain, Licensed, work_out
from bench.card.sources import Source, find_sources, own_name, recipe_text
from bench.compare import compare_run, metric_means
from bench.compare.attribution import attribute_steps
from bench.compare.finding import find_in_run
from bench.compare.grid import compare_grid
from bench.compare.grid_view import order_sentence
from bench.compare.sweep import PIXEL_SHIFT, sweep_curve
from bench.compare.votes import vote_results
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.formatting import argument
from bench.gate.outcomes import WORDS, worst_first
from bench.records import (
    Delta,
    Family,
    Finding,
    FindingMetric,
    Fingerprint,
    Gate,
    MetricFacts,
    MetricMean,
    Run,
    Suite,
    SweepCurve,
    Variant,
    VotedPair,
    WeightFile,
    WindowFront,
    WindowPlace,
)
from bench.report.findings import TOGETHER, candidate_mean, cells
from bench.report.gate import against, lead, tally
from bench.report.steps import front_sentences, gain_cell, share_cell, window_span
from bench.report.tables import headline_first
from bench.soundness import Hashes, doubts, pruned_variants
from bench.store.grid import GridRuns
from bench.suite.grid import setting_words
from bench.suite.sampler_names import a1111_names

NEARLY_ALL = 0.9
"""Share of the largest gain of a sweep that the advised weight keeps, as of a window of steps."""
WORST_SHOWN = 3
FAMILIES: Mapping[Family, str] = {"sdxl": "Stable Diffusion XL", "sd15": "Stable Diffusion 1.5"}


@dataclass(frozen=True)
class Wishes:
    """What the maker says, which nothing here could know."""

    variant: str | None = None
    title: str | None = None
    licence: str | None = None
    licences: Mapping[str, str] | None = None
    """Of inputs, by name or repository."""
    base_models: tuple[str, ...] = ()
    """Hub ids."""


@dataclass(frozen=True)
class Tried:
    """One setting, weight or window that was tried, and what came of it."""

    setting: str
    result: str


@dataclass(frozen=True)
class CardFacts:
    """Everything that both forms of a card show."""

    run: Run
    title: str
    variant: Variant
    reference: str
    """What it was compared with, in words; empty where nothing was."""
    family: Family | None
    relation: str | None
    """``merge``; None where nothing tells."""
    base_models: tuple[str, ...]
    what: tuple[str, ...]
    """What it is, in sentences."""
    sources: tuple[Source, ...]
    files: tuple[WeightFile, ...]
    recipe: str
    chain: Chain
    settings: tuple[tuple[str, str], ...]
    tried: tuple[Tried, ...]
    tried_notes: tuple[str, ...]
    advised: tuple[str, ...]
    means: tuple[MetricMean, ...]
    deltas: Mapping[str, Delta]
    """By metric, against the reference, over all prompts."""
    finding: Finding | None
    gate: Gate | None
    gate_sentences: tuple[str, ...]
    worse: tuple[str, ...]
    warnings: tuple[str, ...]
    """What a reader has to know before any number: a limited run, pictures that are gone."""
    votes: tuple[str, ...]
    """What people voted, in sentences, without their names; () without any."""

    @property
    def suite(self) -> Suite:
        """The run's."""
        return self.run.info.suite

    @property
    def limited(self) -> bool:
        """Whether the run is one for trying out, whose numbers are not results."""
        return self.suite.limit is not None


def card_facts(
    run: Run,
    hashes: Hashes,
    wishes: Wishes,
    *,
    gate: Gate | None = None,
    grid: GridRuns | None = None,
    weights_dir: Path | None = None,
) -> CardFacts:
    """The facts of one variant of a run.

    Args:
        run: a finished run.
        hashes: of its images, as ``bench.store.image_hashes`` gives them.
        wishes: which variant, and what the maker says of it.
        gate: on this run.
        grid: the grid that the run is one of.
        weights_dir: a folder of local weights.

    Raises:
        UsageError: no or an unknown variant, or a licence of something that did not go in.
        InvalidError: the run is not finished, or not what its records say; a mean that is not finite.
        IncomparableError: the gate is of another run.
    """
    if gate is not None and gate.run_id != run.info.id:
        raise IncomparableError(
            f"The gate is of the run {gate.run_id}, and the card of {run.info.id}.",
            f"hotart-bench gate {argument(run.path)} --baseline PATH --json gate.json",
        )
    deltas = compare_run(run, tags=False)
    curve = sweep_curve(run, deltas)
    name = choose_variant(run, wishes.variant, curve)
    _refuse_unfinished(run, name, hashes)
    suite = run.info.suite
    variant = next(one for one in suite.variants if one.name == name)
    known = next((one for one in run.info.variants if one.name == name), None)
    finding, reference = _finding(run, name, gate)
    sources = find_sources(variant, known, weights_dir, wishes.licences or {})
    family = known.audit.checkpoint.family if known is not None and known.audit is not None else None
    against_reference = {
        one.metric: one for one in deltas if one.candidate == name and one.reference == suite.variants[0].name
    }
    found = attribute_steps(run, deltas)
    front = None if found is None else found.front
    # What is best, after where no window is beaten and before how losses are counted.
    about_steps = front_sentences(front, found) if found is not None and front is not None else []
    tried, tried_notes = _tried(name, curve, grid, front)
    return CardFacts(
        run=run,
        title=(wishes.title or "").strip() or name,
        variant=variant,
        reference=reference,
        family=family,
        relation=_relation(variant, sources),
        base_models=wishes.base_models or _base_models(sources),
        what=_what(variant, sources, family),
        sources=sources,
        files=() if known is None else known.files,
        recipe=recipe_text(sources),
        chain=_chain(sources, (wishes.licence or "").strip() or None),
        settings=_settings(suite, variant),
        tried=tried,
        tried_notes=(*about_steps[:1], *about_steps[2:], *tried_notes),
        advised=(*_advised_weight(run, curve), *about_steps[1:2]),
        means=_means(run, name),
        deltas=against_reference,
        finding=finding,
        gate=gate,
        gate_sentences=() if gate is None else _gate_sentences(gate, name),
        worse=_worse(run, finding, against_reference, name),
        warnings=_warnings(run, hashes, known, sources),
        votes=_votes(run, name),
    )


def choose_variant(run: Run, wanted: str | None, curve: SweepCurve | None) -> str:
    """The variant that the card is of: the one that is named, the only one, or the advised weight of a sweep.

    Raises:
        UsageError: an unknown one, or none is named where there are several.
    """
    suite = run.info.suite
    names = [one.name for one in suite.variants]
    if wanted is not None:
        if wanted not in names:
            raise UsageError(
                f"--variant: {wanted!r} is not one of {', '.join(names)}{text.did_you_mean(wanted, names)}.",
                "hotart-bench card --help",
            )
        return wanted
    advised = None if curve is None else advised_point(curve, run.info.metrics)
    if curve is not None and advised is not None:
        return curve.points[advised].variant
    if suite.attribution is not None:
        return suite.attribution.variant
    others = names[1:] or names
    if len(others) > 1:
        raise UsageError(
            f"Which variant is the card of? The run has {text.joined(others)} besides {names[0]}.",
            f"hotart-bench card {argument(run.path)} --variant {argument(others[-1])} -o README.md",
        )
    return others[0]


def _refuse_unfinished(run: Run, name: str, hashes: Hashes) -> None:
    suite = run.info.suite
    found = doubts(run, hashes)
    names = dict.fromkeys((name, suite.variants[0].name))
    clauses = [f"{one}: {clause}" for one in names for clause in found.get(one, ())]
    if clauses:
        raise InvalidError(
            f"{run.path}: no card is written of a run that is not finished or not what its records say. "
            f"{'; '.join(clauses[:3])}.",
            text.continuing(suite, run.path),
        )


def _finding(run: Run, name: str, gate: Gate | None) -> tuple[Finding | None, str]:
    """The finding on the variant and what it was compared with: the run's first variant, else the gate's reference."""
    first = run.info.suite.variants[0].name
    if name != first:
        found = find_in_run(run, [(name, first)])
        return (found[0] if found else None), first
    for one in () if gate is None else gate.findings:
        if one.candidate == name:
            return one, one.reference
    return None, ""


def _chain(sources: Sequence[Source], given: str | None) -> Chain:
    """The licence: the maker's word, else what a merged file or recipe says of itself, else what follows.

    A recipe, or a file whose sources are known, is no source of its own.
    """
    made = [one for one in sources if one.recipe]
    parts = [one for one in sources if not one.recipe] or made
    own = next((one for one in made if one.licence is not None), None)
    if given is None and own is not None and own.licence is not None:
        given, whose = own.licence, f"{own.name} says so of itself."
    else:
        whose = "The maker says so."
    return work_out([Licensed(one.name, one.licence) for one in parts], given, whose)


def _relation(variant: Variant, sources: Sequence[Source]) -> str | None:
    roles = [one for one in sources if one.role != "VAE" and not one.role.startswith("VAE ")]
    if any(one.merged for one in sources) or len(roles) > 1 or variant.unet_steps:
        return "merge"
    return None


def _base_models(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.repository for one in sources if one.repository is not None))


def _what(variant: Variant, sources: Sequence[Source], family: Family | None) -> tuple[str, ...]:
    kind = FAMILIES[family] if family is not None else ""
    if not sources:
        return ("Its pictures were made elsewhere: nothing is known of its weights.",)
    parts = [
        one.name + (f" {one.role.removeprefix('LoRA ')}" if one.role.startswith("LoRA") else "") for one in sources
    ]
    said = [f"A model of the family {kind}." if kind else ""]
    said.append(f"It is made of {text.joined(list(dict.fromkeys(parts)))}." if len(parts) > 1 else "")
    if variant.loras and not variant.fuse:
        said.append("Its LoRAs ran unfused.")
    if any(lora.step_factors for lora in variant.loras) or variant.unet_steps:
        said.append("It follows a schedule of steps, which no single file holds.")
    if variant.runtime is not None:
        said.append(f"Its pictures were drawn with the runtime {variant.runtime}, which is in no file of weights.")
    return tuple(filter(None, said))


# Settings: those of the run, and what else was tried.


def _settings(suite: Suite, variant: Variant) -> tuple[tuple[str, str], ...]:
    """The settings of the run by the names of A1111, for a model page."""
    one = suite.settings
    if suite.external_images is not None:
        return (
            ("size", f"{one.width}x{one.height}"),
            ("other settings", "not known: the pictures were made elsewhere"),
        )
    sampler, schedule = a1111_names(one.sampler, one.schedule)
    found = [
        ("sampler", sampler or one.sampler),
        ("schedule", schedule or one.schedule),
        ("steps", str(one.steps)),
        ("CFG scale", f"{one.guidance_scale:g}"),
        ("size", f"{one.width}x{one.height}"),
        ("clip skip", "" if one.clip_skip is None else str(one.clip_skip)),
        ("CFG rescale", f"{one.guidance_rescale:g}" if one.guidance_rescale else ""),
        ("VAE", "in the checkpoint" if variant.vae is None else own_name(variant.vae)),
        ("precision", one.dtype),
        ("prompt syntax", one.prompt_syntax),
    ]
    return tuple((name, value) for name, value in found if value)


def _tried(
    name: str, curve: SweepCurve | None, grid: GridRuns | None, front: WindowFront | None
) -> tuple[tuple[Tried, ...], tuple[str, ...]]:
    """The weights of a sweep, the windows of an attribution, the settings of a grid; and what follows of a grid."""
    rows: list[Tried] = []
    notes: list[str] = []
    if curve is not None and curve.goals:
        rows += [
            Tried(f"weight {point.weight:g}", _goals_text(curve, index)) for index, point in enumerate(curve.points)
        ]
    if front is not None:
        rows += [_of_window(place, front) for place in front.places]
    if grid is not None:
        more, said = _of_grid(grid, name)
        rows, notes = rows + more, notes + said
    return tuple(rows), tuple(notes)


def _of_window(place: WindowPlace, front: WindowFront) -> Tried:
    gain = f"{front.metric} {gain_cell(place, front)}, {share_cell(place)} of the gain"
    loss = f"largest loss {text.number(place.loss, 2)}" + (f" in {place.worst}" if place.worst else "")
    return Tried(f"steps {window_span(place)}", f"{gain}; {loss}")


def _goals_text(curve: SweepCurve, index: int) -> str:
    point = curve.points[index]
    parts = []
    for goal in curve.goals:
        if goal == PIXEL_SHIFT:
            parts.append("" if point.pixel_shift is None else f"{goal} {text.number(point.pixel_shift, 2)}")
        elif goal in point.deltas:
            one = point.deltas[goal]
            decimals = text.decimals_of_deltas([one])
            parts.append(f"{goal} {text.signed(one.mean, decimals)} {text.interval(one.interval, decimals)}")
    return ", ".join(filter(None, parts)) + (", beaten by no other weight" if point.on_front else "")


def _of_grid(grid: GridRuns, name: str) -> tuple[list[Tried], list[str]]:
    first = grid.grid.suite.variants[0].name
    if name == first:
        return [], []
    found = compare_grid(grid, pairs=[(name, first)])
    directed = [one for one in found if one.higher_is_better is not None]
    if not directed:
        return [], [f"{len(grid.grid.members)} settings were planned; they have no scores of a pair yet."]
    rows = []
    for number, cell in enumerate(directed[0].cells):
        parts = []
        for one in directed[:3]:
            same = one.cells[number]
            half = 0.0 if same.interval is None else (same.interval.high - same.interval.low) / 2
            decimals = text.decimals_for(half if half > 0 else abs(same.mean))
            parts.append(f"{one.metric} {text.signed(same.mean, decimals)} {text.interval(same.interval, decimals)}")
        rows.append(Tried(setting_words(cell.setting), ", ".join(parts)))
    return rows, [order_sentence(grid.grid, one) for one in directed]


def advised_point(curve: SweepCurve, metrics: Sequence[MetricFacts]) -> int | None:
    """Which point of a sweep is advised: the smallest weight of those that no other beats and that keep nine tenths of
    the largest gain in the first goal; None where no gain is told from 0.
    """
    goal = curve.goals[0] if curve.goals else ""
    sign = -1 if any(one.name == goal and one.higher_is_better is False for one in metrics) else 1
    gains = {}
    for index, point in enumerate(curve.points):
        one = point.deltas.get(goal)
        if one is not None and one.interval is not None and min(sign * one.interval.low, sign * one.interval.high) > 0:
            gains[index] = sign * one.mean
    most = max(gains.values(), default=0.0)
    able = [index for index, gain in gains.items() if gain >= NEARLY_ALL * most and curve.points[index].on_front]
    return min(able, key=lambda index: abs(curve.points[index].weight), default=None)


def _advised_weight(run: Run, curve: SweepCurve | None) -> tuple[str, ...]:
    """The weight that is advised, in a sentence; none of a run that is no sweep."""
    if curve is None or not curve.goals:
        return ()
    index = advised_point(curve, run.info.metrics)
    if index is None:
        return (f"No weight is advised: no gain in {curve.goals[0]} is told from 0.",)
    return (
        f"Weight {curve.points[index].weight:g}: the smallest that no other beats in {text.joined(curve.goals)} and "
        f"that keeps nine tenths of the largest gain in {curve.goals[0]}. A weight that was chosen on these prompts "
        "looks better on them than on others.",
    )


# Numbers.


def _means(run: Run, name: str) -> tuple[MetricMean, ...]:
    """Each metric's mean of the variant, those that people ask for first.

    Raises:
        InvalidError: one is not finite.
    """
    order = {facts.name: place for place, facts in enumerate(headline_first(run.info.metrics))}
    found = [one for one in metric_means(run) if one.variant == name and one.mean is not None]
    for one in found:
        if not abs(one.mean or 0.0) < float("inf"):  # NaN neither
            raise InvalidError(f"{run.path}: the mean of {one.metric} of {name} is {one.mean}, which is no number.")
    return tuple(sorted(found, key=lambda one: order[one.metric]))


def metric_rows(card: CardFacts) -> list[dict[str, str]]:
    """The metrics as a table of the card: the finding's where there is one, else the means alone."""
    if card.finding is not None:
        return [
            {"metric": one.metric, "reads": _reads(one), **cells(one)}
            for one in card.finding.metrics
            if candidate_mean(one) is not None
        ]
    rows = []
    for one in card.means:
        half = 0.0 if one.interval is None else (one.interval.high - one.interval.low) / 2
        decimals = text.decimals_for(half if half > 0 else abs(one.mean or 0.0))
        shown = {"candidate": text.number(one.mean, decimals), "interval": text.interval(one.interval, decimals, False)}
        rows.append({"metric": one.metric, "reads": "", "overlap": "", "reference": "", "difference": "", **shown})
    return rows


def interval_note(card: CardFacts) -> str:
    """Which intervals of a card hold for all metrics together and which for each alone, at which level and by which
    method; empty where there is none.
    """
    found = [one.interval for one in card.means if one.interval is not None]
    levels = text.joined(list(dict.fromkeys(text.percent(one.level) for one in found)))
    alone = f"{levels} each, every metric by itself ({text.joined(list(dict.fromkeys(one.method for one in found)))})"
    rows = [one.interval for one in card.finding.metrics if one.interval is not None] if card.finding else []
    said = []
    if rows:
        said.append(
            f"The intervals beside the metrics here are of the differences and hold for all "
            f"{text.plural(len(rows), 'metric')} together: {TOGETHER} ({rows[0].method})."
        )
    elif found and card.finding is None:
        said.append(f"The intervals beside the metrics here are of the means: {alone}.")
    if found and not card.limited:
        said.append(f"Those in the model-index of the card for the Hub, of means and of differences, are {alone}.")
    return " ".join(said)


def _reads(one: FindingMetric) -> str:
    return one.reads + (f" ({one.reason})" if one.reason else "")


def overlaps(card: CardFacts) -> list[str]:
    """What the variant was trained on, and which metrics share it, in sentences."""
    known = card.run.info.trained_on.get(card.variant.name)
    said = []
    if known is None:
        said.append("Nobody says what it was trained on, so that the overlap of every metric is unknown.")
    else:
        names = text.joined(list(known.names)) or "nothing after its base"
        said.append(f"Trained on, as far as its parts say: {names}.")
        if known.unknown:
            said.append(f"Of {text.joined(list(known.unknown))} nobody says it.")
        said += known.notes
    for label in ("same data", "related data", "unknown"):
        found = [
            one.metric
            for one in (card.finding.metrics if card.finding is not None else ())
            if one.training_overlap == label and one.higher_is_better is not None
        ]
        if found:
            said.append(f"{text.joined(found)}: {label}.")
    variant = card.variant
    parts = (variant.unet, variant.vae, *(name for _, name in variant.unet_steps), *(one.path for one in variant.loras))
    places = (variant.checkpoint, *filter(None, parts), *(() if known is None else (one.what for one in known.parts)))
    return [_without_folders(sentence, places) for sentence in said]


def _without_folders(sentence: str, places: Iterable[str]) -> str:
    """A sentence that names paths of this machine by their last parts alone, as a card may."""
    for place in places:
        sentence = sentence.replace(place, own_name(place)) if place else sentence
    return sentence


def _worse(run: Run, finding: Finding | None, deltas: Mapping[str, Delta], name: str) -> tuple[str, ...]:
    """What got worse: prices and what they come to; of none that none is shown, and what is not excluded."""
    if finding is None:
        return ()
    prices = [one for one in finding.metrics if one.reads == "price"]
    said = [sentence for sentence in finding.sentences[1:] if sentence.startswith(("Loss in", "Shift of"))]
    losing = [
        f"{one.metric} (loses {deltas[one.metric].losses} of {deltas[one.metric].prompts} prompts)"
        for one in prices
        if one.metric in deltas and one.higher_is_better is not None
    ]
    if losing:
        said.append(f"By prompts: {text.joined(losing)}.")
    if not prices:
        said.append(f"No metric of {name} lost, and none that describes moved, by more than its limit.")
    said += [
        sentence for sentence in finding.sentences if sentence.startswith("Not excluded by so many prompts is a price")
    ]
    return tuple(said)


def _votes(run: Run, name: str) -> tuple[str, ...]:
    """What people voted on the variant and each other one, and whose votes; () where nobody voted.

    Without the notes below tables, which a card does not have.
    """
    results = vote_results(run)
    if results is None:
        return ()
    said = [_voted(one, name) for one in results.pairs if name in (one.candidate, one.reference)]
    return (*said, *results.notes) if said else ()


def _voted(one: VotedPair, name: str) -> str:
    ours = one.candidate == name
    other, wins = (one.reference, one.wins) if ours else (one.candidate, one.losses)
    share = one.share if ours else 1 - one.share
    found = one.interval
    if found is not None and not ours:
        found = replace(found, low=1 - found.high, high=1 - found.low)
    ends = f" {text.percent_interval(found)}" if found is not None else ""
    votes = one.wins + one.ties + one.losses
    both = f", {one.bad} more called both bad" if one.bad else ""
    return (
        f"Blind votes against {other}: {text.percent(share)}{ends} of {text.plural(votes, 'vote')} for {name} ({wins} "
        f"won, {one.ties} tied{both}; {text.plural(one.prompts, 'prompt')}, {text.plural(one.voters, 'voter')})."
    )


def _gate_sentences(gate: Gate, name: str) -> tuple[str, ...]:
    """The gate's outcome on the variant with a sentence for each verdict that did not pass, then that of the whole."""
    own = worst_first([one for one in gate.verdicts if one.candidate == name])
    whole = f"{WORDS[gate.outcome]}. {lead(gate)} {against(gate)}"
    failing = [f"{one.name}, {WORDS[one.outcome]}: {one.sentence}" for one in own if one.outcome != "pass"]
    if len(own) == len(gate.verdicts):
        lines = [f"Regression gate: {whole}", *failing]
    else:
        variants = text.plural(len({one.candidate for one in gate.verdicts}), "variant")
        outcome = f"{WORDS[own[0].outcome]}. {tally(own)}" if own else "it has no verdict on it."
        lines = [f"Regression gate on {name}: {outcome}", *failing, f"The whole gate, on {variants}: {whole}"]
    return tuple(_without_folders(line, (gate.run, gate.baseline)) for line in lines)


def _warnings(run: Run, hashes: Hashes, known: Fingerprint | None, sources: Sequence[Source]) -> tuple[str, ...]:
    suite = run.info.suite
    found = []
    if suite.limit is not None:
        found.append(
            f"This is of a run for trying out: the first {text.plural(suite.limit, 'prompt')} of the suite only. Its "
            "numbers are no results, and stand in no model-index."
        )
    pruned = pruned_variants(run, hashes)
    if pruned:
        found.append(
            f"The images of {text.joined(list(pruned))} are gone, so that their scores rest on the records alone."
        )
    found += [f"{one.name} {one.note}." for one in sources if one.note]
    if known is None:
        found.append("The run has no weights of it, only pictures.")
    return tuple(found)
