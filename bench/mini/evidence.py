"""``python -m bench.mini.evidence``: what the shipped weights can do, measured again and printed as markdown.

First the autoencoder and the networks on drawn scenes, whose truth is known; then the step-aware model on what single
denoising steps predict; then base, DPO and SPO as pictures rendered through the pipeline and read by the held-out
instrument and the family's metrics. ``docs/mini.md`` shows the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from transformers import CLIPTokenizer

from bench.mini import draw, models, world
from bench.mini.networks import (
    MiniClip,
    load_aesthetic,
    load_instrument,
    load_mini_clip,
    mini_clip_tokens,
    tokenizer,
)
from bench.mini.train.diffusion import (
    add_noise,
    alphas_cumprod,
    load_text_encoders,
    load_unet,
    load_vae,
    predict_guided,
    predicted_x0,
)
from bench.mini.train.preference import SECOND_RATERS
from bench.mini.train.step_aware import GUIDANCE, decode, start_from
from bench.mini.weights import LORAS, pipeline_folder
from bench.pipeline import denoise
from bench.pipeline.switch import load_pipeline
from bench.records import Lora, Settings, Variant
from bench.stats import bootstrap_bca
from bench.suite import image_seed

SEED = 33
SCENES = 512
PAIRS = 768
STEP_PAIRS = 768
"""Pairs of each kind at each timestep: every picture costs a pass of the UNet and of the VAE."""
CHUNK = 192
TIMES = (1, 101, 301, 501, 701, 901)
LATE = 501
"""From here on, that is with much noise, the step-aware model has to be the better one."""
SETTINGS = Settings(width=64, height=64, steps=20, guidance_scale=3.0, sampler="ddim", batch=32)
TABLE_STRIDE = 3
"""The table over weights takes every third prompt."""
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
GUIDANCE_SCALES = (1.5, 3.0, 5.0, 7.5)
CLIPS = ("mini-clip", "mini-clip-2")
PREFERENCES = ("mini-preference", "mini-preference-2")

Floats = NDArray[np.float64]
Prompt = tuple[str, world.Content, str]
"""A held-out content in one of its captions: kind, content, text."""
Readings = dict[str, Floats]
"""Means of each prompt over its seeds, (prompts,): ``craft`` and, by its name, each quality of craft; ``attributes``,
the share of the caption's attributes that the instrument reads in a picture, and ``whole``, the share of pictures in
which it reads all of them; ``aesthetic``, and by its name the score of each of ``CLIPS`` and ``PREFERENCES``. Also
``hits``, (prompts, seeds, attributes): whether it reads an attribute, padded with 1."""


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.mini.evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="images per prompt in the tables of variants")
    parser.add_argument("--sheet", type=Path, default=None, help="write the contact sheet to this PNG")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    print_table("The autoencoder and the metrics, on held-out scenes", network_rows())
    print_table("The two preference models, on pairs of one caption", preference_rows())
    print_table("The step-aware model against the plain one, pairs in the true order", step_aware_rows())
    found = read_variants(chosen.seeds)
    print_main(found)
    print_seeds(found)
    print_agreement(found)
    print_weights(WEIGHTS)
    print_settings(GUIDANCE_SCALES, found)
    if chosen.sheet is not None:
        write_sheet(chosen.sheet)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a markdown table below a heading, if there is one; the first row is the head."""
    print(f"\n### {title}\n" if title else "")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows[1:]:
        print("| " + " | ".join(row) + " |", flush=True)


def with_interval(values: Floats) -> str:
    """Mean and 95 % interval over prompts of per-prompt values (n,)."""
    low, high = bootstrap_bca(values)
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


# --- drawn scenes, whose truth is known ----------------------------------------------------


def scenes(kind: str, n: int, stream: int) -> world.Scenes:
    """n scenes of contents that no training stage has seen."""
    return world.sample(kind, n, np.random.default_rng([SEED, stream]), held_out=True)


def contents_of(batch: world.Scenes) -> list[world.Content]:
    """The content of each scene."""
    return [tuple(row) for row in batch.content.tolist()]


def captions(batch: world.Scenes) -> list[str]:
    """A caption of each scene, the templates in turn."""
    return [world.caption(batch.kind, content, row % 3) for row, content in enumerate(contents_of(batch))]


def pictures(batch: world.Scenes) -> Tensor:
    """Drawn scenes, float32 (n, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(draw.draw(batch)).float() / 255


@torch.inference_mode()
def network_rows() -> list[tuple[str, ...]]:
    """Quality of the autoencoder, the networks of the metrics, and the instrument, for each kind of scene."""
    batches = [scenes(kind, SCENES, stream) for stream, kind in enumerate(world.KINDS)]
    drawn = [(batch, pictures(batch)) for batch in batches]
    clip, head, instrument = load_mini_clip("mini-clip")[0], load_aesthetic(), load_instrument()
    weights = torch.tensor([*world.CRAFT_WEIGHTS.values()], dtype=torch.float64)

    def aesthetic(batch: world.Scenes, x: Tensor) -> float:
        return _spearman(clip.embed_images(x) @ head["weight"] + head["bias"], batch)

    def beauty(batch: world.Scenes, x: Tensor) -> float:
        return _spearman(instrument(x)[0].double() @ weights, batch)

    def attributes(batch: world.Scenes, x: Tensor) -> float:
        heads = instrument(x)[2]
        read = [heads[f"{batch.kind}_{name}"].argmax(1).numpy() for name in world.KINDS[batch.kind]]
        return float(np.mean(np.stack(read, 1) == batch.content))

    figures: dict[str, Callable[[world.Scenes, Tensor], float]] = {
        **{f"{name}: own caption first among all held-out ones": partial(_own_first, name) for name in CLIPS},
        **{f"{name}: own caption over one attribute wrong": partial(_own_over_wrong, name) for name in CLIPS},
        "mini-aesthetic: Spearman with true beauty": aesthetic,
        **{f"{name}: same-caption pairs in the true order": partial(_pair_accuracy, name) for name in PREFERENCES},
        "held-out instrument: Spearman with true beauty": beauty,
        "held-out instrument: attribute accuracy": attributes,
    }
    return [
        ("figure", *world.KINDS),
        ("VAE: mean PSNR, dB", *(f"{_psnr(x):.1f}" for _, x in drawn)),
        *((name, *(f"{figure(*pair):.3f}" for pair in drawn)) for name, figure in figures.items()),
    ]


def _spearman(values: Tensor, batch: world.Scenes) -> float:
    return float(spearmanr(values.numpy(), batch.beauty()).statistic)


def _psnr(x: Tensor) -> float:
    vae = AutoencoderKL.from_pretrained(pipeline_folder() / "vae", dtype=torch.float32).eval()
    y = ((vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample + 1) / 2).clamp(0, 1)
    return float((-10 * (x - y).square().mean((1, 2, 3)).log10()).mean())


def _embed_contents(kind: str, contents: Sequence[world.Content], clip: MiniClip, tokenizer: CLIPTokenizer) -> Tensor:
    return clip.embed_tokens(mini_clip_tokens(tokenizer, [world.caption(kind, content, 0) for content in contents]))


def _own_first(name: str, batch: world.Scenes, x: Tensor) -> float:
    """Share of pictures whose own caption is the nearest of all held-out contents of the kind."""
    clip, tokenizer = load_mini_clip(name)
    contents = world.contents(batch.kind, held_out=True)
    own = np.array([contents.index(content) for content in contents_of(batch)])
    text = _embed_contents(batch.kind, contents, clip, tokenizer)
    return float(((clip.embed_images(x) @ text.T).argmax(1).numpy() == own).mean())


def _own_over_wrong(name: str, batch: world.Scenes, x: Tensor) -> float:
    """Share of pictures that are nearer to their own caption than to one with one attribute changed."""
    clip, tokenizer = load_mini_clip(name)
    rng = np.random.default_rng(SEED)
    possible = set(world.combinations(batch.kind))
    sizes = [len(values) for values in world.KINDS[batch.kind].values()]
    wrong = []
    for content in contents_of(batch):
        changed: world.Content | None = None
        while changed is None or changed not in possible:
            place = int(rng.integers(len(sizes)))
            value = int((content[place] + rng.integers(1, sizes[place])) % sizes[place])
            changed = (*content[:place], value, *content[place + 1 :])
        wrong.append(changed)
    embeds = clip.embed_images(x)
    own, other = (
        (embeds * _embed_contents(batch.kind, side, clip, tokenizer)).sum(1) for side in (contents_of(batch), wrong)
    )
    return float((own > other).float().mean())


def same_caption_pairs(kind: str, n: int) -> tuple[world.Scenes, world.Scenes]:
    """n pairs of scenes of one content and different craft."""
    first, other = scenes(kind, n, 5), scenes(kind, n, 6)
    return first, world.Scenes(kind, first.content, other.craft, other.nuisance)


def _pair_accuracy(name: str, batch: world.Scenes, x: Tensor) -> float:
    """Share of same-caption pairs of the batch's kind that a preference model puts in the true order."""
    first, second = same_caption_pairs(batch.kind, PAIRS)
    return _same_order(_margins(name, first, second), first.beauty() - second.beauty())


def _margins(name: str, first: world.Scenes, second: world.Scenes) -> Floats:
    """By how much a preference model prefers each first picture, (n,)."""
    preference, tokenizer = load_mini_clip(name)
    text = preference.embed_tokens(mini_clip_tokens(tokenizer, captions(first)))
    one, two = (preference.score(pictures(side), text).double().numpy() for side in (first, second))
    return np.asarray(one - two)


def _same_order(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(((one > 0) == (other > 0)).mean())


@torch.inference_mode()
def preference_rows() -> list[tuple[str, ...]]:
    """What both preference models say of held-out pairs, beside true beauty and what each one's raters like."""
    rows: list[list[str]] = []
    for kind in world.KINDS:
        first, second = same_caption_pairs(kind, PAIRS)
        true = first.beauty() - second.beauty()
        liked = SECOND_RATERS.likes(first.craft) - SECOND_RATERS.likes(second.craft)
        one, two = (_margins(name, first, second) for name in PREFERENCES)
        figures = {
            "true beauty and what the second raters like: Spearman of differences": spearmanr(true, liked).statistic,
            "mini-preference: Spearman of differences with those of true beauty": spearmanr(one, true).statistic,
            "mini-preference-2: Spearman of differences with those of true beauty": spearmanr(two, true).statistic,
            "mini-preference: pairs as the second raters like them": _same_order(one, liked),
            "mini-preference-2: pairs as the second raters like them": _same_order(two, liked),
            "both models: pairs in the same order": _same_order(one, two),
            "both models: Spearman of differences": spearmanr(one, two).statistic,
        }
        rows.append([f"{figure:.3f}" for figure in figures.values()])
    return [("figure", *world.KINDS), *zip(figures, *rows, strict=True)]


# --- single denoising steps ----------------------------------------------------------------


@torch.inference_mode()
def step_aware_rows() -> list[tuple[str, ...]]:
    """Pair accuracy on predicted x0 by timestep, of the plain, the untrained and the trained step-aware model.

    The last row is the mean over the timesteps from ``LATE`` on, of the same pairs.
    """
    plain, tokenizer = load_mini_clip("mini-preference")
    aware, _ = load_mini_clip("step-aware", timestep=True)
    models_by_name = {"plain": plain, "trained": aware, "untrained": start_from(plain, tokenizer).eval()}
    predicted = _x0_predictor()
    sides = [same_caption_pairs(kind, STEP_PAIRS) for kind in world.KINDS]
    by_time = {}
    for t in TIMES:
        parts = [_step_scores(predicted, models_by_name, tokenizer, *side, t) for side in sides]
        by_time[t] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    late = [scores for t, scores in by_time.items() if t >= LATE]
    mean = {name: np.mean([scores[name] for scores in late], axis=0) for name in ("plain", "trained")}
    mean["gap"] = np.max([scores["gap"] for scores in late], axis=0)
    return [
        ("t", "plain", "trained", "trained - plain", "largest difference, untrained to plain"),
        *(_step_row(str(t), scores) for t, scores in by_time.items()),
        _step_row(f"{LATE} and later", mean),
    ]


def _step_row(name: str, scores: dict[str, Floats]) -> tuple[str, ...]:
    """Shares of pairs in the true order, their difference with its interval over pairs, and the untrained gap."""
    plain, trained, gap = scores["plain"], scores["trained"], scores["gap"]
    return name, f"{plain.mean():.3f}", f"{trained.mean():.3f}", with_interval(trained - plain), f"{gap.max():g}"


def _x0_predictor() -> Callable[[Tensor, list[str], Tensor, Tensor], Tensor]:
    """A function that shows pictures as a denoising step of the shipped pipeline sees them.

    It takes pictures (n, 3, 64, 64) in [0, 1], captions, timesteps (n,) and noise (n, 16, 8, 8); it noises them,
    predicts with guidance, and decodes the predicted x0 to pictures in [0, 1].
    """
    folder = pipeline_folder()
    vae, unet, encoders, alphas = load_vae(folder), load_unet(folder), load_text_encoders(folder), alphas_cumprod()

    def predicted(pixels: Tensor, words: list[str], t: Tensor, noise: Tensor) -> Tensor:
        states, pooled = encoders(encoders.tokens(words))
        x = add_noise(vae.encode(pixels * 2 - 1).latent_dist.mean, noise, t, alphas)
        return decode(vae, predicted_x0(x, predict_guided(unet, x, t, states, pooled, GUIDANCE), t, alphas))

    return predicted


def _step_scores(
    predicted: Callable[[Tensor, list[str], Tensor, Tensor], Tensor],
    networks: dict[str, MiniClip],
    tokenizer: CLIPTokenizer,
    first: world.Scenes,
    second: world.Scenes,
    t_value: int,
) -> dict[str, Floats]:
    """Whether a network orders each pair right (1 or 0), and how far the untrained one is from the plain one."""
    words = captions(first)
    text = networks["plain"].embed_tokens(mini_clip_tokens(tokenizer, words))
    side_px = world.SIZE_PX // models.VAE_FACTOR
    shape = (len(words), models.LATENT_CHANNELS, side_px, side_px)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(t_value))
    scores: dict[str, list[Tensor]] = {name: [] for name in networks}
    for drawn in (pictures(first), pictures(second)):
        for start in range(0, len(words), CHUNK):
            rows = slice(start, start + CHUNK)
            t = torch.full((len(words[rows]),), t_value)
            seen = predicted(drawn[rows], words[rows], t, noise[rows])
            for name, network in networks.items():
                scores[name].append(network.score(seen, text[rows], None if name == "plain" else t))
    sides = {name: torch.cat(parts).view(2, -1) for name, parts in scores.items()}
    truth = torch.from_numpy(first.beauty() > second.beauty())
    right = {name: ((sides[name][0] > sides[name][1]) == truth).double().numpy() for name in ("plain", "trained")}
    gap = (sides["untrained"] - sides["plain"]).abs().amax(0)
    return right | {"gap": gap.double().numpy()}


# --- rendered variants ---------------------------------------------------------------------


def prompts() -> list[Prompt]:
    """Every held-out content, the templates in turn."""
    return [
        (kind, content, world.caption(kind, content, row % 3))
        for kind in world.KINDS
        for row, content in enumerate(world.contents(kind, held_out=True))
    ]


def loras_of(name: str, weight: float = 1.0) -> tuple[Lora, ...]:
    """The LoRAs of a shipped variant; none for base."""
    return () if name == "base" else (Lora(path=f"mini:{name}", weight=weight),)


def render(loras: tuple[Lora, ...], chosen: Sequence[Prompt], seeds: int, settings: Settings) -> NDArray[np.uint8]:
    """Pictures (prompts * seeds, 64, 64, 3), prompt-major; equal noise for every variant."""
    pipe = load_pipeline(Variant(name="x", checkpoint="mini", loras=loras), settings, device="cpu")
    encoded = [denoise.encode(pipe, [text], [""], settings) for _, _, text in chosen]
    images = [(row, image_seed(1, text, seed)) for row, (_, _, text) in enumerate(chosen) for seed in range(seeds)]
    batch, parts = settings.batch or 1, []
    for start in range(0, len(images), batch):
        rows, numbers = zip(*images[start : start + batch], strict=True)
        noise = denoise.noise(pipe, settings, numbers)
        latents = denoise.denoise(pipe, settings, denoise.stack([encoded[row] for row in rows]), noise, numbers)
        parts.append(denoise.to_uint8(denoise.decode(pipe, latents)))
    return np.concatenate(parts)


@torch.inference_mode()
def read(images: NDArray[np.uint8], chosen: Sequence[Prompt], seeds: int) -> Readings:
    """Read pictures of ``render`` with the instrument and the metrics."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    craft, _, heads = load_instrument()(x)
    networks = {name: load_mini_clip(name)[0] for name in (*CLIPS, *PREFERENCES)}
    ids = mini_clip_tokens(tokenizer(), [text for _, _, text in chosen for _ in range(seeds)])
    embeds, head = networks["mini-clip"].embed_images(x), load_aesthetic()
    cosines = {name: (one.embed_images(x) * one.embed_tokens(ids)).sum(1) for name, one in networks.items()}
    hits = [_hits(heads, row, chosen[row // seeds]) for row in range(len(x))]
    qualities = craft.double().numpy()
    by_image = {
        "craft": qualities @ np.asarray([*world.CRAFT_WEIGHTS.values()]),
        **dict(zip(world.CRAFT_WEIGHTS, qualities.T, strict=True)),
        "attributes": np.asarray([np.mean(hit) for hit in hits]),
        "whole": np.asarray([all(hit) for hit in hits], np.float64),
        "aesthetic": (embeds @ head["weight"] + head["bias"]).double().numpy(),
        **{name: cosines[name].double().numpy() for name in CLIPS},
        **{name: (networks[name].logit_scale.exp() * cosines[name]).double().numpy() for name in PREFERENCES},
    }
    found = {name: values.reshape(len(chosen), seeds).mean(1) for name, values in by_image.items()}
    most = max(map(len, hits))
    padded = np.asarray([hit + [True] * (most - len(hit)) for hit in hits], np.float64)
    return found | {"hits": padded.reshape(len(chosen), seeds, most)}


def _hits(heads: dict[str, Tensor], row: int, prompt: Prompt) -> list[bool]:
    """For each attribute of the prompt, whether the instrument reads it in picture ``row``."""
    kind, content, _ = prompt
    found = (int(heads[f"{kind}_{name}"][row].argmax()) for name in world.KINDS[kind])
    return [read == wanted for read, wanted in zip(found, content, strict=True)]


def read_variants(seeds: int) -> dict[str, Readings]:
    """Readings of base and of every shipped LoRA at weight 1, on all held-out prompts; each is rendered once."""
    chosen = prompts()
    return {name: read(render(loras_of(name), chosen, seeds, SETTINGS), chosen, seeds) for name in ("base", *LORAS)}


def _extent(base: Readings) -> str:
    """How many prompts and seeds readings are of, in words."""
    return f"{len(base['hits'])} held-out prompts x {base['hits'].shape[1]} seeds"


def print_main(found: dict[str, Readings]) -> None:
    """Base, DPO and SPO at equal noise: every metric, every quality, then what base shows of the captions."""
    base = found["base"]
    rows: list[tuple[str, ...]] = [("metric", "base", "DPO - base", "SPO - base", "SPO - DPO")]
    names = {
        "craft (held-out)": "craft",
        "attribute accuracy (held-out)": "attributes",
        "every attribute right (held-out)": "whole",
        **{f"{name} cosine": name for name in CLIPS},
        "mini-aesthetic": "aesthetic",
        **{name: name for name in PREFERENCES},
        **{f"quality: {name}": name for name in world.CRAFT_WEIGHTS},
    }
    pairs = (("dpo", "base"), ("spo", "base"), ("spo", "dpo"))
    for title, name in names.items():
        deltas = (with_interval(found[a][name] - found[b][name]) for a, b in pairs)
        rows.append((title, f"{base[name].mean():.3f}", *deltas))
    print_table(f"Base, DPO, SPO: {_extent(base)}, DDIM 20, CFG 3, eta 0", rows)
    shares: list[tuple[str, ...]] = [("base shows", "share of pictures")]
    kinds = np.array([kind for kind, _, _ in prompts()])
    for kind, attributes in world.KINDS.items():
        hits = base["hits"][kinds == kind]
        read = hits.mean((0, 1))[: len(attributes)]
        shares += [(f"{kind}: {name}", f"{share:.3f}") for name, share in zip(attributes, read, strict=True)]
        shares.append((f"{kind}: all at once", f"{hits.all(2).mean():.3f}"))
    print_table("", shares)


def print_seeds(found: dict[str, Readings]) -> None:
    """DPO and SPO trained from other seeds: what each raises over base, and what it costs."""
    base = found["base"]
    fields = ("craft", "attributes", *CLIPS, *PREFERENCES)
    rows: list[tuple[str, ...]] = [("LoRA", "craft", "attribute accuracy", *fields[2:])]
    rows += [(name, *(with_interval(found[name][field] - base[field]) for field in fields)) for name in LORAS]
    print_table(f"Training seeds: {_extent(base)}, each LoRA - base", rows)


def print_agreement(found: dict[str, Readings]) -> None:
    """Over prompts, how alike the first and the second metric of a kind are, on base and in what each LoRA changes."""
    base = found["base"]
    rows: list[tuple[str, ...]] = [("Spearman over prompts", ", ".join(CLIPS), ", ".join(PREFERENCES))]
    for name, one in found.items():
        sides = [
            [one[field] - (0 if name == "base" else base[field]) for field in pair] for pair in (CLIPS, PREFERENCES)
        ]
        shown = (f"{spearmanr(first, second).statistic:.3f}" for first, second in sides)
        rows.append((name if name == "base" else f"{name} - base", *shown))
    print_table(f"The second pair beside the first: {_extent(base)}", rows)


def print_weights(weights: Sequence[float]) -> None:
    """Craft, CLIP cosine and attributes over the weight of each LoRA, one seed per prompt."""
    chosen = prompts()[::TABLE_STRIDE]
    rows = [("LoRA", "figure", *(f"{weight:g}" for weight in weights))]
    for name in ("dpo", "spo"):
        found = [read(render(loras_of(name, weight), chosen, 1, SETTINGS), chosen, 1) for weight in weights]
        for title, field in (("craft", "craft"), ("mini-clip cosine", "mini-clip"), ("attributes", "attributes")):
            rows.append((name.upper(), title, *(f"{one[field].mean():.3f}" for one in found)))
    print_table(f"Weight of the LoRA: {len(chosen)} prompts x 1 seed", rows)


def print_settings(guidance_scales: Sequence[float], known: dict[str, Readings]) -> None:
    """Craft and attributes of the three variants over the guidance scale at eta 0, and at eta 1.

    Args:
        guidance_scales: of the rows.
        known: readings by ``read_variants``, at ``SETTINGS``; the other rows are of as many prompts and seeds.
    """
    chosen, seeds = prompts(), known["base"]["hits"].shape[1]
    rows: list[tuple[str, ...]] = [
        ("CFG", "eta", "base: craft", "DPO - base", "SPO - base")
        + ("base: every attribute right", "attributes: DPO - base", "attributes: SPO - base")
    ]
    for scale, eta in [*((one, 0.0) for one in guidance_scales), (SETTINGS.guidance_scale, 1.0)]:
        settings = msgspec.structs.replace(SETTINGS, guidance_scale=scale, eta=eta)
        base, dpo, spo = (
            known[name]
            if settings == SETTINGS
            else read(render(loras_of(name), chosen, seeds, settings), chosen, seeds)
            for name in ("base", "dpo", "spo")
        )
        craft = (with_interval(one["craft"] - base["craft"]) for one in (dpo, spo))
        attributes = (with_interval(one["attributes"] - base["attributes"]) for one in (dpo, spo))
        shown = (f"{base['craft'].mean():.3f}", *craft, f"{base['whole'].mean():.3f}", *attributes)
        rows.append((f"{scale:g}", f"{eta:g}", *shown))
    print_table(f"Settings: {_extent(known['base'])}", rows)


def write_sheet(path: Path, columns: int = 12) -> None:
    """A contact sheet: rows base, DPO, SPO at equal seeds, for landscapes and then portraits."""
    chosen = [prompt for kind in world.KINDS for prompt in [p for p in prompts() if p[0] == kind][:columns]]
    strips = [render(loras_of(name), chosen, 1, SETTINGS) for name in ("base", "dpo", "spo")]
    rows = [
        np.concatenate(list(strip[part * columns : (part + 1) * columns]), 1) for part in range(2) for strip in strips
    ]
    sheet = Image.fromarray(np.concatenate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
