"""The figure of set metrics and safety: what they cost on top of a panel that loads their encoder anyway.

Weights are random: they cost the same time as the published ones.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch

from bench.metrics import Encoder, Place, Registry, registry_of, sets
from bench.metrics.encoders import VIT_L14, ClipEncoder
from bench.metrics.openai_clip import load_openai_clip
from bench.metrics.safety import NsfwHead, nsfw, q16
from tests.metrics.official_layouts import random_clip

from .figure import Figure, ratio_figure
from .metric_panel import NAMES, panel_registry, picture, scored_s

VARIANTS, SAMPLES, PROMPTS = 2, 2, 4
"""One batch of the encoder, with as many prompts as intervals need and one more."""
TURNS = 3
SETS = (sets.vendi, sets.sameness, sets.vendi_of_tag, sets.drift, sets.kid, sets.cmmd)


def figure_sets() -> tuple[Figure, ...]:
    """The panel with the six set metrics and both metrics of safety, over the panel without.

    Two variants of four prompts and two samples, 16 pictures of 1024x1024, in turns in one process on one encoder:
    seven forwards of 16 pictures and of 16 prompts, the first of which is not counted.

    Raises:
        SystemExit: the panel gave other scores beside the set metrics, or one of these no number.
    """
    encoder = load_openai_clip(random_clip(VIT_L14, 0), Place(), Path("random"))
    registry, shape = registry_with_sets(encoder), (VARIANTS, SAMPLES)
    more = tuple(metric.facts.name for metric in (*SETS, nsfw, q16))
    pictures = [picture(number) for number in range(VARIANTS * SAMPLES * PROMPTS)]
    plain, with_sets = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scored_s(place / "warm", NAMES, registry, pictures[:1])
        for turn in range(TURNS):
            wall_s, alone = scored_s(place / f"plain-{turn}", NAMES, registry, pictures, shape)
            plain.append(wall_s)
            wall_s, beside = scored_s(place / f"sets-{turn}", (*NAMES, *more), registry, pictures, shape)
            with_sets.append(wall_s)
            if not alone.items() <= beside.items():
                raise SystemExit("The panel gave other scores beside the set metrics.")
    return (ratio_figure("panel_with_set_metrics", with_sets, plain, "<=", 1.05),)


def registry_with_sets(encoder: ClipEncoder) -> Registry:
    """The panel's metrics, the six set metrics and both of safety, on an encoder and heads that are loaded."""
    dice = torch.Generator().manual_seed(0)
    layers = [(64, 768), (512, 64), (256, 512), (1, 256)]
    head = NsfwHead(
        torch.zeros(768),
        torch.ones(768),
        tuple((torch.randn(size, generator=dice) / size[1] ** 0.5, torch.zeros(size[0])) for size in layers),
    )
    directions = torch.nn.functional.normalize(torch.randn(2, 768, generator=dice), dim=1)
    return registry_of(
        *panel_registry(encoder).metrics.values(),
        *SETS,
        dataclasses.replace(nsfw, load_head=lambda place: head, weights=()),
        dataclasses.replace(q16, load_head=lambda place: directions, weights=()),
        Encoder("openai-vit-l14", lambda place: encoder),
    )
