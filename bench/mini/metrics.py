"""The metrics of the embedded family: ``mini-clip``, ``mini-aesthetic``, ``mini-preference``, the second pair, sets.

``mini-clip-2`` and ``mini-preference-2`` compute as their namesakes do, with networks of their own that were trained on
scenes and choices that no LoRA of the family has seen. The set metrics are the published ones on ``mini-clip``.

Importing this module imports no torch; the encoders are loaded from the shipped, checked weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bench.metrics import sets
from bench.metrics.declare import Encoder, Inputs, LoadedStepMetric, Place, SetMetric, encoder, metric, step_metric
from bench.mini.world import SIZE_PX
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BATCH = 16
KEPT_PROMPTS = 64
LICENCE = "Apache-2.0"
WORLD = "the mini world's drawn scenes"


class MiniEncoder:
    """A MiniClip in memory; it reads 64x64 pictures, other sizes are resized."""

    batch = BATCH

    def __init__(self, name: str, device: str) -> None:
        from bench.mini.networks import load_mini_clip

        self._network, self._tokenizer = load_mini_clip(name, device)
        self._device = device
        self.logit_scale = float(self._network.logit_scale.exp())

    def preprocess(self, image: Image, preprocessing: str = "") -> torch.Tensor:
        """RGB, resized to 64x64 (PIL, bicubic, antialiased), float32 (3, 64, 64) in [0, 1]."""
        import numpy as np
        import torch

        rgb = image.convert("RGB")
        if rgb.size != (SIZE_PX, SIZE_PX):
            rgb = rgb.resize((SIZE_PX, SIZE_PX), resample=3)  # PIL's bicubic
        return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 255

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, 64, 64) in [0, 1] -> unit vectors, float32 (n, 96)."""
        import torch

        with torch.inference_mode():
            return self._network.embed_images(pixels.to(self._device))

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """n prompts, cut at 32 tokens with the end token kept -> unit vectors, float32 (n, 96)."""
        import torch

        from bench.mini.networks import mini_clip_tokens

        with torch.inference_mode():
            return self._network.embed_tokens(mini_clip_tokens(self._tokenizer, list(prompts)).to(self._device))

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Whether a prompt has more than 32 tokens, start and end counted."""
        from bench.mini.networks import MAX_TOKENS

        return [len(ids) > MAX_TOKENS for ids in self._tokenizer(list(prompts), verbose=False).input_ids]


def _encoder(name: str) -> Encoder:
    """The declared encoder that loads the network of its name."""
    return encoder(name, dtypes=("float32",))(lambda place: MiniEncoder(name, place.device))


mini_clip_encoder, mini_preference_encoder = _encoder("mini-clip"), _encoder("mini-preference")
mini_clip_2_encoder, mini_preference_2_encoder = _encoder("mini-clip-2"), _encoder("mini-preference-2")


@metric(
    MetricFacts(
        name="mini-clip",
        version="1",
        summary="How well the picture fits its prompt, by the family's own CLIP.",
        unit="100 x cosine",
        higher_is_better=True,
        low=0.0,
        high=100.0,
        category="alignment",
        encoder="mini-clip",
        trained_on=("mini-scenes",),
        training_data=f"{WORLD}, pictures and captions, contrastive",
        licence=LICENCE,
        reference="CLIPScore, J. Hessel et al., arXiv 2104.08718; weights of this project, docs/mini.md",
    )
)
def mini_clip(inputs: Inputs) -> torch.Tensor:
    """CLIPScore: 100 max(cos(image, text), 0), (n,) float32 in [0, 100]."""
    return 100 * (inputs.image_embeds * inputs.text_embeds).sum(-1).clamp(min=0)  # type: ignore[operator]


mini_clip_2 = metric(
    replace(
        mini_clip.facts,
        name="mini-clip-2",
        summary="How well the picture fits its prompt, by a second CLIP of the family.",
        encoder="mini-clip-2",
        trained_on=("mini-scenes-2",),
        training_data=f"{WORLD} that nothing else of the family but mini-preference-2 has seen, contrastive",
    )
)(mini_clip.compute)


def load_aesthetic(place: Place) -> Any:
    """Weight (96,) and bias (1,) of the regressor."""
    from bench.mini import networks

    return networks.load_aesthetic(place.device)


@metric(
    MetricFacts(
        name="mini-aesthetic",
        version="1",
        summary="How beautiful the picture is, by a regressor on the family's CLIP embedding.",
        unit="beauty, 0 to 1",
        higher_is_better=True,
        low=None,
        high=None,
        category="aesthetic",
        encoder="mini-clip",
        trained_on=("mini-ratings",),
        training_data=f"{WORLD} with noisy ratings of their craft",
        licence=LICENCE,
        reference="after LAION's aesthetic predictor; weights of this project, docs/mini.md",
    ),
    load_head=load_aesthetic,
    needs_text=False,
)
def mini_aesthetic(inputs: Inputs) -> torch.Tensor:
    """Affine regressor w . e + b on the unit image embedding e, (n,) float32, about 0 to 1."""
    beauty: torch.Tensor = inputs.image_embeds @ inputs.head["weight"] + inputs.head["bias"]
    return beauty


@metric(
    MetricFacts(
        name="mini-preference",
        version="1",
        summary="Which picture people would prefer for this prompt; only differences on one prompt mean anything.",
        unit="logit",
        higher_is_better=True,
        low=None,
        high=None,
        category="preference",
        encoder="mini-preference",
        trained_on=("mini-raters",),
        training_data=f"pairs of {WORLD} with noisy preferences; SPO's step-aware model starts from it",
        licence=LICENCE,
        reference="PickScore, Y. Kirstain et al., arXiv 2305.01569; weights of this project, docs/mini.md",
    )
)
def mini_preference(inputs: Inputs) -> torch.Tensor:
    """exp(logit_scale) cos(image, text), (n,) float32, unbounded by design."""
    return inputs.logit_scale * (inputs.image_embeds * inputs.text_embeds).sum(-1)  # type: ignore[operator]


mini_preference_2 = metric(
    replace(
        mini_preference.facts,
        name="mini-preference-2",
        summary="Which picture other raters would prefer; only differences on one prompt mean anything.",
        encoder="mini-preference-2",
        trained_on=("mini-raters-2",),
        training_data=f"pairs of {WORLD} that no LoRA of the family has seen, chosen by raters of their own",
    )
)(mini_preference.compute)


def on_mini_clip(published: SetMetric) -> SetMetric:
    """A published set metric on the family's own CLIP: ``vendi-l14`` as ``mini-vendi``."""
    facts = replace(
        published.facts,
        name=f"mini-{published.facts.name.removesuffix('-l14')}",
        encoder=mini_clip_encoder.name,
        trained_on=mini_clip.facts.trained_on,
        training_data=mini_clip.facts.training_data,
        licence=LICENCE,
    )
    return dataclasses.replace(published, facts=facts, preprocessing="")


mini_vendi = on_mini_clip(sets.vendi)
mini_sameness = on_mini_clip(sets.sameness)
mini_vendi_tag = on_mini_clip(sets.vendi_of_tag)
mini_drift = on_mini_clip(sets.drift)
mini_kid = on_mini_clip(sets.kid)
mini_cmmd = on_mini_clip(sets.cmmd)


class MiniStepAware:
    """The family's step-aware preference model in memory; it reads 64x64 pictures, other sizes are resized."""

    batch = BATCH

    def __init__(self, device: str) -> None:
        from bench.mini.networks import load_mini_clip

        self._network, self._tokenizer = load_mini_clip("step-aware", device, timestep=True)
        self._device = device
        self._embedded = functools.lru_cache(KEPT_PROMPTS)(self._embed)

    def score(self, pictures: torch.Tensor, timesteps: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """exp(logit_scale) cos(image at its timestep, text), float32 (n,); pictures are clamped to [-1, 1]."""
        import torch
        from torch.nn.functional import interpolate

        with torch.inference_mode():
            pixels = (pictures.to(self._device).float() / 2 + 0.5).clamp(0, 1)
            if pixels.shape[2:] != (SIZE_PX, SIZE_PX):
                pixels = interpolate(pixels, (SIZE_PX, SIZE_PX), mode="bicubic", antialias=True).clamp(0, 1)
            texts = torch.cat([self._embedded(prompt) for prompt in prompts])
            return self._network.score(pixels, texts, timesteps.to(self._device))

    def _embed(self, prompt: str) -> torch.Tensor:
        import torch

        from bench.mini.networks import mini_clip_tokens

        with torch.inference_mode():
            return self._network.embed_tokens(mini_clip_tokens(self._tokenizer, [prompt]).to(self._device))

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Whether a prompt has more than 32 tokens, start and end counted."""
        from bench.mini.networks import MAX_TOKENS

        return [len(ids) > MAX_TOKENS for ids in self._tokenizer(list(prompts), verbose=False).input_ids]


@step_metric(
    MetricFacts(
        name="mini-step-aware",
        version="1",
        summary="Which predicted image people would prefer for this prompt at this step, by the family's own model.",
        unit="logit",
        higher_is_better=True,
        low=None,
        high=None,
        category="preference",
        encoder=None,
        trained_on=("mini-preference",),
        training_data=f"predicted images of {WORLD} at every timestep, ordered by mini-preference; SPO learnt from it",
        licence=LICENCE,
        reference="Z. Liang et al., arXiv 2406.04314; weights of this project, docs/mini.md",
    ),
    reads="picture",
    final_metric="mini-preference",
)
def mini_step_aware(place: Place) -> LoadedStepMetric:
    """The family's step-aware preference model."""
    return MiniStepAware(place.device)
