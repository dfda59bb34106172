"""A run folder on an object store: what is there counts, from whatever machine, and a crash loses one batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, png_bytes, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_stores import empty_memory, s3_server

from bench.errors import MachineError, UsageError
from bench.records import Answer, FacesAsked, FoundFaces, Question, Render, Run, SetScore, StepScore, Suite, Vote
from bench.store import RunFolder, load_answers, load_faces, load_run, load_steps, read_gate
from bench.store.journal import JOURNALS, RENDERS, Journal
from bench.store.object_store import ObjectStoreSync
from bench.store.objects import Objects, is_url
from bench.suite import protocol_digest
from bench.suite.planned_images import missing_batches

Go = Callable[[str], None]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for one run, on a store in memory and on one behind S3's protocol."""
    if request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/{tmp_path.name}/run"
    else:
        empty_memory()
        yield "memory://bucket/run"
        empty_memory()


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Puts us on another machine: nothing that was kept on the one before is there."""

    def move(name: str) -> None:
        monkeypatch.setenv("HOTART_RUNS_CACHE", str(tmp_path / name))

    move("first")
    return move


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("runs") / "run", prompts=3, samples=2, variants=("base", "spo"))
    write_run(made, made.path)
    return made


def open_for(suite: Suite, place: str | Path, *, fresh: bool = False) -> RunFolder:
    return RunFolder.open(place, suite=suite, protocol_digest=protocol_digest(suite), fresh=fresh)


def draw(folder: RunFolder, renders: tuple[Render, ...]) -> None:
    for one in renders:
        folder.write_image(one.variant, one.prompt_id, one.sample, png_bytes(one.variant, one.prompt_id, one.sample, 0))
    folder.append_renders(renders)


def stored(url: str) -> dict[str, bytes]:
    objects = Objects(url)
    return objects.get_all(objects.names())


# --- what lies there -----------------------------------------------------------------------


def test_a_finished_run_lies_there_as_it_would_in_a_folder(url: str, go: Go, run: Run, tmp_path: Path) -> None:
    for place in (url, tmp_path / "local"):
        with open_for(run.info.suite, place) as folder:
            folder.write_info(run.info)
            draw(folder, run.renders[:6])
            draw(folder, run.renders[6:])
            folder.append_scores(run.scores)
            folder.append_timings(run.timings)
            folder.write_scores_csv()
            (folder.path / "plots").mkdir()
            (folder.path / "plots" / "a.png").write_bytes(b"drawn without the folder's knowing")
    local = {
        path.relative_to(tmp_path / "local").as_posix(): path.read_bytes()
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    }
    assert stored(url) == local
    go("second")
    assert msgspec.structs.replace(load_run(url), path="", url="") == msgspec.structs.replace(
        load_run(tmp_path / "local"), path=""
    )
    assert load_run(f"{url}/run.json").renders == run.renders


def test_a_batch_is_one_chunk_that_comes_after_its_images(url: str, go: Go, run: Run) -> None:
    with suppress(KeyboardInterrupt), open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders[:4])
        draw(folder, run.renders[4:6])
        folder.write_image("spo", "case-000", 0, b"an image of a batch that never came to be recorded")
        raise KeyboardInterrupt
    names = sorted(stored(url))
    chunks = [name for name in names if name.startswith("chunks/")]
    assert [name[:23] for name in chunks] == [
        "chunks/000001-renders-" + chunks[0][22],
        "chunks/000002-renders-" + chunks[1][22],
    ]
    assert "renders.jsonl" not in names
    assert [len(stored(url)[name].splitlines()) for name in chunks] == [4, 2]
    assert len([name for name in names if name.startswith("images/")]) == 7


def test_every_journal_of_a_cut_off_run_is_there_on_another_machine(url: str, go: Go, run: Run) -> None:
    of = {"variant": "spo", "prompt_id": "case-000"}
    noise = {"step": 1, "timestep": 900.0, "sigma": 2.0}
    step = StepScore(**of, **noise, sample=0, metric="m", version="1", image_sha256=None, value=1.0)
    faces = FoundFaces(**of, sample=0, image_sha256=None, detector="d", asked=FacesAsked(least=1, most=1))
    answer = Answer(judge="j", identity="j 1", image_sha256="0", question=Question(text="Is it?"), probability=0.5)
    of_set = SetScore(**of, tag=None, metric="m", version="1", prompts=1, images=2, images_sha256="0", value=0.5)
    sides = {"left": "spo", "right": "base", "left_sha256": "0", "right_sha256": "1", "choice": "tie"}
    shown = {"kind": "pair", "prompt_id": "case-000", "sample": 0, **sides}
    by = {"ballot": "ab" * 8, "pair": "cd" * 8, "voter": "ef" * 8, "name": "Ada", "at": "2026-01-01T00:00:00.000Z"}
    vote = Vote(**shown, **by, seconds=1.5)
    with suppress(KeyboardInterrupt), open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
        folder.append_scores(run.scores)
        folder.append_timings(run.timings)
        folder.append_step_scores([step])
        folder.append_faces([faces])
        folder.append_answers([answer])
        folder.append_set_scores([of_set])
        folder.append_votes([vote])
        raise KeyboardInterrupt
    assert len([name for name in stored(url) if name.startswith("chunks/")]) == len(JOURNALS)
    go("second")
    read = load_run(url)
    assert (read.renders, read.timings, read.set_scores) == (run.renders, run.timings, (of_set,))
    assert read.votes == (vote,)
    assert set(read.scores) == set(run.scores)
    assert (load_steps(url), load_faces(url), load_answers(url)) == ((step,), (faces,), (answer,))


def test_a_run_that_was_cut_off_goes_on_on_another_machine(url: str, go: Go, run: Run) -> None:
    with suppress(KeyboardInterrupt), open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders[:6])
        raise KeyboardInterrupt
    go("second")
    with open_for(run.info.suite, url) as folder:
        assert folder.info == run.info
        assert folder.renders() == run.renders[:6]
        assert missing_batches(run.info.suite, "base", folder.renders(), folder.path) == []
        assert len(missing_batches(run.info.suite, "spo", folder.renders(), folder.path)) == 1
        draw(folder, run.renders[6:])
    left = stored(url)
    assert not [name for name in left if name.startswith((".", "chunks/"))]
    assert len(left["renders.jsonl"].splitlines()) == len(run.renders)
    go("third")
    assert load_run(url).renders == run.renders


def test_an_image_that_is_gone_or_is_another_one_is_to_be_made_again(url: str, go: Go, run: Run) -> None:
    with open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
    objects = Objects(url)
    objects.delete([str(run.renders[0].image)])
    objects.put(str(run.renders[8].image), b"half of")
    # Where a good copy lies, the one on the store is not read to compare them; but it must be there.
    for machine, gone in {
        "first": {run.renders[0].image},
        "second": {run.renders[0].image, run.renders[8].image},
    }.items():
        go(machine)
        with open_for(run.info.suite, url) as folder:
            here = {one.image for one in folder.renders() if one.image and (folder.path / one.image).is_file()}
        assert here == {one.image for one in run.renders} - gone


def test_what_another_machine_did_meanwhile_counts_here(url: str, go: Go, run: Run) -> None:
    with open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders[:6])
        here = folder.path
    with (here / "renders.jsonl").open("ab") as file:
        file.write(b'{"never": "sent"}\n')
    go("second")
    with open_for(run.info.suite, url) as folder:
        folder.drop_variant("base")
        folder.write_text("note.txt", "new")
        draw(folder, run.renders[6:8])
    go("first")
    with open_for(run.info.suite, url) as folder:
        assert folder.path == here
        assert folder.renders() == run.renders[6:8]
        assert (here / "note.txt").read_text() == "new"


def test_a_variant_that_is_dropped_stays_dropped_after_a_crash(url: str, go: Go, run: Run) -> None:
    with suppress(KeyboardInterrupt), open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
        folder.append_scores(run.scores)
        folder.drop_variant("spo")
        raise KeyboardInterrupt
    go("second")
    read = load_run(url)
    assert {one.variant for one in read.renders} == {one.variant for one in read.scores} == {"base"}


def test_fresh_keeps_the_old_run_beside(url: str, go: Go, run: Run) -> None:
    for fresh in (False, True, True):
        with open_for(run.info.suite, url, fresh=fresh) as folder:
            assert folder.info is None
            assert folder.renders() == ()
            folder.write_info(run.info)
            draw(folder, run.renders[:2])
    assert stored(f"{url}.old-1") == stored(f"{url}.old-2") == stored(url)


def test_fresh_touches_nothing_before_something_is_written(url: str, go: Go, run: Run) -> None:
    with open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
    before = stored(url)
    with open_for(run.info.suite, url, fresh=True) as folder:
        assert (folder.info, folder.renders()) == (None, ())
    assert (stored(url), stored(f"{url}.old-1")) == (before, {})


def test_the_verdicts_of_a_gate_are_kept_there_and_go_with_the_next_record(url: str, go: Go, run: Run) -> None:
    from fake_gates import make_gate

    from bench.store import write_gate

    with open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
    gate = make_gate()
    write_gate(url, gate)
    go("second")
    assert read_gate(url) == gate
    with open_for(run.info.suite, url) as folder:
        folder.append_scores(run.scores)
        assert "gate.json" not in Objects(url).names()
    assert read_gate(url) is None


# --- what is refused -----------------------------------------------------------------------


def test_a_second_driver_is_kept_out_and_a_reader_is_not(url: str, go: Go, run: Run) -> None:
    with open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders[:6])
        go("second")
        with pytest.raises(MachineError, match="in use by process"):
            open_for(run.info.suite, url)
        assert load_run(url).renders == run.renders[:6]
    open_for(run.info.suite, url).close()


def test_a_place_with_something_else_in_it_is_refused_and_left_as_it_was(url: str, go: Go, run: Run) -> None:
    Objects(url).put("thesis.txt", b"mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        open_for(run.info.suite, url)
    with pytest.raises(UsageError, match="there is no run here"):
        load_run(url)
    assert stored(url) == {"thesis.txt": b"mine"}


def test_a_run_that_nothing_was_written_to_leaves_nothing(url: str, go: Go, run: Run) -> None:
    open_for(run.info.suite, url).close()
    assert stored(url) == {}


def test_a_bucket_that_is_not_there_is_told_in_one_sentence(bucket: str, go: Go, run: Run) -> None:
    with pytest.raises(MachineError, match=r"s3://other/run: the store would not write .*bucket does not exist"):
        open_for(run.info.suite, "s3://other/run")


def test_urls_that_nothing_here_reads_are_bad_usage(go: Go, run: Run) -> None:
    with pytest.raises(UsageError, match="no package that is installed here reads quux://") as caught:
        open_for(run.info.suite, "quux://bucket/run")
    assert "hotart-bench[s3]" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://b/run", True),
        ("memory://x", True),
        ("runs/mine", False),
        ("C:/runs", False),
        ("s3:/b", False),
        ("", False),
    ],
)
def test_what_counts_as_a_url(place: str, expected: bool) -> None:
    assert is_url(place) is expected


def test_a_reader_looks_again_when_journal_chunks_are_compacted_under_it(
    go: Go, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_memory()
    url = "memory://bucket/run"
    with suppress(KeyboardInterrupt), open_for(run.info.suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
        raise KeyboardInterrupt
    real, turns = Objects.get_all, []

    def compacted_first(self: Objects, names: object) -> dict[str, bytes]:
        if not turns:
            turns.append(1)
            with open_for(run.info.suite, url):
                pass
        return real(self, names)  # type: ignore[arg-type]

    go("second")
    monkeypatch.setattr(Objects, "get_all", compacted_first)
    assert load_run(url).renders == run.renders
    empty_memory()


# --- whatever happens ----------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("draw"), st.integers(0, 11), st.integers(1, 4)),
    st.tuples(st.just("drop"), st.sampled_from(["base", "spo"]), st.just(0)),
    st.tuples(st.just("end"), st.booleans(), st.booleans()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=10))
def test_a_run_on_a_store_is_what_it_would_be_in_a_folder(
    steps: list[tuple[str, int, int]], run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each end is orderly or a crash, and the next session is on the same machine or another one."""
    empty_memory()
    place = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTART_RUNS_CACHE", str(place / "0"))
        pair = [open_for(run.info.suite, "memory://b/run"), open_for(run.info.suite, place / "local")]
        for number, (what, one, two) in enumerate([("info", 0, 0), *steps]):
            for folder in pair:
                if what == "info":
                    folder.write_info(run.info)
                elif what == "draw":
                    draw(folder, run.renders[one : one + two])
                elif what == "drop":
                    folder.drop_variant(str(one))
            if what == "end":
                for folder in pair:
                    folder.__exit__(None, None if one else KeyboardInterrupt(), None)
                if two:
                    patch.setenv("HOTART_RUNS_CACHE", str(place / str(number)))
                pair = [open_for(run.info.suite, "memory://b/run"), open_for(run.info.suite, place / "local")]
            assert pair[0].renders() == pair[1].renders()
        for folder in pair:
            folder.__exit__(None, None, None)
        assert load_run("memory://b/run").renders == load_run(place / "local").renders
        patch.setenv("HOTART_RUNS_CACHE", str(place / "last"))
        last = ObjectStoreSync("memory://b/run")
        for one in Journal(last.folder / RENDERS, Render).records():
            assert one.image
            assert hashlib.sha256((last.folder / one.image).read_bytes()).hexdigest() == one.sha256
        last.release()
    empty_memory()


def test_small_copies_of_images_stay_on_the_machine_that_made_them(url: str, go: Go, run: Run) -> None:
    suite, small = run.info.suite, "page/small/0123-640-q82.webp"
    with open_for(suite, url) as folder:
        folder.write_info(run.info)
        draw(folder, run.renders)
        path = folder.path / small
        path.parent.mkdir(parents=True)
        path.write_bytes(b"copy")
    assert small not in stored(url)
    with open_for(suite, url) as folder:
        assert (folder.path / small).read_bytes() == b"copy"
    go("second")
    with open_for(suite, url) as folder:
        assert not (folder.path / small).exists()
