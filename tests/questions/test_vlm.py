"""A vision-language model as a judge: its answers are transformers' own logits, on tiny seeded weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vlm import tiny_tokenizer, write_tiny
from transformers import AutoModelForImageTextToText, AutoProcessor

from bench.errors import WeightsError
from bench.metrics.declare import JudgeError, Place
from bench.questions.vlm import VisionLanguageJudge, answer_tokens
from bench.questions.weights import find_vlm, identify_vlm
from bench.records import Question

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
YES = Question(text="Is there a fox?")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def judge(folder: Path) -> VisionLanguageJudge:
    return VisionLanguageJudge(str(folder), Place())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    draw, made = np.random.default_rng(0), []
    for number, shape in enumerate(((96, 128, 3), (150, 60, 3))):
        made.append(tmp_path_factory.mktemp("images") / f"{number}.png")
        Image.fromarray(draw.integers(0, 255, shape, dtype=np.uint8)).save(made[-1])
    return made


def generated(folder: Path, image: Path, text: str) -> Any:
    """What ``generate`` says of the first token: the model's logits, and the scores that it draws from."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    turn = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(images=[Image.open(image).convert("RGB")], text=[turn], return_tensors="pt")
    return model.generate(
        **inputs,
        max_new_tokens=1,
        do_sample=False,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )


def test_an_answer_is_the_models_own_logits_of_the_first_token(
    folder: Path, judge: VisionLanguageJudge, images: list[Path]
) -> None:
    vocabulary = tiny_tokenizer().get_vocab()
    yes = [vocabulary[word] for word in ("yes", "Yes", "\u0120yes", "\u0120Yes")]
    for image in images:
        made = generated(folder, image, "Is there a fox? Answer in one word.")
        expected = made.logits[0][0].double().softmax(-1)[yes].sum()
        assert judge.ask(image, "", "", [YES]) == pytest.approx([float(expected)], rel=1e-5)
        # The tiny model has a repetition penalty, as Qwen2.5-VL has: what generate draws from is not its logits.
        assert not torch.equal(made.scores[0], made.logits[0])


def test_a_choice_is_answered_by_its_letter(folder: Path, judge: VisionLanguageJudge, images: list[Path]) -> None:
    vocabulary = tiny_tokenizer().get_vocab()
    made = generated(folder, images[0], "Which?\nA. red\nB. blue\nAnswer with the letter of one of these.")
    letters = [vocabulary[word] for word in ("b", "B", "\u0120B")]
    expected = float(made.logits[0][0].double().softmax(-1)[letters].sum())
    asked = Question(text="Which?", answer="blue", choices=("red", "blue"))
    assert judge.ask(images[0], "", "", [asked]) == pytest.approx([expected], rel=1e-5)


def test_an_answer_does_not_depend_on_what_was_asked_before(judge: VisionLanguageJudge, images: list[Path]) -> None:
    first = judge.ask(images[0], "", "", [YES])
    judge.ask(images[1], "", "", [Question(text="How many foxes stand there, all in all?", answer="three"), YES])
    assert judge.ask(images[0], "", "", [YES]) == first


def test_yes_and_no_are_not_both_likely(judge: VisionLanguageJudge, images: list[Path]) -> None:
    no = Question(text=YES.text, answer="no")
    assert sum(judge.ask(images[0], "", "", [YES, no])) <= 1


def test_only_whole_tokens_are_answers_each_once() -> None:
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    three = {vocabulary[word] for word in ("three", "\u0120three", "Three", "3")}
    assert answer_tokens(tokenizer, ("three", "3")) == three  # " 3" begins with a lone space, as it does in Qwen's
    assert answer_tokens(tokenizer, ("ten", "10")) == {vocabulary["ten"]}  # 10 begins with the 1 of one
    assert answer_tokens(tokenizer, ("yes", "yes", "Yes")) == answer_tokens(tokenizer, ("yes",))
    assert len(answer_tokens(tokenizer, ("yes",))) == 4
    assert answer_tokens(tokenizer, ("eleven", "11")) == set()


def test_an_answer_without_a_token_of_its_own_is_refused(judge: VisionLanguageJudge, images: list[Path]) -> None:
    with pytest.raises(JudgeError, match="'eleven' is no single token"):
        judge.ask(images[0], "", "", [Question(text="How many?", answer="eleven")])


def test_logits_that_are_not_finite_are_no_answer(
    folder: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = VisionLanguageJudge(str(folder), Place())
    monkeypatch.setattr(judge, "first_token", lambda picture, text: torch.tensor([0.0, float("nan")]))
    with pytest.raises(JudgeError, match=r"not all finite in torch\.float32"):
        judge.ask(images[0], "", "", [YES])


def test_it_computes_in_the_dtype_that_is_asked_for(
    folder: Path, judge: VisionLanguageJudge, images: list[Path]
) -> None:
    half = VisionLanguageJudge(str(folder), Place(dtype="bfloat16"))
    (wide,), (narrow,) = judge.ask(images[0], "", "", [YES]), half.ask(images[0], "", "", [YES])
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.1)


def test_its_files_say_who_it_is(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    assert identify_vlm(str(copy), None) == identify_vlm(str(folder), None)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert identify_vlm(str(copy), None) != identify_vlm(str(folder), None)


def test_it_is_found_in_a_folder_of_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "judge").symlink_to(folder)
    assert find_vlm("own/judge", tmp_path) == tmp_path / "own" / "judge"
    assert find_vlm("own/other", tmp_path) is None
    assert identify_vlm("own/judge", tmp_path).startswith("own/judge ")


def test_a_model_of_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(WeightsError, match="is a 'llava'; a judge is one of qwen2_5_vl, qwen3_vl"):
        identify_vlm(str(tmp_path), None)
    with pytest.raises(WeightsError, match="neither a folder"):
        identify_vlm("nowhere", None)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fill_the_model_are_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if "mlp.gate_proj.weight" in name)
    tensors = {key: value for key, value in tensors.items() if key != name or damage != "missing"}
    if damage == "shape":
        tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"missing keys|mismatched keys"):
        VisionLanguageJudge(str(copy), Place())
