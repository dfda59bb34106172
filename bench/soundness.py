"""Whether a run is finished, and is what its records say: what a gate or a baseline may rest on.

"Finished" has one meaning, ``is_finished``: every planned image has its record, drawn from its planned seed, its file
is as it was recorded, and every image has a score of each metric. Timings may be missing. Where all images of a variant
are gone they were pruned, which leaves its records as they are; where some are gone, something was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.compare.pairing import usable_scores
from bench.formatting import listed, plural
from bench.metrics.image_checks import duplicates
from bench.metrics.image_sets import Usable, is_current_set, sets_of, usable_images
from bench.records import MetricFacts, Run
from bench.suite import protocol_digest
from bench.suite.planned_images import image_seed

AGAIN = "the same hotart-bench run draws it again"
FRESH = "--fresh starts over"
RESTORE = "restore it, or delete it and run again"
Hashes = Mapping[str, str | None]
"""By ``Render.image`` the sha256 of the file that is there, None where it is gone (``bench.store.image_hashes``)."""


def doubts(run: Run, hashes: Hashes) -> dict[str, tuple[str, ...]]:
    """By variant of the suite why nothing can be said of it, each a clause; empty where it is sound.

    Args:
        run: a run as it was read.
        hashes: of its images.
    """
    general = []
    if run.info.status != "complete":
        how = "ended with an error" if run.info.status == "failed" else "was not ended"
        general.append(f"run.json says that the run {how} (the same hotart-bench run continues it)")
    if protocol_digest(run.info.suite) != run.info.protocol_digest:
        general.append("the suite in run.json is not the one that its protocol digest is of")
    return {name: (*general, *found) for name, found in _lost(run, hashes).items()}


def is_finished(run: Run, hashes: Hashes, metrics: Sequence[str]) -> bool:
    """Whether every planned image is recorded and as it was recorded, and it or its sets scored by each of ``metrics``.

    A null with a reason is a score, unless it is one that the next ``score`` tries again.
    """
    return not any(_lost(run, hashes).values()) and not _unscored(run, metrics)


def pruned_variants(run: Run, hashes: Hashes) -> tuple[str, ...]:
    """The variants whose image files are all gone, in the suite's order; their records are kept."""
    images = {
        variant.name: [one.image for one in run.renders if one.variant == variant.name and one.image is not None]
        for variant in run.info.suite.variants
    }
    return tuple(name for name, own in images.items() if own and all(hashes.get(image) is None for image in own))


def pruned_note(run: Run, hashes: Hashes) -> tuple[str, ...]:
    """A sentence on the variants whose images are all gone; none where there is no such variant."""
    names = pruned_variants(run, hashes)
    if not names:
        return ()
    return (
        f"{run.url or run.path}: the images of {listed(names)} are gone, so their scores rest on the records alone.",
    )


def _lost(run: Run, hashes: Hashes) -> dict[str, list[str]]:
    """By variant what its records lack and how its files differ from them, each a clause."""
    suite = run.info.suite
    planned = [(prompt.id, sample) for prompt in suite.prompts for sample in range(suite.samples)]
    external = suite.external_images is not None
    seeds = {key: None if external else image_seed(suite.seed, *key) for key in planned}
    records = {(one.variant, one.prompt_id, one.sample): one for one in run.renders}
    pruned = pruned_variants(run, hashes)
    found = {}
    for name in (variant.name for variant in suite.variants):
        own = {key: records[name, *key] for key in planned if (name, *key) in records}
        made = {} if name in pruned else {key: one for key, one in own.items() if one.image is not None}
        digests = {key: hashes.get(str(one.image)) for key, one in made.items()}
        changed = [key for key, digest in digests.items() if digest not in (None, made[key].sha256)]
        kinds = (
            ("no record in renders.jsonl", AGAIN, [key for key in planned if key not in own]),
            ("another seed than the planned one", FRESH, [key for key in own if own[key].seed != seeds[key]]),
            ("no file any more", AGAIN, [key for key, digest in digests.items() if digest is None]),
            ("a file that is not the one that was recorded", RESTORE, changed),
        )
        found[name] = [_clause(what, which, len(planned), then) for what, then, which in kinds if which]
    return found


def _clause(what: str, which: Sequence[tuple[str, int]], planned: int, then: str) -> str:
    verb = "has" if len(which) == 1 else "have"
    places = listed([f"{prompt_id} sample {sample}" for prompt_id, sample in which], 3)
    return f"{plural(len(which), 'image')} of {planned:,} {verb} {what} ({places}; {then})"


def _unscored(run: Run, metrics: Sequence[str]) -> bool:
    kinds = {facts.name: facts for facts in run.info.metrics}
    if _unscored_sets(run, [kinds[name] for name in metrics if name in kinds and kinds[name].over != "image"]):
        return True
    versions = {facts.name: facts.full_version for facts in run.info.metrics}
    distances = {facts.name for facts in run.info.metrics if facts.category == "distance"}
    reference = run.info.suite.variants[0].name
    values, equal = usable_scores(run), duplicates(run.renders)
    nulls = {
        (one.variant, one.metric, one.prompt_id, one.sample): one.image_sha256
        for one in run.scores
        if one.value is None and one.full_version == versions.get(one.metric)
    }
    for render in run.renders:
        key = render.prompt_id, render.sample
        for metric in metrics:
            if metric in kinds and kinds[metric].over != "image":
                continue
            if metric in distances and render.variant == reference:
                continue  # it has no distance from itself
            if key in values.get((render.variant, metric), {}):
                continue
            null = (render.variant, metric, *key)
            if null not in nulls or (nulls[null] != render.sha256 and (render.variant, *key) not in equal):
                return True
    return False


def _unscored_sets(run: Run, metrics: Sequence[MetricFacts]) -> bool:
    known = {(one.variant, one.prompt_id, one.tag, one.metric): one for one in run.set_scores}
    usable = usable_images(run) if metrics else Usable({}, {}, {})
    return any(
        not is_current_set(known.get((*found.key, facts.name)), found, facts)
        for facts in metrics
        for found in sets_of(run, usable, facts)
    )
