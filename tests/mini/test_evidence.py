"""The evidence command on a handful of scenes and prompts: every table is printed and every figure is a number."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from bench.mini import evidence, world


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(evidence, "SCENES", 12)
    monkeypatch.setattr(evidence, "PAIRS", 6)
    monkeypatch.setattr(evidence, "STEP_PAIRS", 6)
    monkeypatch.setattr(evidence, "TIMES", (101, 901))
    monkeypatch.setattr(evidence, "SETTINGS", msgspec.structs.replace(evidence.SETTINGS, steps=2, batch=4))


def numbers(cells: tuple[str, ...]) -> list[float]:
    return [float(number) for cell in cells for number in re.findall(r"[-+]?\d+\.\d+(?:e-?\d+)?", cell)]


def test_scenes_of_the_evidence_are_held_out() -> None:
    for kind in world.KINDS:
        batch = evidence.scenes(kind, 50, 0)
        assert all(world.is_held_out(kind, tuple(int(v) for v in content)) for content in batch.content)
    prompts = evidence.prompts()
    assert all(world.is_held_out(kind, content) for kind, content, _ in prompts)
    assert len({prompt[:2] for prompt in prompts}) == len(prompts)


def test_the_table_of_networks_has_a_number_for_each_kind() -> None:
    head, *rows = evidence.network_rows()
    assert head == ("figure", "landscape", "portrait")
    assert len(rows) == 10
    for row in rows:
        assert len(numbers(row[1:])) == 2
        assert all(math.isfinite(value) for value in numbers(row[1:]))


def test_untrained_step_aware_model_is_the_plain_one_in_the_table() -> None:
    _, *rows = evidence.step_aware_rows()
    assert [row[0] for row in rows] == ["101", "901", "501 and later"]
    assert [row[-1] for row in rows] == ["0", "0", "0"]
    assert rows[-1][1:] == rows[-2][1:]  # 901 is the only late one here
    for _, plain, trained, gap, _ in rows:
        assert float(trained) - float(plain) == pytest.approx(float(gap.split()[0]), abs=0.0011)


def test_pairs_share_their_content_and_differ_in_craft() -> None:
    first, second = evidence.same_caption_pairs("portrait", 6)
    np.testing.assert_array_equal(first.content, second.content)
    assert (first.craft != second.craft).any(1).all()


def test_renders_table_compares_variants_at_equal_noise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [prompt for prompt in evidence.prompts() if prompt[0] == "landscape"][:3]
    chosen += [prompt for prompt in evidence.prompts() if prompt[0] == "portrait"][:2]
    monkeypatch.setattr(evidence, "prompts", lambda: chosen)
    same = evidence.read(evidence.render((), chosen, 2, evidence.SETTINGS), chosen, 2)
    evidence.print_main(dict.fromkeys(("base", "dpo", "spo"), same))
    printed = capsys.readouterr().out
    assert "5 held-out prompts x 2 seeds" in printed
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if len(line) == 5 and "metric" not in line]
    assert len(rows) == 8 + 6
    for row in rows:
        assert set(numbers(tuple(row[2:]))) == {0.0}  # the same variant under three names
        assert math.isfinite(float(row[1]))
    shares = {line[0]: float(line[1]) for line in lines if len(line) == 2 and ":" in line[0]}
    assert len(shares) == 5 + 6 + 2
    for kind in ("landscape", "portrait"):
        own = [share for name, share in shares.items() if name.startswith(kind) and "all" not in name]
        assert 1 - sum(1 - share for share in own) - 1e-2 <= shares[f"{kind}: all at once"] <= min(own) + 1e-3


def test_seeds_table_has_a_row_for_each_lora(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = evidence.prompts()[:3]
    monkeypatch.setattr(evidence, "prompts", lambda: chosen)
    monkeypatch.setattr(evidence, "LORAS", ("dpo", "spo"))
    found = evidence.read_variants(seeds=1)
    assert list(found) == ["base", "dpo", "spo"]
    evidence.print_seeds(found)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["LoRA", "dpo", "spo"]
    assert all(len(numbers(tuple(row[1:]))) == 6 * 3 for row in rows[1:])
    assert rows[1][1] != rows[2][1]


def test_preference_models_are_compared_on_pairs_whose_truth_is_known() -> None:
    head, *rows = evidence.preference_rows()
    assert head == ("figure", "landscape", "portrait")
    found = {name: values for name, *values in rows}
    assert all(-1 <= float(value) <= 1 for values in found.values() for value in values)
    first, second = evidence.same_caption_pairs("landscape", 6)
    weights = np.array([evidence.SECOND_RATERS.weights[name] for name in world.CRAFT_WEIGHTS])
    true, liked = ((first.craft - second.craft) @ w for w in (np.array([*world.CRAFT_WEIGHTS.values()]), weights))
    expected = stats.spearmanr(true, liked).statistic
    assert float(found["true beauty and what the second raters like: Spearman of differences"][0]) == pytest.approx(
        expected, abs=6e-4
    )


def test_agreement_table_correlates_each_metric_with_its_namesake_over_prompts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = {"hits": np.ones((4, 2, 6)), "mini-clip": np.arange(4.0), "mini-clip-2": np.arange(4.0)[::-1]}
    base |= {"mini-preference": np.arange(4.0), "mini-preference-2": np.array([0.0, 1.0, 3.0, 2.0])}
    lora = {name: values + np.array([0.0, 1.0, 2.0, 3.0]) for name, values in base.items() if name != "hits"}
    evidence.print_agreement({"base": base, "spo": lora})
    printed = capsys.readouterr().out
    assert "4 held-out prompts x 2 seeds" in printed
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert rows[1:] == [["base", "-1.000", "0.800"], ["spo - base", "1.000", "1.000"]]


def test_settings_table_has_a_row_for_each_setting_and_reuses_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = evidence.prompts()[:3]
    monkeypatch.setattr(evidence, "prompts", lambda: chosen)
    monkeypatch.setattr(evidence, "LORAS", ("dpo", "spo"))
    found = evidence.read_variants(seeds=2)
    rendered: list[tuple[float, float]] = []
    real = evidence.render
    monkeypatch.setattr(
        evidence,
        "render",
        lambda loras, prompts, seeds, settings: (
            rendered.append((settings.guidance_scale, settings.eta)) or real(loras, prompts, seeds, settings)
        ),
    )
    evidence.print_settings((3.0, 5.0), found)
    assert rendered == [(5.0, 0.0)] * 3 + [(3.0, 1.0)] * 3
    printed = capsys.readouterr().out
    assert "3 held-out prompts x 2 seeds" in printed
    head, *rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows] == [["3", "0"], ["5", "0"], ["3", "1"]]
    assert all(len(row) == len(head) == 8 for row in rows)
    assert float(rows[0][2]) == pytest.approx(found["base"]["craft"].mean(), abs=6e-4)
    assert float(rows[0][5]) == pytest.approx(found["base"]["whole"].mean(), abs=6e-4)
    assert numbers((rows[0][4],))[0] == pytest.approx((found["spo"]["craft"] - found["base"]["craft"]).mean(), abs=6e-4)


def test_contact_sheet_has_a_row_for_each_variant_and_kind(tmp_path: Path) -> None:
    evidence.write_sheet(tmp_path / "new" / "sheet.png", columns=2)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.size == (2 * 2 * 64, 2 * 6 * 64)


def test_interval_is_a_bootstrap_of_the_mean_over_prompts() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 200)
    mean, low, high = numbers((evidence.with_interval(values),))
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean(), abs=6e-4)
    assert (low, high) == pytest.approx(expected, abs=0.02)


def test_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    evidence.print_table("A title", [("a", "b"), ("1", "2")])
    assert capsys.readouterr().out == "\n### A title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
