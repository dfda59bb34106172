"""The judge of the embedded family: its held-out instrument answers questions about pictures of the mini world.

The instrument is also what the findings on this family are checked by. A suite that checks a finding by it must not
score by it too; this is why ``mini.toml`` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.metrics.declare import Judge, JudgeError, LoadedJudge, Place
from bench.mini.questions import ABOUT, HOW_MANY, THERE
from bench.mini.weights import manifest
from bench.mini.world import KINDS, SIZE_PX
from bench.questions.metrics import question_metrics
from bench.records import MetricFacts, Question
from bench.suite.judges import OURS
from bench.suite.questions import number_of

NOTHING_LEVELS = 2.0
"""A picture of which every channel's standard deviation, in 8-bit levels, is below this shows nothing."""


class MiniJudge:
    """The instrument in memory; it reads 64x64 pictures, other sizes are resized."""

    def __init__(self, device: str) -> None:
        from bench.mini.networks import load_instrument

        self._network, self._device = load_instrument(device), device

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question]) -> list[float]:
        """The probability of each expected answer, by the softmax of the instrument's head for it.

        About what only one kind of scene has, it is multiplied with the probability of that kind.

        Raises:
            JudgeError: a question that the mini world does not have.
        """
        seen = self._read(image)
        return [_answer(seen, one) for one in questions]

    def close(self) -> None:
        """Nothing is held but memory."""

    def _read(self, image: Path) -> dict[str, dict[str, float]]:
        """The probability of each kind, and of each value of each attribute by its head's name."""
        import numpy as np
        import torch
        from PIL import Image

        with Image.open(image) as opened:
            rgb = opened.convert("RGB")
        if rgb.size != (SIZE_PX, SIZE_PX):
            rgb = rgb.resize((SIZE_PX, SIZE_PX), resample=Image.Resampling.BICUBIC)
        levels = np.array(rgb)
        pixels = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0).float().div(255).to(self._device)
        with torch.inference_mode():
            _, kinds, heads = self._network(pixels)
        # The instrument tells the two kinds apart and knows no third: of an empty picture it would see one of them.
        shown = float(levels.reshape(-1, 3).std(axis=0).max() >= NOTHING_LEVELS)
        seen = {"kind": {kind: shown * p for kind, p in zip(KINDS, kinds[0].softmax(-1).tolist(), strict=True)}}
        for kind, table in KINDS.items():
            for name, values in table.items():
                own = heads[f"{kind}_{name}"][0].softmax(-1).tolist()
                seen[f"{kind}_{name}"] = dict(zip(values, own, strict=True))
        return seen


def _answer(seen: dict[str, dict[str, float]], question: Question) -> float:
    for kind in KINDS:
        there = seen["kind"][kind]
        if question.text == THERE[kind]:
            return there if question.answer == "yes" else 1 - there
        if question.text == HOW_MANY[kind]:
            return {1: there, 0: 1 - there}.get(number_of(question.answer) or 0, 0.0)
        for name, (text, _) in ABOUT[kind].items():
            if question.text == text and question.answer in KINDS[kind][name]:
                return there * seen[f"{kind}_{name}"][question.answer]
    raise JudgeError(f"the mini world has no question {question.text!r} with the answer {question.answer!r}")


def _identify(place: Place) -> str:
    return f"instrument {str(manifest()['networks/instrument.safetensors']['sha256'])[:12]}"


def _load(place: Place) -> LoadedJudge:
    return MiniJudge(place.device)


MINI_JUDGE = Judge(OURS, _identify, _load)
_FACTS = MetricFacts(
    name="",
    version="",
    summary="the family's held-out instrument",
    unit="",
    higher_is_better=True,
    low=0.0,
    high=1.0,
    category="alignment",
    encoder=None,
    trained_on=("mini-measured",),
    training_data="the mini world's drawn scenes, of its own, with their qualities and attributes",
    licence="Apache-2.0",
    reference="",
)
SOFT_TIFA_AM, SOFT_TIFA_GM = question_metrics(OURS, _FACTS)
