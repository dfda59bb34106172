"""A judge that is a vision-language model of transformers, in the layout of Qwen2.5-VL and Qwen3-VL.

The probability of an answer is that of the first token of the reply, by the model's own logits in float32. One image
and one question are a batch of their own: in a larger one, padding changes the last bits.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from bench.errors import WeightsError
from bench.metrics.declare import JudgeError, Place
from bench.metrics.encoders import TORCH_DTYPES
from bench.questions.weights import located_vlm
from bench.questions.wording import forms, wording
from bench.records import Question


class VisionLanguageJudge:
    """A model and its processor in memory."""

    def __init__(self, name: str, place: Place) -> None:
        folder = located_vlm(name, place.weights_dir)
        logging.disable_progress_bar()
        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, found = AutoModelForImageTextToText.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=TORCH_DTYPES[place.dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, in one sentence with the others
        )
        _refuse_half(folder, found)
        self._model = model.requires_grad_(False).eval().to(place.device)
        self._device = place.device
        self._lock = threading.Lock()

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question]) -> list[float]:
        """The probability of each expected answer, in [0, 1].

        Raises:
            JudgeError: an expected answer is no single token of the vocabulary; logits that are not finite.
        """
        with self._lock, Image.open(image) as opened:
            picture = opened.convert("RGB")
            return [self._answer(picture, one) for one in questions]

    def close(self) -> None:
        """Nothing is held but memory."""

    def _answer(self, picture: Image.Image, question: Question) -> float:
        tokens = answer_tokens(self._processor.tokenizer, forms(question))
        if not tokens:
            raise JudgeError(
                f"{question.answer!r} is no single token of the model's vocabulary; give the question choices"
            )
        logits = self.first_token(picture, wording(question))
        if not torch.isfinite(logits).all():
            raise JudgeError(f"the model's logits are not all finite in {self._model.dtype}; another --metric-dtype")
        return float(logits.softmax(-1)[sorted(tokens)].sum().clamp(max=1.0))

    @torch.inference_mode()
    def first_token(self, picture: Image.Image, text: str) -> torch.Tensor:
        """The logits of the reply's first token, float32 (vocabulary,), before any processing such as penalties."""
        content = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
        inputs: Any = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._device)
        pixels = inputs["pixel_values"].to(self._model.dtype)
        logits: torch.Tensor = self._model(**{**inputs, "pixel_values": pixels}, use_cache=False).logits
        return logits[0, -1].float()


def _refuse_half(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model: transformers would draw what is missing at random."""
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found.get(what):
            first = sorted(map(str, found[what]))[0]
            raise WeightsError(
                f"{folder}: the weights are not those of its config.json: {len(found[what])} {what.replace('_', ' ')}, "
                f"such as {first}.",
                "delete the folder and fetch it again: hotart-bench fetch SUITE",
            )


def answer_tokens(tokenizer: Any, wanted: Sequence[str]) -> set[int]:
    """The tokens that are a whole answer: each form, also with a capital, with and without a space before it.

    A form of several tokens is left out: its first one would begin other answers too (a lone space, or the 1 of 10).
    Each token counts once, however many forms it is of.
    """
    spellings = {space + form for word in wanted for form in (word, word.capitalize()) for space in ("", " ")}
    encoded = [tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
    return {tokens[0] for tokens in encoded if len(tokens) == 1}
