"""Run -> a voting page: which pairs are shown, the controls among them, the folder, and the key that stays here."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from bench.comparability import check_names
from bench.compare import variant_pairs
from bench.documents import utc_now
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, listed, plural
from bench.records import Ballot, KeyPair, KeyPicture, PairKind, Progress, Render, Run
from bench.score.images import ImageFileError, image_bytes, open_picture
from bench.store import RunFolder
from bench.store.journal import make_folder, write_whole
from bench.votes.key import KEY, ballots_of, key_text
from bench.votes.page import PageUnit, page_html
from bench.votes.pictures import Encoded, PairOfPictures, encode_all

LIMIT_MB = 100
"""Of a page's pictures, unless it is said otherwise."""
PICTURES, PAGE = "pictures", "index.html"
EACH_CONTROL = 12
"""One control of each kind to so many prompts' samples, at least ``LEAST_CONTROLS``."""
LEAST_CONTROLS = 2


class MadePage(NamedTuple):
    """A voting page that was written."""

    folder: Path
    ballot: Ballot
    size_bytes: int
    images: int
    """Prompts' samples that are voted on."""
    notes: tuple[str, ...]


class _Side(NamedTuple):
    render: Render
    broken: bool = False


class _Pair(NamedTuple):
    id: str
    kind: PairKind
    prompt_id: str
    sample: int
    a: _Side
    b: _Side
    side: str
    """Of what the page draws which one is shown left: a repeat has that of its pair, with a and b exchanged."""


_Unit = tuple[_Pair, ...]
"""The pairs of one prompt's sample: a voter is shown one of them, and the others once all units were shown."""


def make_page(
    folder: RunFolder,
    place: Path,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    limit_mb: int = LIMIT_MB,
    seed: int | None = None,
    progress: Progress | None = None,
) -> MadePage:
    """Write a folder that is a voting page, and its key into the run folder.

    The key is written first: a page without one is worth nothing.

    Args:
        folder: the run, locked.
        place: the page's folder, made here; it may be there if it is empty.
        pairs: (candidate, reference) variants; None for those that ``compare`` shows.
        limit_mb: MiB that the pictures may take.
        seed: of ids, sides and order; None draws one. Whoever knows it can tell variants apart.
        progress: told ``("pictures", pairs encoded, pairs)``.

    Raises:
        UsageError: an unknown variant, a folder that holds something, pictures that cannot keep the limit.
        InvalidError: no image on both sides of a pair.
        MachineError: the disk is full, read-only or otherwise unwilling.
    """
    run = folder.run()
    _refuse_place(folder.path, place)
    before = ballots_of(folder.path, run.info.id)
    chosen = _chosen_pairs(run, pairs)
    drawn = secrets.randbits(64) if seed is None else seed
    rng = random.Random(hashlib.sha256(f"{drawn}:{run.info.id}:{len(before)}".encode()).digest())
    units, notes = _units(run, chosen, rng)
    notes += _uneven(chosen)
    if not units:
        raise InvalidError(
            f"{run.path}: no image has a picture on both sides of {listed(f'{one}:{other}' for one, other in chosen)}.",
            f"hotart-bench render {argument(run.path)}",
        )
    rounds = _rounds(units, rng)
    shown = [pair for one in rounds for unit in one for pair in unit]
    encoded = encode_all(
        [_pictures(folder.path, pair, rng) for pair in shown],
        limit_mb * 2**20,
        lambda done: None if progress is None else progress("pictures", done, len(shown)),
    )
    names = {pair.id: (f"{_new_id(rng)}.webp", f"{_new_id(rng)}.webp") for pair in shown}
    ballot = Ballot(
        id=_new_id(rng),
        time=utc_now(),
        seed=drawn,
        longest_side_px=encoded.longest_side_px,
        pairs=tuple(_key_pair(pair, names[pair.id]) for pair in shown),
    )
    folder.write_text(KEY, key_text(run.info.id, (*before, ballot)))
    texts = {prompt.id: prompt.text for prompt in run.info.suite.prompts}
    page = page_html(ballot.id, [[_page_unit(unit, names, texts) for unit in one] for one in rounds])
    _write(place, page, [names[pair.id] for pair in shown], encoded)
    return MadePage(place, ballot, encoded.size_bytes + len(page), len(units), tuple(notes))


def _refuse_place(run: Path, place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place}: is there and holds something; a voting page gets a folder of its own.")
    if place.resolve() == run.resolve():
        raise UsageError(f"{place}: is the run folder, which holds the key; a page needs a folder of its own.")


def _chosen_pairs(run: Run, pairs: Sequence[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    known = [variant.name for variant in run.info.suite.variants]
    if pairs is None and len(known) < 2:
        raise UsageError(f"{run.path}: has one variant, so there is nothing to choose between.")
    for pair in pairs or ():
        check_names(pair, known, "The run has no variant")
        if pair[0] == pair[1]:
            raise UsageError(f"--pairs: {pair[0]!r} is shown beside itself; name two of {listed(known)}.")
    return tuple(pairs) if pairs is not None else variant_pairs(run.info.suite)


def _new_id(rng: random.Random) -> str:
    """16 hex digits, hashed: plain random numbers of a page would give the generator's state, and so all sides."""
    return hashlib.sha256(rng.randbytes(32)).hexdigest()[:16]


def _units(run: Run, pairs: Sequence[tuple[str, str]], rng: random.Random) -> tuple[list[_Unit], list[str]]:
    """The pairs of each prompt's sample whose pictures are there, and notes on those that are not."""
    renders = {(one.variant, one.prompt_id, one.sample): one for one in run.renders if one.image is not None}
    lost = [one for one in renders.values() if not _is_there(Path(run.path), one)]
    gone = {(one.variant, one.prompt_id, one.sample) for one in lost}
    units = []
    for prompt in run.info.suite.prompts:
        for sample in range(run.info.suite.samples):
            found = {
                name: renders[key]
                for name in dict.fromkeys(name for pair in pairs for name in pair)
                if (key := (name, prompt.id, sample)) in renders and key not in gone
            }
            both = [(found[one], found[other]) for one, other in pairs if one in found and other in found]
            if both:
                mixed = rng.sample(both, len(both))  # or a pair's place in its unit would tell its variants
                units.append(tuple(_pair("pair", _Side(one), _Side(other), rng) for one, other in mixed))
    planned = len(run.info.suite.prompts) * run.info.suite.samples
    notes = []
    if lost:
        names = listed((str(one.image) for one in lost), 3)
        notes.append(f"Left out: {plural(len(lost), 'image')} whose file is gone or changed ({names}).")
    if len(units) < planned:
        notes.append(f"{planned - len(units):,} of {planned:,} images of the plan have no pair of pictures.")
    return units, notes


def _uneven(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A note where how often a picture is shown tells something of its variant."""
    times = Counter(name for pair in pairs for name in pair)
    if len(set(times.values())) < 2:
        return []
    (often, most), (seldom, least) = times.most_common()[0], times.most_common()[-1]
    return [
        f"Of {len(pairs)} pairs of an image {often} is in {most} and {seldom} in {least}: who sees them all can tell "
        "these two by how often a picture comes. Pairs with each variant equally often hide that (--pairs A:B,C:B,C:A)."
    ]


def _is_there(folder: Path, render: Render) -> bool:
    try:
        image_bytes(folder, render)
    except (OSError, ImageFileError):
        return False
    return True


def _pair(kind: PairKind, first: _Side, second: _Side, rng: random.Random, side: str = "") -> _Pair:
    """A pair with its pictures in random order, unless ``side`` says that it is a repeat."""
    if not side and rng.random() < 0.5:
        first, second = second, first
    render = first.render
    return _Pair(_new_id(rng), kind, render.prompt_id, render.sample, first, second, side or _new_id(rng))


def _rounds(units: Sequence[_Unit], rng: random.Random) -> list[list[_Unit]]:
    """The units in random order, in parts with one control of each kind, so that whoever stops early met some.

    A repeat is not in the part of what it repeats.
    """
    many = min(len(units), max(LEAST_CONTROLS, round(len(units) / EACH_CONTROL)))
    order = rng.sample(list(units), len(units))
    parts = [order[number::many] for number in range(many)]
    rounds = []
    for number, part in enumerate(parts):
        other = rng.choice(parts[(number + max(1, many // 2)) % many])
        repeat = tuple(_pair("repeat", pair.b, pair.a, rng, pair.side) for pair in rng.sample(other, len(other)))
        same, whole = (rng.choice(rng.choice(units)) for _ in range(2))
        side = rng.choice((same.a, same.b))
        intact = rng.choice((whole.a, whole.b))
        controls = [
            repeat,
            (_pair("same", side, side, rng),),
            (_pair("broken", intact, _Side(intact.render, broken=True), rng),),
        ]
        rounds.append(rng.sample([*part, *controls], len(part) + len(controls)))
    return rounds


def _pictures(folder: Path, pair: _Pair, rng: random.Random) -> PairOfPictures:
    broken = 0 if pair.a.broken else 1 if pair.b.broken else None
    return PairOfPictures(partial(_open, folder, pair), broken, rng.getrandbits(64))


def _open(folder: Path, pair: _Pair) -> tuple[Image.Image, Image.Image]:
    try:
        return _rgb(folder, pair.a.render), _rgb(folder, pair.b.render)
    except (OSError, ImageFileError) as error:
        raise InvalidError(f"{folder}: a picture cannot be shown: {error}.") from error


def _rgb(folder: Path, render: Render) -> Image.Image:
    return open_picture(image_bytes(folder, render)).image.convert("RGB")


def _key_pair(pair: _Pair, names: tuple[str, str]) -> KeyPair:
    a, b = (
        KeyPicture(file=name, variant=side.render.variant, sha256=str(side.render.sha256))
        for name, side in zip(names, (pair.a, pair.b), strict=True)
    )
    return KeyPair(
        id=pair.id,
        kind=pair.kind,
        prompt_id=pair.prompt_id,
        sample=pair.sample,
        a=a,
        b=b,
        broken="a" if pair.a.broken else "b" if pair.b.broken else None,
    )


def _page_unit(unit: _Unit, names: dict[str, tuple[str, str]], texts: dict[str, str]) -> PageUnit:
    return [
        {"id": pair.id, "a": names[pair.id][0], "b": names[pair.id][1], "s": pair.side, "p": texts[pair.prompt_id]}
        for pair in unit
    ]


def _write(place: Path, page: str, names: Sequence[tuple[str, str]], encoded: Encoded) -> None:
    """The pictures in the order of their names, all files with one time."""
    make_folder(place / PICTURES)
    files = {
        name: data
        for pair, both in zip(names, encoded.files, strict=True)
        for name, data in zip(pair, both, strict=True)
    }
    for name in sorted(files):
        write_whole(place / PICTURES / name, files[name])
    write_whole(place / PAGE, page.encode())
    for path in (*(place / PICTURES / name for name in files), place / PAGE, place / PICTURES, place):
        os.utime(path, (0, 0))
