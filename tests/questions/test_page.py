"""The judge of docs/questions.md, word for word: a program that a run is scored by."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import msgspec
import pytest
from fake_metrics import put_image, rendered
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.records import Judge, Question
from bench.score import score
from bench.suite.file import load_suite

PAGE = (Path(__file__).parents[2] / "docs" / "questions.md").read_text(encoding="utf-8")
COLOURS = ("red", "green", "blue")


def example(kind: str, first: str) -> str:
    return next(text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if text.startswith(first))


def png(colour: str, number: int) -> bytes:
    """A picture of one colour, not quite pure, whose file is like no other."""
    out, note = io.BytesIO(), PngInfo()
    note.add_text("number", str(number))
    red, green, blue = (200 if name == colour else 20 for name in COLOURS)
    Image.new("RGB", (64, 64), (red, green, blue)).save(out, "PNG", pnginfo=note)
    return out.getvalue()


def test_the_judge_is_about_thirty_lines() -> None:
    assert 25 <= len(example("python", '"""A judge').splitlines()) <= 40


def test_the_judge_of_the_page_is_believed_and_scores_a_run(tmp_path: Path) -> None:
    (tmp_path / "colours.py").write_text(example("python", '"""A judge'), encoding="utf-8")
    judge = Judge(name="colours", command=(sys.executable, str(tmp_path / "colours.py")), timeout_s=30)
    with rendered(tmp_path / "run", prompts=14, samples=1, variants=("base",), metrics=()) as folder:
        info, prompts = folder.run().info, []
        for index, prompt in enumerate(folder.run().info.suite.prompts):
            colour = COLOURS[index % 3]
            put_image(folder, ("base", prompt.id, 0), png(colour, index))
            strongest = Question(text="Which colour is strongest?", answer=colour, choices=COLOURS)
            asked = (Question(text="Is there any colour in the picture?"), strongest)
            prompts.append(msgspec.structs.replace(prompt, questions=asked))
        names = ("soft-tifa-am-colours", "soft-tifa-gm-colours")
        suite = msgspec.structs.replace(info.suite, prompts=tuple(prompts), judges=(judge,), metrics=names)
        folder.write_info(msgspec.structs.replace(info, suite=suite))
        assert score(folder) == 28
        values = {one.metric: one.value for one in folder.scores()}
        any_colour, strongest_share = 180 / 255, 200 / 240
        assert values[names[0]] == pytest.approx((any_colour + strongest_share) / 2)
        assert values[names[1]] == pytest.approx((any_colour * strongest_share) ** 0.5)
        assert {one.value for one in folder.scores() if one.metric == names[0]} == {values[names[0]]}


def test_the_tables_of_the_page_are_a_suites(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"id":"a","prompt":"a fox"}\n')
    (tmp_path / "colours.py").touch()
    for first in ("metrics", "[judges.colours]"):
        (tmp_path / "own.toml").write_text(
            f'schema = 2\nname = "own"\nprompts = ["own.jsonl"]\n{example("toml", first)}\n'
            '[settings]\nwidth = 64\nheight = 64\nsteps = 2\nguidance_scale = 1\nsampler = "ddim"\n'
            '[variants.base]\ncheckpoint = "mini"\n'
        )
        (judge,) = load_suite(str(tmp_path / "own.toml"), known_metrics=("pickscore",)).judges
        assert judge.name in ("qwen", "colours")
    assert judge.command == ("/opt/colours/bin/python", str(tmp_path / "colours.py"))
