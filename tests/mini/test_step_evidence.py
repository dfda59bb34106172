"""The evidence on single steps: what it draws, its arithmetic, and its tables from a few small images."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import IncomparableError
from bench.mini import evidence, step_evidence, step_runs
from bench.mini.step_runs import CHOSEN, SCHEDULE, TRAINED, Setting, parts_of, suite_of, windowed
from bench.records import Render
from bench.suite.step_ranges import runs_of

SMALL = Setting("small", 3.0, 0.0, "-seed1", (1, 3, 5))


def steps_on(factors: tuple[tuple[float, float], ...], steps: int = 20) -> set[int]:
    """The steps in which a LoRA runs."""
    return {step for first, last, factor in runs_of(factors, steps) if factor for step in range(first, last + 1)}


@pytest.mark.parametrize("setting", CHOSEN)
def test_the_windows_of_a_lora_hold_each_step_once(setting: Setting) -> None:
    suite = suite_of(setting)
    assert len(suite.prompts) == 95
    for name in TRAINED:
        own = windowed(suite, name).variants[2:]
        assert [variant for variant in suite.variants if variant.name.startswith(f"{name}-steps")] == list(own)
        seen = [step for variant in own for lora in variant.loras for step in steps_on(lora.step_factors)]
        assert sorted(seen) == list(range(1, 21))
        assert {lora.path for variant in own for lora in variant.loras} == {f"mini:{name}{setting.seed}"}


@pytest.mark.parametrize("setting", CHOSEN)
def test_the_schedule_runs_dpo_in_the_first_four_steps_and_spo_after_them(setting: Setting) -> None:
    (variant,) = [one for one in suite_of(setting).variants if one.name == SCHEDULE]
    assert [(lora.path, steps_on(lora.step_factors)) for lora in variant.loras] == [
        (f"mini:dpo{setting.seed}", {1, 2, 3, 4}),
        (f"mini:spo{setting.seed}", set(range(5, 21))),
    ]


def test_each_variant_is_in_one_part() -> None:
    for setting in CHOSEN:
        names = [name for part in parts_of(setting) for name in part.variants]
        assert names == [variant.name for variant in suite_of(setting).variants]
    assert len({part.name for setting in CHOSEN for part in parts_of(setting)}) == 4 * len(CHOSEN)


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", cell)]


def test_a_share_is_the_ratio_of_means_and_its_interval_that_of_prompts_drawn_again() -> None:
    rng = np.random.default_rng(3)
    whole = rng.normal(1.0, 0.5, 60)
    part = 0.4 * whole + rng.normal(0, 0.1, 60)
    share, low, high = numbers(step_evidence.ratio_interval(part, whole))
    assert share == pytest.approx(100 * part.mean() / whole.mean(), abs=0.51)
    drawn = rng.integers(60, size=(4000, 60))
    ratios = 100 * part[drawn].mean(axis=1) / whole[drawn].mean(axis=1)
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=1.0)
    assert high - low < 15  # far less than if the two means were drawn apart


def test_the_gap_of_shares_is_of_both_loras_on_the_same_prompts() -> None:
    rng = np.random.default_rng(4)
    ease = rng.normal(1.0, 0.6, 80)  # of a prompt: what both LoRAs gain together says nothing of their shares
    noise = rng.normal(0, 0.02, (2, 80))
    spo, dpo = 2 * ease, ease
    gap, low, high = numbers(step_evidence.share_gap(0.8 * ease + noise[0], 0.6 * ease + noise[1], spo, dpo))
    assert gap == pytest.approx(-20, abs=1)
    assert low < gap < high < 0
    assert high - low < 5


@pytest.mark.parametrize(("steps", "text"), [([], "none"), ([4], "4"), ([1, 2, 3, 7], "1-3, 7"), ([1, 3, 4], "1, 3-4")])
def test_steps_are_told_as_spans(steps: list[int], text: str) -> None:
    assert step_evidence.spans(steps) == text


# From a few images.


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Three prompts at five steps, a step a window."""
    chosen = [evidence.prompts()[row] for row in (0, 40, 80)]
    patch.setattr(step_runs, "prompts", lambda: chosen)
    patch.setattr(step_runs, "PIXELS", msgspec.structs.replace(step_runs.PIXELS, steps=5, batch=6))
    patch.setattr(step_evidence, "CHOSEN", (SMALL,))
    patch.setattr(step_evidence, "FEW", (1, 5))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn and scored by the command."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("steps")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        step_evidence.main(["--work", str(place)])
    return place


def rows_of(printed: str, title: str) -> list[list[str]]:
    """The rows of the table below a title."""
    body = printed.split(f"### {title}", 1)[1].split("###", 1)[0]
    return [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")]


@pytest.mark.usefixtures("small")
def test_the_command_goes_on_and_prints_every_table(
    drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*ng")}
    assert len(files) == 14 * 6
    step_evidence.main(["small-steps", "small-windows-spo", "--work", str(drawn)])
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*ng")} == files
    printed = capsys.readouterr().out
    assert "3 held-out prompts x 2 samples, DDIM 5" in printed
    assert "not drawn yet" not in printed
    assert "nan" not in printed
    _, *windows = rows_of(printed, "From which steps the gain comes")
    assert [row[0] for row in windows] == ["all", "1-1", "2-2", "3-3", "4-4", "5-5", "sum less all"]
    means = np.array([[numbers(cell)[0] for cell in row[1:]] for row in windows])
    np.testing.assert_allclose(means[1:6].sum(axis=0) - means[0], means[6], atol=4e-3)
    _, *shares = rows_of(printed, "Share of the whole gain in craft")
    assert [row[1] for row in shares] == ["DPO", "SPO", "SPO - DPO"]
    _, *orders = rows_of(printed, "Pairs in the final order, %")
    assert [row[0] for row in orders] == ["1", "5"]
    for row in orders:
        for plain, aware, gap in (row[1:4], row[4:7]):
            assert numbers(gap)[0] == pytest.approx(float(aware) - float(plain), abs=1.01)


def place_of(drawn: Path, render: Render) -> Path:
    """Where an image lies."""
    (part,) = [part for part in parts_of(SMALL) if render.variant in part.variants]
    return drawn / part.name / (render.image or "")


@pytest.mark.usefixtures("small")
def test_craft_is_what_the_held_out_instrument_reads(drawn: Path) -> None:
    found = step_evidence.found_at(SMALL, drawn)
    assert found is not None
    chosen = [
        prompt for prompt in evidence.prompts() if prompt[2] in {one.text for one in found.run.info.suite.prompts}
    ]
    images = {(one.variant, one.prompt_id, one.sample): place_of(drawn, one) for one in found.run.renders}
    keys = [(prompt.id, sample) for prompt in found.run.info.suite.prompts for sample in (0, 1)]
    crafts = {}
    for name in ("base", "spo"):
        pictures = np.stack([np.asarray(Image.open(images[name, *key])) for key in keys])
        crafts[name] = evidence.read(pictures, chosen, 2)["craft"]
    assert found.differences("spo", "base", "craft") == pytest.approx(crafts["spo"] - crafts["base"], abs=1e-5)


@pytest.mark.usefixtures("small")
def test_a_half_drawn_setting_has_tables_that_say_so(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("steps", "schedule", "windows-dpo", "windows-spo"):
        (tmp_path / f"small-{part}").mkdir()
        for file in (drawn / f"small-{part}").glob("*.json*"):
            (tmp_path / f"small-{part}" / file.name).write_bytes(file.read_bytes())
    scores = tmp_path / "small-windows-spo" / "scores.jsonl"
    lines = scores.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"spo-steps-3-3"' not in line]
    assert len(kept) < len(lines)
    scores.write_text("".join(kept), "utf-8")
    step_evidence.main(["--tables", "--work", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "not drawn yet" in "".join(map(str, rows_of(printed, "From which steps the gain comes")))
    assert len(rows_of(printed, "DPO in the first 20% of the steps")) == 2


@pytest.mark.usefixtures("small")
def test_parts_of_different_machines_are_not_put_together(drawn: Path, tmp_path: Path) -> None:
    for part in ("steps", "schedule"):
        (tmp_path / f"small-{part}").mkdir()
        for file in (drawn / f"small-{part}").glob("*.json*"):
            (tmp_path / f"small-{part}" / file.name).write_bytes(file.read_bytes())
    info = tmp_path / "small-schedule" / "run.json"
    info.write_text(info.read_text("utf-8").replace('"threads": 1', '"threads": 7'), "utf-8")
    with pytest.raises(IncomparableError, match="number of threads"):
        step_evidence.main(["--tables", "--work", str(tmp_path)])


def test_an_unknown_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        step_evidence.main(["cfg4-steps", "--work", str(tmp_path)])
    assert "there is no part 'cfg4-steps'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
