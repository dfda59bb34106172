"""The run folder: what is written is read back, what must not mix is refused, crashes leave it usable."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run

from bench.errors import IncomparableError, InvalidError, MachineError, UsageError
from bench.records import Run, Suite
from bench.store import RunFolder, load_run, run_id
from bench.suite import protocol_digest

replace = msgspec.structs.replace


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", prompts=3, samples=2, variants=("base", "spo"))


def open_for(suite: Suite, path: Path, *, fresh: bool = False) -> RunFolder:
    return RunFolder.open(path, suite=suite, protocol_digest=protocol_digest(suite), fresh=fresh)


def fill(folder: RunFolder, run: Run) -> None:
    folder.write_info(run.info)
    folder.append_renders(run.renders)
    folder.append_scores(run.scores)
    folder.append_timings(run.timings)


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# --- write and read ------------------------------------------------------------------------


def test_a_run_is_read_back_as_it_was_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    with open_for(run.info.suite, path) as folder:
        assert folder.info is None
        fill(folder, run)
        assert folder.info == run.info
        assert folder.renders() == run.renders
        assert folder.scores() == run.scores
        assert folder.timings() == run.timings
    read = load_run(path)
    assert read.info == run.info
    assert read.renders == run.renders
    assert read.timings == run.timings
    assert set(read.scores) == set(run.scores)
    assert load_run(path / "run.json") == read
    assert json.loads((path / "run.json").read_text(encoding="utf-8"))["suite"]["name"] == "fake"


def test_load_run_reads_what_an_independent_writer_wrote(run: Run, tmp_path: Path) -> None:
    assert load_run(write_run(run, tmp_path / "run")).renders == run.renders


def test_the_newest_record_counts_and_order_is_the_runs(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    older = tuple(replace(item, image=None, sha256=None, error="black") for item in run.renders[::-1])
    with open_for(run.info.suite, path) as folder:
        folder.write_info(run.info)
        folder.append_renders(older)
        folder.append_renders(run.renders)
        folder.append_scores(replace(item, value=None, reason="x") for item in run.scores)
        folder.append_scores(run.scores[::-1])
        assert folder.renders() == run.renders[::-1]
    read = load_run(path)
    assert read.renders == run.renders
    assert set(read.scores) == set(run.scores)
    names = [facts.name for facts in run.info.metrics]
    cells = [(item.variant, item.prompt_id, item.sample, names.index(item.metric)) for item in read.scores]
    assert cells == sorted(cells)


def test_variants_that_the_suite_lost_are_left_out_and_foreign_cases_refused(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    suite = replace(run.info.suite, variants=run.info.suite.variants[:1])
    (path / "run.json").write_bytes(msgspec.json.encode(replace(run.info, suite=suite)))
    read = load_run(path)
    assert {item.variant for item in (*read.renders, *read.scores, *read.timings)} == {"base"}
    (path / "run.json").write_bytes(
        msgspec.json.encode(replace(run.info, suite=replace(suite, prompts=suite.prompts[1:])))
    )
    with pytest.raises(InvalidError, match=r"renders\.jsonl: names the prompt 'case-000'"):
        load_run(path)


def test_images_are_whole_files_at_their_place(run: Run, tmp_path: Path) -> None:
    with open_for(run.info.suite, tmp_path / "run") as folder:
        folder.write_info(run.info)
        name, digest = folder.write_image("base", "case-000", 1, b"png")
        assert (name, digest) == ("images/base/case-000-1.png", hashlib.sha256(b"png").hexdigest())
        assert folder.image_path("base", "case-000", 1).read_bytes() == b"png"
        threads = [threading.Thread(target=folder.write_image, args=("base", "c", n, b"%d" % n)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [folder.image_path("base", "c", n).read_bytes() for n in range(16)] == [b"%d" % n for n in range(16)]
        assert folder.write_text("plots/notes.md", "ü") == tmp_path / "run" / "plots" / "notes.md"
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_scores_csv_has_a_row_an_image_and_a_column_a_metric(run: Run, tmp_path: Path) -> None:
    failed = make_run(tmp_path, prompts=3, samples=2, variants=("base", "spo"), failed=[("spo", "case-001", 0)])
    with open_for(failed.info.suite, tmp_path / "run") as folder:
        fill(folder, failed)
        text = folder.write_scores_csv().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    metrics = [facts.name for facts in failed.info.metrics]
    assert list(rows[0]) == ["variant", "prompt_id", "sample", "seed", "image", "error", *metrics]
    assert [(row["variant"], row["prompt_id"], int(row["sample"])) for row in rows] == [
        (item.variant, item.prompt_id, item.sample) for item in failed.renders
    ]
    values = {(s.variant, s.prompt_id, s.sample, s.metric): s.value for s in failed.scores}
    for row in rows:
        for metric in metrics:
            value = values.get((row["variant"], row["prompt_id"], int(row["sample"]), metric))
            assert row[metric] == ("" if value is None else repr(value))
    bad = next(row for row in rows if row["error"])
    assert (bad["variant"], bad["prompt_id"], bad["image"], bad["mini-clip"]) == ("spo", "case-001", "", "")


@pytest.mark.parametrize("journal", ["renders", "scores", "timings"])
def test_what_is_added_outdates_the_verdicts_of_a_gate(run: Run, tmp_path: Path, journal: str) -> None:
    path = tmp_path / "run"
    with RunFolder.open(path, suite=run.info.suite, protocol_digest=run.info.protocol_digest) as folder:
        (path / "gate.json").write_text("{}")
        getattr(folder, f"append_{journal}")(getattr(run, journal)[:1])
    assert not (path / "gate.json").exists()


def test_dropping_a_variant_leaves_the_others_as_they_are(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with open_for(run.info.suite, path) as folder:
        fill(folder, run)
        before = snapshot(path)
        folder.drop_variant("nobody")
        assert snapshot(path) == before
        (path / "gate.json").write_text("{}")  # of the weights that are dropped
        folder.drop_variant("spo")
        assert not (path / "gate.json").exists()
        assert folder.renders() == tuple(item for item in run.renders if item.variant == "base")
        assert folder.scores() == tuple(item for item in run.scores if item.variant == "base")
        assert folder.timings() == tuple(item for item in run.timings if item.variant == "base")


def test_run_ids_differ() -> None:
    assert len({run_id() for _ in range(100)}) == 100


def test_a_folder_that_was_not_written_to_is_gone_again(run: Run, tmp_path: Path) -> None:
    open_for(run.info.suite, tmp_path / "new").close()
    (tmp_path / "own").mkdir()
    open_for(run.info.suite, tmp_path / "own").close()
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


# --- what may lie in the folder ------------------------------------------------------------


def test_the_same_protocol_is_continued(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    suite = replace(run.info.suite, variants=run.info.suite.variants[:1], metrics=("mini-clip",), name="other")
    with open_for(suite, path) as folder:
        assert folder.info == run.info


def test_another_protocol_is_refused_and_nothing_touched(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    before = snapshot(path)
    with pytest.raises(IncomparableError, match="seed is 0 there and 9 here"):
        open_for(replace(run.info.suite, seed=9), path)
    assert snapshot(path) == before


def test_fresh_keeps_the_old_run_beside(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    before = snapshot(path)
    other = replace(run.info.suite, seed=9)
    for number in (1, 2):
        with open_for(other, path, fresh=True) as folder:
            assert folder.info is None
            assert not folder.renders()
            folder.write_info(replace(run.info, suite=other, protocol_digest=protocol_digest(other)))
        assert (tmp_path / f"run.old-{number}" / "run.json").exists()
    assert snapshot(tmp_path / "run.old-1") == before
    with open_for(other, tmp_path / "never", fresh=True) as folder:
        assert folder.info is None


def test_fresh_touches_nothing_before_something_is_written(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    before = snapshot(tmp_path)
    with open_for(run.info.suite, path, fresh=True) as folder:
        assert (folder.info, folder.renders(), folder.scores(), folder.timings()) == (None, (), (), ())
        with pytest.raises(MachineError, match="in use"):
            open_for(run.info.suite, path)
    assert snapshot(tmp_path) == before
    with open_for(run.info.suite, path, fresh=True) as folder:
        folder.write_info(run.info)
        for place, taken in ((path, True), (tmp_path / "run.old-1", False)):
            if taken:
                with pytest.raises(MachineError, match="in use"):
                    RunFolder.reopen(place)
            else:
                RunFolder.reopen(place).close()
        assert folder.renders() == ()
        folder.append_renders(run.renders[:1])
    assert load_run(path).renders == run.renders[:1]
    assert load_run(tmp_path / "run.old-1").renders == run.renders


def test_an_old_run_that_cannot_be_moved_ends_with_a_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    path = write_run(run, tmp_path / "run")
    with monkeypatch.context() as patch, open_for(run.info.suite, path, fresh=True) as folder:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(MachineError, match="cannot be written: Permission denied"):
            folder.write_info(run.info)
    with open_for(run.info.suite, path) as folder:  # it is not locked any more
        assert folder.renders() == run.renders


def test_folders_that_were_made_are_gone_when_nothing_was_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    open_for(run.info.suite, tmp_path / "own" / "deep" / "below" / "run").close()
    assert list(tmp_path.iterdir()) == [tmp_path / "own"]
    assert list((tmp_path / "own").iterdir()) == []
    first = open_for(run.info.suite, tmp_path / "own" / "deep" / "a")
    with open_for(run.info.suite, tmp_path / "own" / "deep" / "b") as second:
        second.write_info(run.info)
        first.close()
    assert [file.name for file in (tmp_path / "own" / "deep").iterdir()] == ["b"]


def test_a_folder_with_something_else_in_it_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for fresh in (False, True):
        with pytest.raises(UsageError, match=r"not empty and holds no run \(no run\.json\), but holiday\.jpg"):
            open_for(run.info.suite, tmp_path, fresh=fresh)
    with pytest.raises(UsageError, match="is a file"):
        open_for(run.info.suite, tmp_path / "holiday.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_what_a_killed_process_left_half_written_is_cleared(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    for name in (".run.json.77-1.tmp", "images/base/.prompt_id-000-0.png.77-1.tmp"):
        (path / name).write_bytes(b"half")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".run.json.77-1.tmp").write_bytes(b"half")
    for folder in (RunFolder.reopen(path), open_for(run.info.suite, tmp_path / "begun")):
        folder.close()
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_run_is_a_usage_error_with_the_next_command(tmp_path: Path) -> None:
    for reading in (load_run, RunFolder.reopen):
        with pytest.raises(UsageError, match="there is no run here") as caught:
            reading(tmp_path / "gone")
        assert caught.value.hint == f"hotart-bench run SUITE -o {tmp_path / 'gone'}"
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"schema":4}', b'{"schema":1,"schema":1}'])
def test_a_damaged_run_json_is_invalid(content: bytes, run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    (path / "run.json").write_bytes(content)
    for reading in (load_run, RunFolder.reopen, lambda path: open_for(run.info.suite, path)):
        with pytest.raises(InvalidError, match=r"run\.json: is not a valid run"):
            reading(path)


def test_a_newer_schema_is_incomparable(run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    table = json.loads((path / "run.json").read_text(encoding="utf-8")) | {"schema": 5, "future": 1}
    (path / "run.json").write_text(json.dumps(table), encoding="utf-8")
    for reading in (load_run, RunFolder.reopen, lambda path: open_for(run.info.suite, path)):
        with pytest.raises(IncomparableError, match="has schema 5; this hotart-bench reads runs of schema 4 only"):
            reading(path)


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "images/base/other-0.png", None])
def test_an_image_elsewhere_is_never_followed(image: str | None, run: Run, tmp_path: Path) -> None:
    path = write_run(run, tmp_path / "run")
    stray = replace(run.renders[0], image=image)
    (path / "renders.jsonl").write_bytes(msgspec.json.encode(stray) + b"\n")
    with pytest.raises(InvalidError, match=r"renders\.jsonl:1: the image is"):
        load_run(path)


# --- environment error -----------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_a_machine_error(run: Run) -> None:
    for place in ("/proc/hotart", "/dev/null/run"):
        with pytest.raises((MachineError, UsageError)) as caught:
            open_for(run.info.suite, Path(place))
        assert place in caught.value.message
