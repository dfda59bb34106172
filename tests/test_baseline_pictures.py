"""Small pictures beside a baseline: kept, shown on both sides of a failed gate, and never of another run in silence."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
from fake_gates import make_gate, make_verdict
from fakes import make_run, png_bytes, write_run
from msgspec.structs import replace
from PIL import Image
from report_gates import gate_on, verdicts, view_of
from report_runs import page_of

from bench.baseline.pictures import SIDE_PX, find_pictures, keep_pictures, pictures_folder
from bench.errors import UsageError
from bench.gate.summary import summary_markdown
from bench.records import Run, WorstPrompt
from bench.report import html
from bench.store import load_run


@pytest.fixture
def old(tmp_path: Path) -> Run:
    return load_run(write_run(make_run(tmp_path / "old", prompts=12, seed=7), tmp_path / "old"))


@pytest.fixture
def new(tmp_path: Path) -> Run:
    return load_run(write_run(make_run(tmp_path / "new", prompts=12), tmp_path / "new"))


def failed(new: Run, old: Run, baseline: Path):
    """A gate of ``new`` against a frozen baseline of ``old`` with a failed metric and its worst prompts."""
    return gate_on(new, verdicts(new, old, "spo", "spo"), "invalid", baseline=str(baseline), baseline_id=old.info.id)


def test_the_first_sample_of_each_prompt_is_kept_to_the_pixel_where_it_is_small(old: Run, tmp_path: Path) -> None:
    kept = keep_pictures(old, ["base", "spo"], tmp_path / "b.json")
    assert (kept.pictures, kept.lost, kept.folder) == (24, 0, tmp_path / "b-pictures")
    files = list(kept.folder.rglob("*.webp"))
    assert kept.size_bytes == sum(path.stat().st_size for path in files)
    assert {path.parent.name for path in files} == {"base", "spo"}
    with (
        Image.open(kept.folder / "spo" / "case-003-0.webp") as copy,
        Image.open(io.BytesIO(png_bytes("spo", "case-003", 0, 7))) as own,
    ):
        assert copy.convert("RGB").tobytes() == own.convert("RGB").tobytes()


def test_a_large_picture_is_made_small(old: Run, tmp_path: Path) -> None:
    render = next(one for one in old.renders if (one.variant, one.sample) == ("base", 0))
    big = io.BytesIO()
    Image.new("RGB", (1024, 512), "red").save(big, "PNG")
    (Path(old.path) / str(render.image)).write_bytes(big.getvalue())
    known = replace(render, sha256=hashlib.sha256(big.getvalue()).hexdigest())
    keep_pictures(replace(old, renders=(known,)), ["base"], tmp_path / "b.json")
    with Image.open(tmp_path / "b-pictures" / "base" / f"{render.prompt_id}-0.webp") as copy:
        assert copy.size == (SIDE_PX, SIDE_PX // 2)


def test_a_failed_gate_shows_both_sides_from_the_baseline_alone(new: Run, old: Run, tmp_path: Path) -> None:
    keep_pictures(old, ["base", "spo"], tmp_path / "b.json")
    for image in Path(old.path).rglob("*.png"):
        image.unlink()
    page = page_of(html(view_of(new, failed(new, old, tmp_path / "b.json"))))
    sides = [one.attributes["alt"].split()[0] for one in page.named("img")]
    assert sides.count("candidate") == sides.count("reference") == 20
    worst = page.named("details", class_="worst")[0].text
    assert "the small copies that lie beside the baseline" in worst
    assert "sample 0" in worst
    assert "sample 1" not in worst


def test_a_picture_that_is_gone_or_changed_is_said(new: Run, old: Run, tmp_path: Path) -> None:
    keep_pictures(old, ["spo"], tmp_path / "b.json")
    gate = failed(new, old, tmp_path / "b.json")
    first, second = [one.prompt_id for one in next(v for v in gate.verdicts if v.worst).worst][:2]
    (tmp_path / "b-pictures" / "spo" / f"{first}-0.webp").unlink()
    (tmp_path / "b-pictures" / "spo" / f"{second}-0.webp").write_bytes(png_bytes("base", "x", 0, 0))
    text = page_of(html(view_of(new, gate))).named("details", class_="worst")[0].text
    assert "1 file of 12 is gone." in text
    assert "The file is gone." in text
    assert "it is not the file that was kept with the baseline" in text


def test_pictures_of_another_run_are_not_shown(old: Run, new: Run, tmp_path: Path) -> None:
    keep_pictures(old, ["spo"], tmp_path / "b.json")
    found = find_pictures(str(tmp_path / "b.json"), "another-run")
    assert found.files == {}
    assert "are of another run" in found.note


@pytest.mark.parametrize("name", ["../../../etc/passwd", "a/b", "", ".."])
def test_an_index_cannot_name_a_file_elsewhere(old: Run, tmp_path: Path, name: str) -> None:
    index = keep_pictures(old, ["spo"], tmp_path / "b.json").folder / "pictures.json"
    table = json.loads(index.read_text())
    table["pictures"] = {"spo": {name: "0" * 64}}
    index.write_text(json.dumps(table))
    found = find_pictures(str(tmp_path / "b.json"), old.info.id)
    assert found.files == {}
    assert "The candidate's images alone" in found.note


def test_a_new_baseline_takes_the_place_of_the_old_pictures_and_of_nothing_else(old, new, tmp_path: Path) -> None:
    folder = keep_pictures(old, ["base", "dpo", "spo"], tmp_path / "b.json").folder
    (folder / "spo" / "mine.txt").write_text("kept")
    keep_pictures(new, ["base"], tmp_path / "b.json")
    assert sorted(path.name for path in folder.iterdir()) == ["base", "pictures.json", "spo"]
    assert [path.name for path in (folder / "spo").iterdir()] == ["mine.txt"]
    other = pictures_folder(tmp_path / "c.json")
    other.mkdir()
    (other / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="holds something else"):
        keep_pictures(new, ["base"], tmp_path / "c.json")


def test_the_summary_names_or_shows_the_pair(new: Run, old: Run, tmp_path: Path) -> None:
    keep_pictures(old, ["spo"], tmp_path / "b.json")
    worst = (WorstPrompt(prompt_id="case-001", candidate=0.4, reference=0.5, loss=0.1),)
    gate = make_gate(make_verdict("fail", reference="spo", worst=worst), baseline=str(tmp_path / "b.json"))
    frozen = find_pictures(gate.baseline, old.info.id)
    text = summary_markdown(gate, new, None, frozen=frozen)
    assert "images/spo/case-001-0.png" in text
    assert "b-pictures/spo/case-001-0.webp" in text
    shown = summary_markdown(gate, new, None, frozen=frozen, image_base="https://example.org/x")
    assert 'src="https://example.org/x/b-pictures/spo/case-001-0.webp"' in shown
    assert 'src="https://example.org/x/new/images/spo/case-001-0.png"' in shown


def test_a_run_on_an_object_store_is_refused(old: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made of a run folder on this machine"):
        keep_pictures(replace(old, url="s3://bucket/run"), ["spo"], tmp_path / "b.json")
