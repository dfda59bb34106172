"""ImageReward: how much people would like the picture for this prompt, by a model that reads both together.

Importing this module imports no torch. Network and strict loading: ``bench.metrics.blip``. Source: J. Xu et al.,
ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation, arXiv 2304.05977, and its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import WeightsError
from bench.metrics.declare import Inputs, LoadedRewardModel, Place, encoder, metric
from bench.metrics.weights import find_weights, read_tensors
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from tokenizers import BertWordPieceTokenizer

    from bench.metrics.blip import TextShape

BATCH = 16
TOKENS = 35
"""Tokens of a prompt that are read, [CLS] and [SEP] among them."""
ADDED_TOKENS = ("[DEC]", "[ENC]")
"""BLIP's two, after bert-base-uncased's; a prompt that spells one gets its id, as in the official code."""
REWARD_MEAN = 0.16717362830052426
REWARD_STD = 1.0333394966054072
"""Of the raw reward, over the authors' data; published with the code."""


class ImageRewardModel:
    """ImageReward in memory; its ``score`` is the raw reward, not yet standardised."""

    batch = BATCH

    def __init__(
        self,
        folder: Path,
        vocabulary: Path,
        place: Place,
        vision: dict[str, Any] | None = None,
        file: str = "ImageReward.pt",
    ) -> None:
        """Load ``file`` and ``med_config.json`` of ``folder``, and bert-base-uncased's ``vocab.txt``.

        Raises:
            WeightsError: a file is damaged or of another network, or the files do not belong together.
        """
        from bench.metrics.blip import VISION, build_network, read_text_shape

        vision = vision or VISION
        text = read_text_shape(folder / "med_config.json")
        self._image_px = vision["img_size"]
        self._device = place.device
        self._tokenizer = load_tokenizer(vocabulary, text)
        self._network = build_network(read_tensors(folder / file), place, folder / file, vision, text)

    def preprocess(self, image: Image, preprocessing: str = "") -> torch.Tensor:
        """As the official transform: short side to 224, centre crop, RGB last; normalised float32 (3, 224, 224).

        Raises:
            NoScoreError: as ``bench.metrics.encoders.torchvision_crop``.
        """
        from bench.metrics.encoders import torchvision_crop

        return torchvision_crop(image, self._image_px)

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(n, 3, 224, 224) and n prompts, cut at 35 tokens with the end token kept -> raw rewards, float32 (n,)."""
        import torch

        read = [self._tokenizer.encode(prompt) for prompt in prompts]
        ids = torch.tensor([text.ids for text in read], device=self._device)
        mask = torch.tensor([text.attention_mask for text in read], dtype=torch.bool, device=self._device)
        with torch.inference_mode():
            rewards: torch.Tensor = self._network(pixels.to(self._device), ids, mask)
        return rewards

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Whether a prompt has more than 35 tokens, start and end counted."""
        return [bool(self._tokenizer.encode(prompt).overflowing) for prompt in prompts]


def load_tokenizer(vocabulary: Path, text: TextShape) -> BertWordPieceTokenizer:
    """BERT's uncased word pieces, with BLIP's two added tokens, cut and padded to 35.

    Raises:
        WeightsError: it is not a vocabulary of BERT, or not of as many tokens as the network has.
    """
    from tokenizers import BertWordPieceTokenizer

    try:
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    except Exception as error:  # tokenizers raises plain Exception and TypeError for what it cannot read
        raise WeightsError(f"{vocabulary}: not BERT's vocabulary: {error}.") from error
    tokenizer.add_special_tokens(list(ADDED_TOKENS))
    size = tokenizer.get_vocab_size()
    if size != text.vocab_size:
        raise WeightsError(
            f"{vocabulary}: holds {size - len(ADDED_TOKENS)} tokens, with {' and '.join(ADDED_TOKENS)} {size}; "
            f"the network has {text.vocab_size}."
        )
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return tokenizer


@encoder("imagereward", weights=("imagereward", "bert-base-uncased"))
def imagereward_model(place: Place) -> LoadedRewardModel:
    """ImageReward: BLIP ViT-L/16, BERT with cross-attention to the image, and its MLP.

    The MLP is float32 always. On random weights of the published sizes, on a CPU, float16 in BLIP moved a score by
    up to 0.0013 and bfloat16 by up to 0.021, where pictures and prompts moved it by 0.3.

    Raises:
        WeightsError, MachineError: as ``bench.metrics.weights.find_weights`` and ``ImageRewardModel``.
    """
    return ImageRewardModel(
        find_weights("imagereward", place.weights_dir), find_weights("bert-base-uncased", place.weights_dir), place
    )


@metric(
    MetricFacts(
        name="imagereward",
        version="1",
        summary="How much people would like the picture for this prompt, by a model that reads both together.",
        unit="standard deviations of the reward",
        higher_is_better=True,
        low=None,
        high=None,
        category="preference",
        encoder="imagereward",
        trained_on=("imagereward-db",),
        training_data="ImageRewardDB: 137k expert comparisons of pictures for DiffusionDB prompts; BLIP before that. "
        "Neither holds Pick-a-Pic, which trained the DPO and SPO variants",
        licence="Apache-2.0",
        reference="J. Xu et al., ImageReward, arXiv 2304.05977",
    )
)
def imagereward(inputs: Inputs) -> torch.Tensor:
    """(r - 0.16717362830052426) / 1.0333394966054072 of the raw reward r, (n,) float32, about -2 to 2, unbounded."""
    if inputs.reward is None:
        raise ValueError("imagereward reads the value of its reward model, and got none")
    return (inputs.reward - REWARD_MEAN) / REWARD_STD
