"""The whole panel of judges on seeded random weights in the official layouts, with nothing downloaded.

    python -m tests.figures.random_judges DIR     # every file at its published size, 11 GB

and then, for what time and memory the published weights would take,

    with unpinned(DIR):
        score(folder, metrics=PANEL, device="cuda", weights_dir=DIR, registry=panel_of(PUBLISHED_SIZES))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.metrics import Encoder, Place, Registry, registry_of
from bench.metrics.aesthetic import aesthetic_v1, aesthetic_v2
from bench.metrics.catalogue import CATALOGUE
from bench.metrics.encoders import VIT_H14, VIT_L14, ClipShape
from bench.metrics.hps import hpsv2, hpsv2_vit_h14, hpsv21, hpsv21_vit_h14, load_hps
from bench.metrics.imagereward import ImageRewardModel, imagereward, imagereward_model
from bench.metrics.openai_clip import clip_score, load_openai_clip, openai_vit_l14
from bench.metrics.pickscore import pickscore, pickscore_vit_h14
from bench.metrics.weights import find_weights, read_tensors
from tests.metrics import official_imagereward as reward
from tests.metrics import official_layouts as layouts

METRICS = (aesthetic_v2, aesthetic_v1, clip_score, pickscore, hpsv2, hpsv21, imagereward)
PANEL = tuple(metric.facts.name for metric in METRICS)
LOCK = "weights.lock.json"


@dataclass(frozen=True)
class Sizes:
    """Of the three kinds of encoders; PickScore and both HPS have the second."""

    l14: ClipShape
    h14: ClipShape
    reward: reward.Layout


PUBLISHED_SIZES = Sizes(VIT_L14, VIT_H14, reward.PUBLISHED)
SMALL_SIZES = Sizes(
    ClipShape(768, 512, 12, 64, 512, 8, 12, quick_gelu=True, patch_px=56),
    ClipShape(1024, 768, 12, 64, 768, 12, 12, quick_gelu=False, patch_px=56),
    reward.Layout(224, 56, 512, 12, 8, 512, 2048, 6, 8, 512, reward.PUBLISHED.tokens),
)
"""About a fifth of the published encoders each, so that their sizes stand to each other as theirs do."""


def write_judges(place: Path, sizes: Sizes, metrics: Sequence[str] = PANEL) -> None:
    """The files that these metrics need, under ``place``, where ``--weights-dir`` looks for them."""
    if {"aesthetic-v2", "aesthetic-v1", "clip-l14"} & {*metrics}:
        layouts.write_openai(place, layouts.random_clip(sizes.l14, 1))
    for name in layouts.AESTHETIC_FILES:
        if name in metrics:
            layouts.write_head(place, name, layouts.random_head(name, 2))
    if "pickscore" in metrics:
        layouts.write_pickscore(place, layouts.random_clip(sizes.h14, 3), sizes.h14)
    for seed, name in enumerate(layouts.HPS_FILES, 4):
        if name in metrics:
            layouts.write_hps(place, layouts.random_clip(sizes.h14, seed), name)
    if "imagereward" in metrics:
        folder = place / CATALOGUE["imagereward"].repository
        reward.write_published(folder, sizes.reward, reward.draw_weights(sizes.reward, 6))
        words = reward.VOCABULARY
        rest = [f"[unused{number}]" for number in range(sizes.reward.tokens - reward.ADDED - len(words))]
        reward.write_vocabulary(place / CATALOGUE["bert-base-uncased"].repository, [*words, *rest])


def panel_of(sizes: Sizes) -> Registry:
    """The seven metrics as they are, on encoders of these sizes that are found and checked as the real ones are."""

    def openai(place: Place):
        file = find_weights("openai-vit-l14", place.weights_dir)
        return load_openai_clip(read_tensors(file), place, file, sizes.l14)

    def hps(name: str):
        def load(place: Place):
            file = find_weights(name, place.weights_dir)
            return load_hps(read_tensors(file), place, file, sizes.h14)

        return load

    def joint(place: Place) -> ImageRewardModel:
        folder, vocabulary = (find_weights(name, place.weights_dir) for name in imagereward_model.weights)
        return ImageRewardModel(folder, vocabulary, place, sizes.reward.vision())

    return registry_of(
        *METRICS,
        Encoder(openai_vit_l14.name, openai),
        pickscore_vit_h14,
        Encoder(hpsv2_vit_h14.name, hps("hpsv2")),
        Encoder(hpsv21_vit_h14.name, hps("hpsv2.1")),
        Encoder(imagereward_model.name, joint),
    )


@contextmanager
def unpinned(place: Path) -> Iterator[None]:
    """No published hash or size is asked for meanwhile; those of ``place`` are recorded there, not with the user."""
    pinned, lock = dict(CATALOGUE), os.environ.get("HOTART_WEIGHTS_LOCK")
    for name, entry in pinned.items():
        files = tuple(msgspec.structs.replace(file, sha256=None, size_bytes=None) for file in entry.files)
        CATALOGUE[name] = msgspec.structs.replace(entry, files=files)
    os.environ["HOTART_WEIGHTS_LOCK"] = str(place / LOCK)
    try:
        yield
    finally:
        CATALOGUE.update(pinned)
        if lock is None:
            del os.environ["HOTART_WEIGHTS_LOCK"]
        else:
            os.environ["HOTART_WEIGHTS_LOCK"] = lock


if __name__ == "__main__":
    write_judges(Path(sys.argv[1]), PUBLISHED_SIZES)
