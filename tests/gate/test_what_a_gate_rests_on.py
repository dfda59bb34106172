"""A gate and a baseline rest on a finished run that is what its records say, or there is no verdict."""

from __future__ import annotations

import json
import shutil

import pytest
from fakes import make_run, write_run
from gate_runs import LIMITS, make_folder
from msgspec.structs import replace

from bench.baseline import freeze, write_baseline
from bench.errors import InvalidError
from bench.records import Acceptance, ExternalImages
from bench.soundness import doubts, is_finished, pruned_variants
from bench.store import image_hashes, load_run, read_gate
from bench.store.objects import Objects
from bench.suite.limits import parse_limits

PROMPTS = 12
SPO = "images/spo/case-003-1.png"


def whole_folder(path, **arguments):
    """A finished run of base and spo with limits and its images."""
    run = make_run(path, variants=("base", "spo"), **{"prompts": PROMPTS, **arguments})
    return write_run(
        replace(run, info=replace(run.info, suite=replace(run.info.suite, limits=parse_limits(LIMITS)))), path
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    place = tmp_path_factory.mktemp("old")
    accepted = Acceptance(by="Ada", time="2025-01-01T00:00:00+00:00")
    write_baseline(freeze(load_run(whole_folder(place / "run")), acceptance=accepted), place / "old.json")
    return place / "old.json"


def lines_of(path):
    return (path / "renders.jsonl").read_bytes().splitlines(keepends=True)


def write_lines(path, lines):
    (path / "renders.jsonl").write_bytes(b"".join(lines))


def change_info(path, **changes):
    table = json.loads((path / "run.json").read_bytes())
    (path / "run.json").write_text(json.dumps({**table, **changes}))


def of_another_seed(path):
    lines = lines_of(path)
    record = json.loads(lines[-1])
    write_lines(path, [*lines[:-1], json.dumps({**record, "seed": record["seed"] + 1}).encode() + b"\n"])


def of_another_suite_seed(path):
    suite = json.loads((path / "run.json").read_bytes())["suite"]
    change_info(path, suite={**suite, "seed": 7})


def of_another_text(path):
    suite = json.loads((path / "run.json").read_bytes())["suite"]
    prompts = [{**prompt, "prompt": f"{prompt['prompt']} again"} for prompt in suite["prompts"]]
    change_info(path, suite={**suite, "prompts": prompts})


BROKEN = {
    "no records": (lambda path: (path / "renders.jsonl").unlink(), "no record in renders.jsonl"),
    "empty records": (lambda path: write_lines(path, []), "no record in renders.jsonl"),
    "a torn record": (lambda path: write_lines(path, [*lines_of(path)[:-1], lines_of(path)[-1][:-9]]), "1 image of 24"),
    "a record lacking": (lambda path: write_lines(path, lines_of(path)[:-1]), "case-011 sample 1"),
    "another seed": (of_another_seed, "another seed than the planned one"),
    "started": (lambda path: change_info(path, status="started"), "was not ended"),
    "failed": (lambda path: change_info(path, status="failed"), "ended with an error"),
    "a lost image": (lambda path: (path / SPO).unlink(), "1 image of 24 has no file any more (case-003 sample 1"),
    "a changed image": (lambda path: (path / SPO).write_bytes(b"another"), "not the one that was recorded"),
    "another image": (
        lambda path: shutil.copy(path / "images/base/case-003-1.png", path / SPO),
        "not the one that was recorded",
    ),
    "a folder for an image": (lambda path: ((path / SPO).unlink(), (path / SPO).mkdir()), "has no file any more"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_run_that_is_not_finished_or_not_what_it_says_is_invalid_and_is_not_frozen(case, old, cli, tmp_path):
    break_it, words = BROKEN[case]
    path = whole_folder(tmp_path / "run", seed=1)
    break_it(path)
    answer = cli("gate", path, "--baseline", old, "--junit", tmp_path / "gate.xml")
    assert answer.code == 5, answer.out + answer.err
    assert read_gate(path).outcome == "invalid"
    assert words in answer.out.replace("\n", " ")
    assert "<error" in (tmp_path / "gate.xml").read_text("utf-8")
    refused = cli("baseline", path, "-o", tmp_path / "new.json", "--by", "Ada")
    assert refused.code == 5
    assert words in refused.err.replace("\n", " ")
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [(of_another_suite_seed, "another seed than the planned one"), (of_another_text, "its protocol digest")],
)
def test_a_suite_that_was_edited_in_the_run_folder_is_not_frozen(edit, words, cli, tmp_path):
    path = whole_folder(tmp_path / "run")
    edit(path)
    answer = cli("baseline", path, "-o", tmp_path / "new.json", "--by", "Ada")
    assert answer.code == 5
    assert words in answer.err.replace("\n", " ")


@pytest.mark.parametrize("case", ["a record lacking", "failed", "a changed image"])
def test_a_run_folder_as_the_reference_is_checked_as_well(case, cli, tmp_path):
    path = whole_folder(tmp_path / "old")
    BROKEN[case][0](path)
    new = whole_folder(tmp_path / "new", seed=1)
    assert cli("gate", new, "--baseline", path).code == 5
    assert BROKEN[case][1] in " ".join(one.sentence for one in read_gate(new).verdicts)


def test_two_variants_of_one_run_are_checked_too(cli, tmp_path):
    path = whole_folder(tmp_path / "run")
    (path / SPO).write_bytes(b"another")
    assert cli("gate", path, "--candidate", "spo", "--reference", "base").code == 5


def test_a_whole_run_is_judged_without_a_word_on_its_images(old, cli, tmp_path):
    path = whole_folder(tmp_path / "run", seed=1)
    answer = cli("gate", path, "--baseline", old)
    assert "cannot be checked" not in answer.out
    assert not any("are gone" in note for note in read_gate(path).notes)
    assert "check images: 48 of 48" in answer.err


def test_a_run_whose_images_were_pruned_is_judged_with_a_note(old, cli, tmp_path):
    path = whole_folder(tmp_path / "run", seed=1)
    whole = cli("gate", path, "--baseline", old)
    kept = read_gate(path)
    shutil.rmtree(path / "images" / "spo")
    pruned = cli("gate", path, "--baseline", old)
    assert (pruned.code, read_gate(path).verdicts) == (whole.code, kept.verdicts)
    (note,) = (note for note in read_gate(path).notes if "are gone" in note)
    assert "images of spo" in note
    frozen = cli("baseline", path, "-o", tmp_path / "new.json", "--by", "Ada")
    assert frozen.code == 0
    assert "the images of spo are gone" in frozen.err


def test_a_run_on_an_object_store_is_checked_too(old, cli, tmp_path):
    path, url = whole_folder(tmp_path / "run", seed=1), "memory://bucket/gated"
    objects = Objects(url)
    for file in path.rglob("*"):
        if file.is_file():
            objects.put(file.relative_to(path).as_posix(), file.read_bytes())
    there, here = (cli("gate", one, "--baseline", old) for one in (url, path))
    assert (there.code, "check images: 48 of 48" in there.err) == (here.code, True)
    assert not any("are gone" in note for note in read_gate(path).notes)
    objects.put(SPO, b"another")
    changed = cli("gate", url, "--baseline", old)
    assert (changed.code, "not the one that was recorded" in changed.out.replace("\n", " ")) == (5, True)
    objects.delete([SPO])
    lost = cli("gate", url, "--baseline", old)
    assert (lost.code, "no file any more" in lost.out.replace("\n", " ")) == (5, True)
    assert cli("baseline", url, "-o", tmp_path / "new.json", "--by", "Ada").code == 5


def test_scores_without_a_recorded_image_do_not_count(tmp_path):
    run = load_run(make_folder(tmp_path / "run", prompts=PROMPTS))
    lost = freeze(replace(run, renders=(), timings=()))
    assert all(set(one.values["mini-clip"]) == {None} and one.doubts for one in lost.variants)
    by_hand = tuple(replace(one, image_sha256=None) for one in run.scores)
    with pytest.raises(InvalidError, match="no score and no timing"):
        freeze(replace(run, scores=by_hand, timings=()))


def test_a_doubtful_run_cannot_be_written_as_a_baseline(tmp_path):
    run = load_run(make_folder(tmp_path / "run", prompts=PROMPTS))
    doubtful = freeze(replace(run, info=replace(run.info, status="failed")), acceptance=Acceptance(by="A", time=""))
    with pytest.raises(InvalidError, match=r"base cannot be frozen: run\.json says that the run ended with an error"):
        write_baseline(doubtful, tmp_path / "new.json")


def test_external_images_have_no_seeds_and_are_checked_by_their_hashes(tmp_path):
    run = make_run(tmp_path / "run", prompts=3, variants=("base", "spo"))
    suite = replace(run.info.suite, external_images=ExternalImages(images="pictures", prompts="pictures.csv"))
    path = write_run(run, tmp_path / "run")

    def found(renders):
        external = replace(load_run(path), info=replace(run.info, suite=suite), renders=renders)
        return " ".join(doubts(external, image_hashes(external))["spo"])

    unknown = tuple(replace(one, seed=None, batch=None) for one in run.renders)
    assert "seed" not in found(unknown)
    assert "6 images of 6 have another seed" in found(run.renders)
    (path / "images/spo/case-000-0.png").write_bytes(b"another")
    assert "not the one that was recorded" in found(unknown)


def test_finished_needs_each_record_and_each_score_but_no_timing(tmp_path):
    run = make_run(tmp_path, prompts=3)
    hashes = {one.image: one.sha256 for one in run.renders}
    metrics = run.info.suite.metrics
    assert is_finished(replace(run, timings=()), hashes, metrics)
    assert is_finished(run, {}, metrics), "pruned"
    assert pruned_variants(run, {}) == ("base", "dpo", "spo")
    assert not is_finished(run, {**hashes, run.renders[0].image: None}, metrics)
    assert not is_finished(replace(run, renders=run.renders[1:]), hashes, metrics)
    for left_out in run.scores[::7]:
        assert not is_finished(
            replace(run, scores=tuple(one for one in run.scores if one != left_out)), hashes, metrics
        )
    again = replace(run.scores[0], value=None, reason="out of memory", image_sha256=None)
    assert not is_finished(replace(run, scores=(again, *run.scores[1:])), hashes, metrics), "it is tried again"
    final = replace(run.scores[0], value=None, reason="no face was found")
    assert is_finished(replace(run, scores=(final, *run.scores[1:])), hashes, metrics)
