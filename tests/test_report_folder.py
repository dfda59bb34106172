"""The page as a folder: what lies in it, that it is made again only where it must be, and that text stays text."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, png_bytes, write_run
from PIL import Image
from report_runs import HOSTILE, hostile_run, page_of

from bench.errors import UsageError
from bench.records import Run
from bench.report.copies import LISTED_PX
from bench.report.folder import folder_bytes, small_pictures, write_folder
from bench.store import load_run


def written(run: Run, folder: Path) -> Run:
    write_run(run, folder)
    return load_run(folder)


def data_of(page: Path) -> dict:
    text = (page.parent / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.hotartBench = ").removesuffix(";\n"))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_within_the_run_folder_it_uses_the_images_that_are_there(tmp_path: Path) -> None:
    run = written(make_run("run", prompts=3, samples=1, failed={("spo", "case-001", 0)}), tmp_path / "run")
    page = write_folder(run)
    assert page == tmp_path / "run" / "page" / "index.html"
    assert {name for name in files(page.parent) if not name.startswith("small/")} == {
        "index.html", "data.js", "page.js", "page.css",
    }  # fmt: skip
    cells = data_of(page)["cells"]
    assert all((page.parent / cell[1]).is_file() for column in cells for cell in column if cell[1])
    assert sum(bool(cell[0]) for column in cells for cell in column) == 3 * 3 - 1
    for column in cells:
        for small, file, *_ in column:
            if small:
                with Image.open(page.parent / small) as copy, Image.open(page.parent / file) as image:
                    assert (copy.format, copy.size) == ("WEBP", image.size)


def test_elsewhere_it_has_copies_of_the_images_byte_for_byte(tmp_path: Path) -> None:
    run = written(make_run("run", prompts=2, samples=2), tmp_path / "run")
    page = write_folder(run, tmp_path / "sent")
    for variant in ("base", "dpo", "spo"):
        name = f"images/{variant}/case-001-1.png"
        assert (page.parent / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert all(cell[1].startswith("images/") for column in data_of(page)["cells"] for cell in column)
    assert folder_bytes(page.parent) == sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())


def test_every_row_has_its_pictures_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.pictures.MAX_ROWS", 2)
    page = write_folder(written(make_run("run", prompts=6, samples=2), tmp_path / "run"))
    assert all(cell[0] for column in data_of(page)["cells"] for cell in column)
    assert "The list shows small copies, the large view the stored files." in page.read_text(encoding="utf-8")


def test_large_pictures_become_small_ones_of_the_same_shape(tmp_path: Path) -> None:
    run = make_run("run", prompts=1, samples=1)
    folder = write_run(run, tmp_path / "run")
    sizes = {}
    for side in (384, 256):
        png = png_bytes("base", "case-000", 0, 0, 900)
        path = folder / "images/base/case-000-0.png"
        with Image.open(io.BytesIO(png)) as image:
            image.crop((0, 0, 900, 450)).save(path)
        renders = tuple(
            msgspec.structs.replace(one, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
            if one.variant == "base"
            else one
            for one in run.renders
        )
        names = ["base", "dpo", "spo", "c", "d"][: 5 if side == 256 else 3]
        more = make_run("run", prompts=1, samples=1, variants=names)
        loaded = msgspec.structs.replace(more, path=str(folder), renders=renders)
        (tmp_path / "page" / "small").mkdir(parents=True, exist_ok=True)
        pictures, broken = small_pictures(loaded, tmp_path / "page", copy=False)
        assert not broken
        shown = pictures["base", "case-000", 0]
        assert (shown.width_px, shown.height_px) == (900, 450)
        with Image.open(tmp_path / "page" / shown.uri) as copy:
            sizes[side] = copy.size
    assert sizes == {384: (384, 192), 256: (256, 128)}
    assert list(LISTED_PX.values()) == [384, 256, 192]


def test_a_second_time_only_what_has_changed_is_made(tmp_path: Path) -> None:
    run = written(make_run("run", prompts=3, samples=1), tmp_path / "run")
    page = write_folder(run)
    times = {path: path.stat().st_mtime_ns for path in (page.parent / "small").iterdir()}
    assert len(times) == 9
    kept = tuple(one for one in run.renders if one.prompt_id != "case-002")
    write_folder(msgspec.structs.replace(run, renders=kept))
    after = {path: path.stat().st_mtime_ns for path in (page.parent / "small").iterdir()}
    assert len(after) == 6, "copies that the page no longer shows are taken away"
    assert after.items() <= times.items()


def test_broken_images_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = write_run(make_run("run", prompts=2, samples=1), tmp_path / "run")
    (folder / "images/dpo/case-000-0.png").unlink()
    (folder / "images/spo/case-001-0.png").write_bytes(b"not an image")
    page = write_folder(load_run(folder))
    found = data_of(page)
    said = {found["records"][cell[3]][1][:40] for column in found["cells"] for cell in column if cell[3] >= 0}
    assert said == {"The file images/dpo/case-000-0.png canno", "The file images/spo/case-001-0.png canno"}
    assert "2 image files of the run folder could not be read." in page.read_text(encoding="utf-8")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = hostile_run()
    page = write_folder(written(run, tmp_path / "run"))
    whole = page_of(page.read_text(encoding="utf-8"))
    assert [one.attributes["src"] for one in whole.named("script")] == ["data.js", "page.js"]
    assert not [one for one in whole.elements if any(name.startswith("on") for name in one.attributes)]
    policy = whole.named("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    source = (page.parent / "data.js").read_text(encoding="utf-8")
    assert not set("<>&\u2028\u2029") & set(source)
    assert [one[1] for one in data_of(page)["prompts"]] == list(HOSTILE)


def test_the_run_folder_itself_is_no_place_for_it(tmp_path: Path) -> None:
    run = written(make_run("run", prompts=1), tmp_path / "run")
    with pytest.raises(UsageError, match="is the run folder itself"):
        write_folder(run, tmp_path / "run")
