"""``python -m bench.mini.evidence``: what the shipped weights can do, measured anew and printed as markdown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from bench.mini import draw, world
from bench.mini.networks import MiniClip, load_instrument, load_mini_clip, mini_clip_tokens
from bench.mini.weights import LORAS, pipeline_folder, weight_file
from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline
from bench.records import Lora, Settings, Variant
from bench.stats import bootstrap_bca
from bench.suite import image_seed

# Evidence on the autoencoder and the judges: drawn scenes whose truth is known.

SEED = 33

SCENES = 512

PAIRS = 768

STEP_PAIRS = 768

"""Pairs of each kind at each timestep: every picture costs a pass of the UNet and of the VAE."""

CHUNK = 192

LATE = 501

"""From here on, that is with much noise, the step-aware model has to be the better one."""

TIMES = (1, 101, 301, 501, 701, 901)

GUIDANCE = 3.0


def scenes(kind: str, n: int, stream: int) -> world.Scenes:
    """n scenes of contents that no training stage has seen."""
    return world.sample(kind, n, np.random.default_rng([SEED, stream]), held_out=True)


def pictures(batch: world.Scenes) -> Tensor:
    """Drawn scenes, float32 (n, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(draw.draw(batch)).float() / 255


def captions(batch: world.Scenes) -> list[str]:
    """A caption of each scene, the templates in turn."""
    return [
        world.caption(batch.kind, tuple(int(v) for v in content), row % 3) for row, content in enumerate(batch.content)
    ]


@torch.inference_mode()
def rows() -> list[tuple[str, ...]]:
    """Quality of the autoencoder, the judges and the instrument."""
    batches = [scenes(kind, SCENES, stream) for stream, kind in enumerate(world.KINDS)]
    images = [pictures(batch) for batch in batches]
    found = [("figure", *world.KINDS), ("VAE: mean PSNR, dB", *(f"{_psnr(x):.1f}" for x in images))]
    clip, tokenizer = load_mini_clip("mini-clip")
    found.append(_row("mini-clip: own caption first among all held-out ones", batches, images, clip, tokenizer, _top1))
    found.append(_row("mini-clip: own caption over one attribute wrong", batches, images, clip, tokenizer, _two_way))
    found.append(("mini-aesthetic: Spearman with true beauty", *_aesthetic(batches, images, clip)))
    preference, _ = load_mini_clip("mini-preference")
    found.append(
        ("mini-preference: same-caption pairs in the true order",)
        + tuple(f"{_pair_accuracy(kind, preference, tokenizer):.3f}" for kind in world.KINDS)
    )
    return found + _instrument_rows(batches, images)


def _row(name: str, batches: Any, images: Any, judge: MiniClip, tokenizer: Any, figure: Any) -> tuple[str, ...]:
    values = (figure(batch, x, judge, tokenizer) for batch, x in zip(batches, images, strict=True))
    return (name, *(f"{value:.3f}" for value in values))


def _psnr(x: Tensor) -> float:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(pipeline_folder() / "vae", dtype=torch.float32).eval()
    y = ((vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample + 1) / 2).clamp(0, 1)
    return float((-10 * (x - y).square().mean((1, 2, 3)).log10()).mean())


def _embed_contents(batch: world.Scenes, judge: MiniClip, tokenizer: Any) -> tuple[Tensor, NDArray[np.int64]]:
    """Text embeddings of every held-out content of the kind, and each scene's row among them."""
    table = world.contents(batch.kind, held_out=True)
    text = judge.embed_tokens(mini_clip_tokens(tokenizer, [world.caption(batch.kind, content, 0) for content in table]))
    places = {content: row for row, content in enumerate(table)}
    return text, np.array([places[tuple(int(v) for v in content)] for content in batch.content])


def _top1(batch: world.Scenes, x: Tensor, judge: MiniClip, tokenizer: Any) -> float:
    text, own = _embed_contents(batch, judge, tokenizer)
    return float(((judge.embed_images(x) @ text.T).argmax(1).numpy() == own).mean())


def _two_way(batch: world.Scenes, x: Tensor, judge: MiniClip, tokenizer: Any) -> float:
    rng = np.random.default_rng(SEED)
    possible = set(world.combinations(batch.kind))
    sizes = [len(values) for values in world.KINDS[batch.kind].values()]
    wrong = []
    for content in batch.content:
        changed: world.Content | None = None
        while changed is None or changed not in possible:
            place = int(rng.integers(len(sizes)))
            values = [int(v) for v in content]
            values[place] = int((values[place] + rng.integers(1, sizes[place])) % sizes[place])
            changed = tuple(values)
        wrong.append(changed)
    embeds = judge.embed_images(x)
    own = [tuple(int(v) for v in content) for content in batch.content]
    texts = [
        judge.embed_tokens(mini_clip_tokens(tokenizer, [world.caption(batch.kind, content, 0) for content in side]))
        for side in (own, wrong)
    ]
    return float(((embeds * texts[0]).sum(1) > (embeds * texts[1]).sum(1)).float().mean())


def _aesthetic(batches: list[world.Scenes], images: list[Tensor], clip: MiniClip) -> tuple[str, ...]:
    from safetensors.torch import load_file

    head = {key: value.float() for key, value in load_file(weight_file("judges/mini-aesthetic.safetensors")).items()}
    scored = [clip.embed_images(x) @ head["weight"] + head["bias"] for x in images]
    pairs = zip(scored, batches, strict=True)
    return tuple(f"{spearmanr(score.numpy(), batch.beauty()).statistic:.3f}" for score, batch in pairs)


def same_caption_pairs(kind: str, n: int) -> tuple[world.Scenes, world.Scenes]:
    """n pairs of scenes of one content and different craft."""
    first = scenes(kind, n, 5)
    other = scenes(kind, n, 6)
    return first, world.Scenes(kind, first.content, other.craft, other.nuisance)


def _pair_accuracy(kind: str, judge: MiniClip, tokenizer: Any) -> float:
    first, second = same_caption_pairs(kind, PAIRS)
    text = judge.embed_tokens(mini_clip_tokens(tokenizer, captions(first)))
    scores = [judge.score(pictures(side), text).numpy() for side in (first, second)]
    return float(((scores[0] > scores[1]) == (first.beauty() > second.beauty())).mean())


def _instrument_rows(batches: list[world.Scenes], images: list[Tensor]) -> list[tuple[str, ...]]:
    model = load_instrument()
    beauty, attributes = [], []
    weights = np.asarray(list(world.CRAFT_WEIGHTS.values()))
    for batch, x in zip(batches, images, strict=True):
        craft, _, heads = model(x)
        beauty.append(f"{spearmanr(craft.numpy() @ weights, batch.beauty()).statistic:.3f}")
        hits = [
            heads[f"{batch.kind}_{name}"].argmax(1).numpy() == batch.content[:, place]
            for place, name in enumerate(world.KINDS[batch.kind])
        ]
        attributes.append(f"{np.mean(hits):.3f}")
    return [
        ("held-out instrument: Spearman with true beauty", *beauty),
        ("held-out instrument: attribute accuracy", *attributes),
    ]


@dataclass(frozen=True)
class StepScorer:
    """Scores pictures as a denoising step sees them: noised, predicted with guidance, decoded."""

    vae: Any
    unet: Any
    encoders: Any
    alphas: Tensor

    @classmethod
    def shipped(cls) -> StepScorer:
        """Of the shipped pipeline."""
        from bench.mini.train.diffusion import alphas_cumprod, load_text_encoders, load_unet, load_vae

        folder = pipeline_folder()
        return cls(load_vae(folder), load_unet(folder), load_text_encoders(folder), alphas_cumprod())

    def look(self, pixels: Tensor, words: list[str], t: Tensor, noise: Tensor) -> Tensor:
        """The decoded predicted x0, (n, 3, 64, 64) in [0, 1], of pictures in [0, 1]."""
        from bench.mini.train.diffusion import add_noise, predict_guided, predicted_x0
        from bench.mini.train.step_aware import decode

        states, pooled = self.encoders(self.encoders.tokens(words))
        x = add_noise(self.vae.encode(pixels * 2 - 1).latent_dist.mean, noise, t, self.alphas)
        eps = predict_guided(self.unet, x, t, states, pooled, GUIDANCE)
        return decode(self.vae, predicted_x0(x, eps, t, self.alphas))


@torch.inference_mode()
def step_aware_rows() -> list[tuple[str, ...]]:
    """Pair accuracy on predicted x0 by timestep, of the plain, the untrained and the trained step-aware model.

    The last row is the mean over the timesteps from ``LATE`` on, of the same pairs.
    """
    from bench.mini.train.step_aware import start_from

    plain, tokenizer = load_mini_clip("mini-preference")
    aware, _ = load_mini_clip("step-aware", timestep=True)
    models = {"plain": plain, "trained": aware, "untrained": start_from(plain, tokenizer).eval()}
    looker = StepScorer.shipped()
    found: list[tuple[str, ...]] = [
        ("t", "plain", "trained", "trained - plain", "largest difference, untrained to plain")
    ]
    sides = [same_caption_pairs(kind, STEP_PAIRS) for kind in world.KINDS]
    late_plain, late_trained, late_gap = [], [], 0.0
    for t_value in TIMES:
        parts = [_step_scores(looker, models, tokenizer, *side, t_value) for side in sides]
        plain_right, trained_right = (np.concatenate([part[name] for part in parts]) for name in ("plain", "trained"))
        gap = max(float(part["gap"].max()) for part in parts)
        found.append(_step_row(str(t_value), plain_right, trained_right, gap))
        if t_value >= LATE:
            late_plain.append(plain_right)
            late_trained.append(trained_right)
            late_gap = max(late_gap, gap)
    plain_late, trained_late = np.mean(np.stack(late_plain), axis=0), np.mean(np.stack(late_trained), axis=0)
    return [*found, _step_row(f"{LATE} and later", plain_late, trained_late, late_gap)]


def _step_row(name: str, plain: NDArray[np.float64], trained: NDArray[np.float64], gap: float) -> tuple[str, ...]:
    """Shares of pairs in the true order, their difference with its interval over pairs, and the untrained gap."""
    low, high = bootstrap_bca(trained - plain)
    gain = f"{(trained - plain).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    return name, f"{plain.mean():.3f}", f"{trained.mean():.3f}", gain, f"{gap:g}"


def _step_scores(
    looker: StepScorer,
    models: dict[str, MiniClip],
    tokenizer: Any,
    first: world.Scenes,
    second: world.Scenes,
    t_value: int,
) -> dict[str, NDArray[np.float64]]:
    """Whether a model orders each pair right (1 or 0), and how far the untrained one is from the plain one."""
    words = captions(first)
    text = models["plain"].embed_tokens(mini_clip_tokens(tokenizer, words))
    noise = torch.randn((len(words), *vae_shape(looker.vae)), generator=torch.Generator().manual_seed(t_value))
    scores: dict[str, list[Tensor]] = {name: [] for name in models}
    for drawn in (pictures(first), pictures(second)):
        for start in range(0, len(words), CHUNK):
            rows = slice(start, start + CHUNK)
            t = torch.full((len(words[rows]),), t_value)
            seen = looker.look(drawn[rows], words[rows], t, noise[rows])
            for name, model in models.items():
                scores[name].append(model.score(seen, text[rows], None if name == "plain" else t))
    one, two = ({name: torch.cat(parts).view(2, -1)[half] for name, parts in scores.items()} for half in (0, 1))
    truth = torch.from_numpy(first.beauty() > second.beauty())
    right = {name: ((one[name] > two[name]) == truth).double().numpy() for name in ("plain", "trained")}
    gap = torch.cat([(side["untrained"] - side["plain"]).abs() for side in (one, two)])
    return right | {"gap": gap.double().numpy()}


def vae_shape(vae: Any) -> tuple[int, int, int]:
    """Channels, height and width of the latents of one picture."""
    side = world.SIZE_PX // 2 ** (len(vae.config.block_out_channels) - 1)
    return int(vae.config.latent_channels), side, side


# Evidence on the three variants: rendered through the pipeline, judged by the held-out instrument.

SETTINGS = Settings(width=64, height=64, steps=20, guidance_scale=3.0, sampler="ddim", batch=32)

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
    """MiniClip pictures with the instrument and the three judges."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    craft, _, heads = load_instrument()(x)
    weights = np.asarray(list(world.CRAFT_WEIGHTS.values()))
    hits = [_hits(heads, row, asked[row // seeds]) for row in range(len(x))]
    text = [asked[row // seeds].text for row in range(len(x))]
    clip, tokenizer = load_mini_clip("mini-clip")
    preference, _ = load_mini_clip("mini-preference")
    ids = mini_clip_tokens(tokenizer, text)
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

    asked = prompts()
    seeds = len(known["base"].hits) // len(asked)
    print(f"\n### Settings: {_extent(known['base'])}\n")
    rows: list[tuple[str, ...]] = [
        ("CFG", "eta", "base: craft", "DPO - base", "SPO - base")
        + ("base: every attribute right", "attributes: DPO - base", "attributes: SPO - base")
    ]
    for guidance, eta in [*((one, 0.0) for one in guidances), (SETTINGS.guidance_scale, 1.0)]:
        settings = msgspec.structs.replace(SETTINGS, guidance_scale=guidance, eta=eta)
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


# ``python -m bench.mini.evidence``: what the shipped weights can do, measured anew and printed as markdown.

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)

GUIDANCES = (1.5, 3.0, 5.0, 7.5)


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.mini.evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="images a prompt in the tables of variants")
    parser.add_argument("--sheet", type=Path, default=None, help="write the contact sheet to this PNG")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    _section("The autoencoder and the judges, on held-out scenes", rows())
    _section("The step-aware model against the plain one, pairs in the true order", step_aware_rows())
    found = judge_variants(chosen.seeds)
    print_main(found)
    print_seeds(found)
    print_weights(WEIGHTS)
    print_settings(GUIDANCES, found)
    if chosen.sheet is not None:
        write_sheet(chosen.sheet)


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    print(f"\n### {title}\n")
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a markdown table; the first one is the head."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows[1:]:
        print("| " + " | ".join(row) + " |", flush=True)


def with_interval(values: np.ndarray) -> str:
    """Mean and 95 % interval over prompts of per-prompt values (n,)."""
    low, high = bootstrap_bca(values)
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
