"""The voting page: what is on it, that nothing of it tells a variant, and that it keeps its limit."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes import make_run, write_run
from msgspec.structs import replace
from PIL import Image
from vote_runs import SEED, make_voted, newest_ballot

from bench.errors import InvalidError, UsageError
from bench.records import Ballot, KeyPair
from bench.store import RunFolder, load_run
from bench.votes.key import KEY
from bench.votes.make import PICTURES, make_page
from bench.votes.pictures import QUALITY, broken_copy, of_one_size


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    return make_voted(tmp_path_factory.mktemp("vote"), prompts=40, samples=1, variants=("base", "spo"))


def page_data(page: Path) -> dict:
    text = (page / "index.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def page_pairs(page: Path) -> list[dict]:
    return [pair for part in page_data(page)["rounds"] for unit in part for pair in unit]


def test_every_image_is_voted_on_and_controls_are_among_them(made):
    run, page = made
    kinds = Counter(pair.kind for pair in newest_ballot(run).pairs)
    assert kinds["pair"] == 40
    assert kinds["same"] == kinds["repeat"] == kinds["broken"] == 3
    assert [pair["id"] for pair in page_pairs(page)] == [pair.id for pair in newest_ballot(run).pairs]


def test_a_repeat_has_the_sides_of_its_pair_changed_and_stands_in_another_part(made):
    run, page = made
    known = {pair.id: pair for pair in newest_ballot(run).pairs}
    parts = [{pair["s"]: known[pair["id"]] for unit in part for pair in unit} for part in page_data(page)["rounds"]]
    repeats = [
        (number, s, pair) for number, part in enumerate(parts) for s, pair in part.items() if pair.kind == "repeat"
    ]
    for number, s, repeat in repeats:
        (where, first) = next((n, part[s]) for n, part in enumerate(parts) if s in part and part[s].kind == "pair")
        assert where != number
        assert (first.a.variant, first.b.variant) == (repeat.b.variant, repeat.a.variant)
        assert (first.prompt_id, first.sample) == (repeat.prompt_id, repeat.sample)
    assert len(repeats) == 3


def test_the_key_stays_and_the_page_names_no_variant_and_no_file_of_the_run(made):
    run, page = made
    everything = b"".join(path.read_bytes() for path in page.rglob("*") if path.is_file())
    for render in load_run(run).renders:
        assert str(render.sha256).encode() not in everything
        assert render.prompt_id.encode() not in everything
    text = (page / "index.html").read_text()
    assert not re.search(r"\b(spo|base|broken|repeat|control)\b", json.dumps(page_data(page)))
    assert "images/" not in text
    assert str(SEED) not in text
    assert sorted(path.name for path in page.iterdir()) == ["index.html", PICTURES]
    assert (run / KEY).exists()


def told_apart(values: dict[str, float], ballot: Ballot) -> float:
    """How often the variant of a pair with the larger value is the commoner one, in [0.5, 1]."""
    signs = []
    for pair in ballot.pairs:
        if pair.kind == "pair" and values[pair.a.file] != values[pair.b.file]:
            larger = pair.a if values[pair.a.file] > values[pair.b.file] else pair.b
            signs.append(larger.variant == "spo")
    return max(np.mean(signs), 1 - np.mean(signs)) if signs else 0.5


def test_nothing_beside_the_pixels_tells_which_variant_drew_a_picture(made):
    run, page = made
    ballot = newest_ballot(run)
    files = {path.name: path for path in (page / PICTURES).iterdir()}
    data = {name: path.read_bytes() for name, path in files.items()}
    place = {pair["id"]: pair for pair in page_pairs(page)}
    clues = {
        "name": {name: float(int(name[:12], 16)) for name in files},
        "size": {name: float(len(one)) for name, one in data.items()},
        "time": {name: path.stat().st_mtime for name, path in files.items()},
        "hash": {name: float(int(hashlib.sha256(one).hexdigest()[:12], 16)) for name, one in data.items()},
        "first in the page": {pair[side]: float(side == "a") for pair in place.values() for side in ("a", "b")},
        "place in the folder": {name: float(number) for number, name in enumerate(sorted(files))},
        "inode": {name: float(path.stat().st_ino) for name, path in files.items()},
    }
    # Of 40 fair coins 32 or more fall alike in one of 5,000 cases.
    assert {clue: rate for clue, values in clues.items() if (rate := told_apart(values, ballot)) >= 0.8} == {}
    for name in ("size", "time"):
        assert told_apart(clues[name], ballot) == 0.5, f"both of a pair have one {name}"
    assert len({hashlib.sha256(one).digest() for one in data.values()}) == len(data), "no file is there twice"


@pytest.fixture(scope="module")
def made_of_three(tmp_path_factory) -> tuple[Path, Path]:
    return make_voted(tmp_path_factory.mktemp("three"), prompts=40, samples=1, variants=("base", "dpo", "spo"))


def page_units(run: Path, page: Path, kind: str) -> list[list[KeyPair]]:
    """Of each unit of the page its pairs by the key, in the page's order."""
    known = {pair.id: pair for pair in newest_ballot(run).pairs}
    units = [[known[pair["id"]] for pair in unit] for part in page_data(page)["rounds"] for unit in part]
    return [unit for unit in units if unit[0].kind == kind]


def commonest(things: list[str]) -> float:
    return max(Counter(things).values()) / len(things)


def test_with_three_variants_no_place_in_a_unit_and_no_count_tells_one(made_of_three):
    units = page_units(*made_of_three, "pair")
    assert {len(unit) for unit in units} == {3}
    places = [[unit[place] for unit in units] for place in range(3)]
    clues = {
        **{
            f"pair at {place}": commonest(["".join(sorted((pair.a.variant, pair.b.variant))) for pair in pairs])
            for place, pairs in enumerate(places)
        },
        **{
            f"picture {side} at {place}": commonest([getattr(pair, side).variant for pair in pairs])
            for place, pairs in enumerate(places)
            for side in ("a", "b")
        },
    }
    # Of 40 draws from three 26 or more fall alike in one of 10,000 cases.
    assert {clue: rate for clue, rate in clues.items() if rate >= 0.65} == {}
    for unit in (*units, *page_units(*made_of_three, "repeat")):
        times = Counter(side.sha256 for pair in unit for side in (pair.a, pair.b))
        assert list(times.values()) == [2, 2, 2], "each picture is in as many pairs as the others"
        assert len({pair.id for pair in unit} | {side.file for pair in unit for side in (pair.a, pair.b)}) == 9


def test_a_repeat_does_not_keep_the_order_of_its_unit(made_of_three):
    firsts = {pair.prompt_id: unit for unit in page_units(*made_of_three, "pair") for pair in unit}

    def order(unit: list[KeyPair]) -> list[set[str]]:
        return [{pair.a.variant, pair.b.variant} for pair in unit]

    repeats = page_units(*made_of_three, "repeat")
    assert any(order(unit) != order(firsts[unit[0].prompt_id]) for unit in repeats)


def test_names_of_a_page_are_no_plain_output_of_its_generator(made):
    """Of a Mersenne twister 2,496 bytes in a row give all others, with the sides that were drawn before."""
    ids = {pair.id for pair in newest_ballot(made[0]).pairs}
    ids |= {side.file[:16] for pair in newest_ballot(made[0]).pairs for side in (pair.a, pair.b)}
    rng = random.Random(hashlib.sha256(f"{SEED}:{load_run(made[0]).info.id}:0".encode()).digest())
    stream = rng.randbytes(200_000).hex()
    assert [one for one in ids if one in stream] == []


def test_pairs_that_hold_one_variant_more_often_are_named(tmp_path):
    run = write_run(make_run("run", prompts=2, samples=1, variants=("base", "a", "b")), tmp_path / "run")
    with RunFolder.reopen(run) as folder:
        uneven = make_page(folder, tmp_path / "page")
        even = make_page(folder, tmp_path / "even", pairs=[("a", "base"), ("b", "base"), ("b", "a")])
    assert "base is in 2 and" in uneven.notes[0]
    assert even.notes == ()


def test_a_clue_would_be_found(made):
    ballot = newest_ballot(made[0])
    leaking = {side.file: float(side.variant == "spo") for pair in ballot.pairs for side in (pair.a, pair.b)}
    assert told_apart(leaking, ballot) == 1


def test_pictures_are_encoded_anew_without_metadata_and_in_one_way(tmp_path):
    run = write_run(make_run("run", prompts=3, samples=1, variants=("base", "spo")), tmp_path / "run")
    page = tmp_path / "page"
    with RunFolder.reopen(run) as folder:
        make_page(folder, page)
    for path in (page / PICTURES).iterdir():
        data = path.read_bytes()
        assert data[:4] == b"RIFF"
        assert data[8:16] == b"WEBPVP8 ", "a plain lossy WebP has no place for metadata"
        assert not data[8 + int.from_bytes(data[4:8], "little") :].strip(b"\0")
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (64, 64)
            assert not image.getexif()
            assert "icc_profile" not in image.info
    assert QUALITY == 90


def test_pictures_look_as_the_images_do(made):
    run, page = made
    renders = {one.sha256: one for one in load_run(run).renders}
    pair = next(pair for pair in newest_ballot(run).pairs if pair.kind == "pair")
    for side in (pair.a, pair.b):
        shown = np.asarray(Image.open(page / PICTURES / side.file).convert("RGB")).astype(float)
        drawn = np.asarray(Image.open(run / renders[side.sha256].image).convert("RGB")).astype(float)
        assert np.abs(shown - drawn).mean() < 6


def test_a_broken_copy_is_far_from_its_picture():
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.radial_gradient("L").convert("RGB"))
    assert np.abs(broken_copy(pixels, rng).astype(float) - pixels).mean() > 40
    assert broken_copy(pixels[:4, :4], rng).shape == (4, 4, 3)


def test_pictures_of_other_sizes_get_one_frame():
    small, large = Image.new("RGB", (200, 300), "red"), Image.new("RGB", (400, 400), "blue")
    first, second = of_one_size(small, large, 1000)
    assert first.size == second.size == (200, 300)
    assert second.getpixel((100, 5)) == (128, 128, 128)
    assert second.getpixel((100, 150)) == (0, 0, 255)
    assert of_one_size(large, large, 100)[0].size == (100, 100)


def test_the_limit_is_kept_by_smaller_pictures(tmp_path, monkeypatch):
    run = write_run(make_run("run", prompts=2, samples=1, variants=("base", "spo")), tmp_path / "run")
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        "bench.votes.make._rgb", lambda *_: Image.fromarray(noise.integers(0, 255, (400, 300, 3), np.uint8))
    )
    with RunFolder.reopen(run) as folder:
        made = make_page(folder, tmp_path / "large", limit_mb=100)
        less = make_page(folder, tmp_path / "small", limit_mb=1)
    assert made.ballot.longest_side_px == 400
    assert 256 <= less.ballot.longest_side_px < 400
    assert sum(path.stat().st_size for path in (tmp_path / "small" / PICTURES).iterdir()) <= 2**20


def test_a_limit_that_cannot_be_kept_is_refused_with_a_way_out(tmp_path, monkeypatch):
    run = write_run(make_run("run", prompts=12, samples=1, variants=("base", "spo")), tmp_path / "run")
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        "bench.votes.make._rgb", lambda *_: Image.fromarray(noise.integers(0, 255, (400, 300, 3), np.uint8))
    )
    with RunFolder.reopen(run) as folder, pytest.raises(UsageError, match="even at 256 px") as refused:
        make_page(folder, tmp_path / "page", limit_mb=1)
    assert "--limit-mb" in refused.value.hint
    assert not (tmp_path / "page").exists()


def test_each_page_has_its_own_ids_and_the_key_keeps_all(tmp_path):
    run, page = make_voted(tmp_path, prompts=3)
    with RunFolder.reopen(run) as folder:
        again = make_page(folder, tmp_path / "again", seed=SEED)
    assert again.ballot.id != page_data(page)["ballot"]
    assert len(json.loads((run / KEY).read_text())["ballots"]) == 2


def test_an_image_that_is_gone_is_named(tmp_path):
    run = write_run(make_run("run", prompts=4, samples=1, variants=("base", "spo")), tmp_path / "run")
    (run / "images/spo/case-002-0.png").unlink()
    with RunFolder.reopen(run) as folder:
        made = make_page(folder, tmp_path / "page")
    assert made.images == 3
    assert "images/spo/case-002-0.png" in made.notes[0]
    assert made.notes[1].startswith("1 of 4 images")


def test_what_cannot_be_voted_on_is_refused(tmp_path):
    run = write_run(make_run("run", prompts=2, samples=1, variants=("base", "spo")), tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with RunFolder.reopen(run) as folder:
        with pytest.raises(UsageError, match="holds something"):
            make_page(folder, tmp_path / "full")
        with pytest.raises(UsageError, match="holds something"):
            make_page(folder, run)
        with pytest.raises(UsageError, match="did you mean 'spo'"):
            make_page(folder, tmp_path / "page", pairs=[("spoo", "base")])
        with pytest.raises(UsageError, match="shown beside itself"):
            make_page(folder, tmp_path / "page", pairs=[("spo", "spo")])
    alone = write_run(make_run("run", prompts=2, samples=1, variants=("base",)), tmp_path / "alone")
    with RunFolder.reopen(alone) as folder, pytest.raises(UsageError, match="one variant"):
        make_page(folder, tmp_path / "page")
    bare = make_run("run", prompts=2, samples=1, variants=("base", "spo"))
    bare_folder = write_run(replace(bare, renders=(), scores=()), tmp_path / "bare")
    with RunFolder.reopen(bare_folder) as folder, pytest.raises(InvalidError, match="no image has a picture on both"):
        make_page(folder, tmp_path / "page")


def test_prompts_are_inert_in_the_page(tmp_path):
    run = make_run("run", prompts=1, samples=1, variants=("base", "spo"))
    prompt = replace(run.info.suite.prompts[0], text="</script><script>alert(1)</script>")
    run = replace(run, info=replace(run.info, suite=replace(run.info.suite, prompts=(prompt,))))
    folder = write_run(run, tmp_path / "run")
    with RunFolder.reopen(folder) as opened:
        make_page(opened, tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "alert(1)</script>" not in text
    assert page_pairs(tmp_path / "page")[0]["p"] == prompt.text
