"""Evidence on the autoencoder and the judges: drawn scenes whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from bench.mini import draw, world
from bench.mini.load import load_instrument, load_judge
from bench.mini.towers import Judge, judge_tokens
from bench.mini.weights import pipeline_folder, weight_file
from bench.stats import bootstrap_bca

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
    clip, tokenizer = load_judge("mini-clip")
    found.append(_row("mini-clip: own caption first among all held-out ones", batches, images, clip, tokenizer, _top1))
    found.append(_row("mini-clip: own caption over one attribute wrong", batches, images, clip, tokenizer, _two_way))
    found.append(("mini-aesthetic: Spearman with true beauty", *_aesthetic(batches, images, clip)))
    preference, _ = load_judge("mini-preference")
    found.append(
        ("mini-preference: same-caption pairs in the true order",)
        + tuple(f"{_pair_accuracy(kind, preference, tokenizer):.3f}" for kind in world.KINDS)
    )
    return found + _instrument_rows(batches, images)


def _row(name: str, batches: Any, images: Any, judge: Judge, tokenizer: Any, figure: Any) -> tuple[str, ...]:
    values = (figure(batch, x, judge, tokenizer) for batch, x in zip(batches, images, strict=True))
    return (name, *(f"{value:.3f}" for value in values))


def _psnr(x: Tensor) -> float:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(pipeline_folder() / "vae", dtype=torch.float32).eval()
    y = ((vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample + 1) / 2).clamp(0, 1)
    return float((-10 * (x - y).square().mean((1, 2, 3)).log10()).mean())


def _embed_contents(batch: world.Scenes, judge: Judge, tokenizer: Any) -> tuple[Tensor, NDArray[np.int64]]:
    """Text embeddings of every held-out content of the kind, and each scene's row among them."""
    table = world.contents(batch.kind, held_out=True)
    text = judge.embed_tokens(judge_tokens(tokenizer, [world.caption(batch.kind, content, 0) for content in table]))
    places = {content: row for row, content in enumerate(table)}
    return text, np.array([places[tuple(int(v) for v in content)] for content in batch.content])


def _top1(batch: world.Scenes, x: Tensor, judge: Judge, tokenizer: Any) -> float:
    text, own = _embed_contents(batch, judge, tokenizer)
    return float(((judge.embed_images(x) @ text.T).argmax(1).numpy() == own).mean())


def _two_way(batch: world.Scenes, x: Tensor, judge: Judge, tokenizer: Any) -> float:
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
        judge.embed_tokens(judge_tokens(tokenizer, [world.caption(batch.kind, content, 0) for content in side]))
        for side in (own, wrong)
    ]
    return float(((embeds * texts[0]).sum(1) > (embeds * texts[1]).sum(1)).float().mean())


def _aesthetic(batches: list[world.Scenes], images: list[Tensor], clip: Judge) -> tuple[str, ...]:
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


def _pair_accuracy(kind: str, judge: Judge, tokenizer: Any) -> float:
    first, second = same_caption_pairs(kind, PAIRS)
    text = judge.embed_tokens(judge_tokens(tokenizer, captions(first)))
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
class Looker:
    """Scores pictures as a denoising step sees them: noised, predicted with guidance, decoded."""

    vae: Any
    unet: Any
    encoders: Any
    alphas: Tensor

    @classmethod
    def shipped(cls) -> Looker:
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

    plain, tokenizer = load_judge("mini-preference")
    aware, _ = load_judge("step-aware", timestep=True)
    models = {"plain": plain, "trained": aware, "untrained": start_from(plain, tokenizer).eval()}
    looker = Looker.shipped()
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
    looker: Looker, models: dict[str, Judge], tokenizer: Any, first: world.Scenes, second: world.Scenes, t_value: int
) -> dict[str, NDArray[np.float64]]:
    """Whether a model orders each pair right (1 or 0), and how far the untrained one is from the plain one."""
    words = captions(first)
    text = models["plain"].embed_tokens(judge_tokens(tokenizer, words))
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
