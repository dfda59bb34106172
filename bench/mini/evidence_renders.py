"""Evidence on the three variants: rendered through the pipeline, judged by the held-out instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.mini import world
from bench.mini.load import load_instrument, load_judge
from bench.mini.towers import judge_tokens
from bench.mini.weights import LORAS, weight_file
from bench.records import Lora, Settings, Variant
from bench.suite import image_seed
from bench.variants import load_pipeline, stages

SETTINGS = Settings(width=64, height=64, steps=20, guidance=3.0, sampler="ddim", batch=32)
VARIANTS: dict[str, tuple[Lora, ...]] = {"base": (), "DPO": (Lora(path="mini:dpo"),), "SPO": (Lora(path="mini:spo"),)}
BATCH = 32
TABLE_STRIDE = 3
"""The table over weights takes every third prompt."""


@dataclass(frozen=True)
class Prompt:
    """A held-out content in one of its captions."""

    kind: str
    content: world.Content
    text: str


@dataclass(frozen=True)
class Readings:
    """Per-prompt means over seeds, (prompts,): each judge's, and one column for each quality."""

    craft: NDArray[np.float64]
    attributes: NDArray[np.float64]
    """Share of the caption's attributes that the instrument reads in a picture."""
    whole: NDArray[np.float64]
    """Share of pictures in which it reads every attribute."""
    hits: list[list[bool]]
    """For each picture, which of its caption's attributes the instrument reads."""
    clip: NDArray[np.float64]
    aesthetic: NDArray[np.float64]
    preference: NDArray[np.float64]
    factors: NDArray[np.float64]


def prompts() -> list[Prompt]:
    """Every held-out content, the templates in turn."""
    return [
        Prompt(kind, content, world.caption(kind, content, row % 3))
        for kind in world.KINDS
        for row, content in enumerate(world.contents(kind, held_out=True))
    ]


def render(loras: tuple[Lora, ...], asked: Sequence[Prompt], seeds: int, settings: Settings) -> NDArray[np.uint8]:
    """Pictures (prompts * seeds, 64, 64, 3), prompt-major; equal noise for every variant."""
    pipe = load_pipeline(Variant(name="x", checkpoint="mini", loras=loras), settings, device="cpu")
    encoded = [stages.encode(pipe, [prompt.text], [""], settings) for prompt in asked]
    cells = [(row, image_seed(1, prompt.text, seed)) for row, prompt in enumerate(asked) for seed in range(seeds)]
    parts = []
    for start in range(0, len(cells), BATCH):
        rows, numbers = zip(*cells[start : start + BATCH], strict=True)
        noise = stages.noise(pipe, settings, numbers)
        latents = stages.denoise(pipe, settings, stages.stack([encoded[row] for row in rows]), noise, numbers)
        parts.append(stages.to_uint8(stages.decode(pipe, latents)))
    return np.concatenate(parts)


@torch.inference_mode()
def read(pictures: NDArray[np.uint8], asked: Sequence[Prompt], seeds: int) -> Readings:
    """Judge pictures with the instrument and the three judges."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    craft, _, heads = load_instrument()(x)
    weights = np.asarray(list(world.CRAFT_WEIGHTS.values()))
    hits = [_hits(heads, row, asked[row // seeds]) for row in range(len(x))]
    text = [asked[row // seeds].text for row in range(len(x))]
    clip, tokenizer = load_judge("mini-clip")
    preference, _ = load_judge("mini-preference")
    ids = judge_tokens(tokenizer, text)
    embeds = clip.embed_images(x)
    head = _aesthetic_head()

    def by_prompt(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = values.reshape(len(asked), seeds, *values.shape[1:]).mean(1)
        return means

    qualities = craft.double().numpy()
    return Readings(
        craft=by_prompt(qualities @ weights),
        attributes=by_prompt(np.asarray([np.mean(hit) for hit in hits])),
        whole=by_prompt(np.asarray([all(hit) for hit in hits], np.float64)),
        hits=hits,
        clip=by_prompt((embeds * clip.embed_tokens(ids)).sum(1).double().numpy()),
        aesthetic=by_prompt((embeds @ head["weight"] + head["bias"]).double().numpy()),
        preference=by_prompt(preference.score(x, preference.embed_tokens(ids)).double().numpy()),
        factors=by_prompt(qualities),
    )


def _hits(heads: dict[str, torch.Tensor], row: int, prompt: Prompt) -> list[bool]:
    """For each of the prompt's attributes whether the instrument reads it in picture ``row``."""
    found = (int(heads[f"{prompt.kind}_{name}"][row].argmax()) for name in world.KINDS[prompt.kind])
    return [read == asked for read, asked in zip(found, prompt.content, strict=True)]


def _aesthetic_head() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {key: value.float() for key, value in load_file(weight_file("judges/mini-aesthetic.safetensors")).items()}


def judge_variants(seeds: int) -> dict[str, Readings]:
    """Readings of base and of every shipped LoRA at weight 1, on all held-out prompts; each is rendered once."""
    asked = prompts()
    loras: dict[str, tuple[Lora, ...]] = {"base": ()} | {name: (Lora(path=f"mini:{name}"),) for name in LORAS}
    return {name: read(render(chosen, asked, seeds, SETTINGS), asked, seeds) for name, chosen in loras.items()}


def print_main(found: dict[str, Readings]) -> None:
    """Base, DPO and SPO at equal noise: every judge, then every quality."""
    from bench.mini.evidence import print_table, with_interval

    base = found["base"]
    print(f"\n### Base, DPO, SPO: {_extent(base)}, DDIM 20, CFG 3, eta 0\n")
    rows: list[tuple[str, ...]] = [("judge", "base", "DPO - base", "SPO - base", "SPO - DPO")]
    named = {
        "craft (held-out)": "craft",
        "attribute accuracy (held-out)": "attributes",
        "every attribute right (held-out)": "whole",
        "mini-clip cosine": "clip",
        "mini-aesthetic": "aesthetic",
        "mini-preference": "preference",
    }
    pairs = (("dpo", "base"), ("spo", "base"), ("spo", "dpo"))
    for title, field in named.items():
        deltas = (with_interval(getattr(found[a], field) - getattr(found[b], field)) for a, b in pairs)
        rows.append((title, f"{getattr(base, field).mean():.3f}", *deltas))
    for place, name in enumerate(world.CRAFT_WEIGHTS):
        deltas = (with_interval(found[a].factors[:, place] - found[b].factors[:, place]) for a, b in pairs)
        rows.append((f"quality: {name}", f"{base.factors[:, place].mean():.3f}", *deltas))
    print_table(rows)
    _print_base_attributes(base)


def _extent(base: Readings) -> str:
    """How many prompts and seeds readings are of, in words."""
    return f"{len(base.craft)} held-out prompts x {len(base.hits) // len(base.craft)} seeds"


def _print_base_attributes(base: Readings) -> None:
    """In how many of base's pictures each attribute is read, and all of them at once."""
    from bench.mini.evidence import print_table

    asked = prompts()
    seeds = len(base.hits) // len(asked)
    rows = [("base shows", "share of pictures")]
    for kind, attributes in world.KINDS.items():
        chosen = [hit for place, hit in enumerate(base.hits) if asked[place // seeds].kind == kind]
        rows += [
            (f"{kind}: {name}", f"{share:.3f}") for name, share in zip(attributes, np.mean(chosen, 0), strict=True)
        ]
        rows.append((f"{kind}: all at once", f"{np.mean([all(hit) for hit in chosen]):.3f}"))
    print()
    print_table(rows)


def print_seeds(found: dict[str, Readings]) -> None:
    """DPO and SPO trained from other seeds: what each raises over base, and what it costs."""
    from bench.mini.evidence import print_table, with_interval

    base = found["base"]
    print(f"\n### Training seeds: {_extent(base)}, each LoRA - base\n")
    rows: list[tuple[str, ...]] = [("LoRA", "craft", "attribute accuracy", "mini-clip cosine")]
    for name in LORAS:
        fields = ("craft", "attributes", "clip")
        deltas = (with_interval(getattr(found[name], field) - getattr(base, field)) for field in fields)
        rows.append((name, *deltas))
    print_table(rows)


def print_weights(weights: Sequence[float]) -> None:
    """Craft, CLIP cosine and attributes over the weight of each LoRA, one seed a prompt."""
    from bench.mini.evidence import print_table

    asked = prompts()[::TABLE_STRIDE]
    print(f"\n### Weight of the LoRA: {len(asked)} prompts x 1 seed\n")
    rows = [("LoRA", "figure", *(f"{weight:g}" for weight in weights))]
    for name in ("DPO", "SPO"):
        path = VARIANTS[name][0].path
        found = [read(render((Lora(path=path, weight=w),), asked, 1, SETTINGS), asked, 1) for w in weights]
        for title, field in (("craft", "craft"), ("mini-clip cosine", "clip"), ("attributes", "attributes")):
            rows.append((name, title, *(f"{getattr(one, field).mean():.3f}" for one in found)))
    print_table(rows)


def print_settings(guidances: Sequence[float], known: dict[str, Readings]) -> None:
    """Craft and attributes of the three variants over guidance at eta 0, and at eta 1.

    Args:
        guidances: of the rows.
        known: readings by ``judge_variants``, at ``SETTINGS``; the other rows are of as many prompts and seeds.
    """
    from bench.mini.evidence import print_table, with_interval

    asked = prompts()
    seeds = len(known["base"].hits) // len(asked)
    print(f"\n### Settings: {_extent(known['base'])}\n")
    rows: list[tuple[str, ...]] = [
        ("CFG", "eta", "base: craft", "DPO - base", "SPO - base")
        + ("base: every attribute right", "attributes: DPO - base", "attributes: SPO - base")
    ]
    for guidance, eta in [*((one, 0.0) for one in guidances), (SETTINGS.guidance, 1.0)]:
        settings = msgspec.structs.replace(SETTINGS, guidance=guidance, eta=eta)
        base, dpo, spo = (
            known[name.lower()] if settings == SETTINGS else read(render(loras, asked, seeds, settings), asked, seeds)
            for name, loras in VARIANTS.items()
        )
        craft = (with_interval(one.craft - base.craft) for one in (dpo, spo))
        attributes = (with_interval(one.attributes - base.attributes) for one in (dpo, spo))
        shown = (f"{base.craft.mean():.3f}", *craft, f"{base.whole.mean():.3f}", *attributes)
        rows.append((f"{guidance:g}", f"{eta:g}", *shown))
    print_table(rows)


def write_sheet(path: Path, columns: int = 12) -> None:
    """A contact sheet: rows base, DPO, SPO at equal seeds, for landscapes and then portraits."""
    chosen = [prompt for kind in world.KINDS for prompt in [p for p in prompts() if p.kind == kind][:columns]]
    strips = [render(loras, chosen, 1, SETTINGS) for loras in VARIANTS.values()]
    rows = [
        np.concatenate(list(strip[part * columns : (part + 1) * columns]), 1) for part in range(2) for strip in strips
    ]
    sheet = Image.fromarray(np.concatenate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)
