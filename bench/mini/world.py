"""The mini world: what a scene is, its captions, and the ground truth of its beauty.

A scene is a landscape or a portrait. Its *content* (terrain, time of day, hair, backdrop, ...) stands
in the caption. Its *craft* does not: six qualities in [0, 1], uniform and independent, whose weighted
sum is the ground truth of beauty. Pictures are drawn by ``bench.mini.draw``.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE_PX = 64
"""Width and height of a picture."""

LANDSCAPE: dict[str, tuple[str, ...]] = {
    "terrain": ("mountains", "dunes", "sea", "forest"),
    "time": ("dawn", "noon", "sunset", "night"),
    "body": ("sun", "moon"),
    "weather": ("clear", "cloudy", "foggy"),
    "tent": ("red", "blue", "yellow", "white"),
}
PORTRAIT: dict[str, tuple[str, ...]] = {
    "hair": ("black", "brown", "blond", "red"),
    "length": ("short", "long"),
    "shirt": ("red", "blue", "green", "yellow"),
    "backdrop": ("gray", "teal", "ochre", "plum"),
    "light": ("left", "right"),
    "framing": ("close", "wide"),
}
KINDS: dict[str, dict[str, tuple[str, ...]]] = {"landscape": LANDSCAPE, "portrait": PORTRAIT}

CRAFT_WEIGHTS: dict[str, float] = {
    "composition": 0.20,
    "level": 0.15,
    "contrast": 0.20,
    "harmony": 0.15,
    "sharpness": 0.20,
    "noise": 0.10,
}
"""Quality -> weight in the ground truth of beauty; the weights sum to 1."""

CRAFT_WORDS: dict[str, tuple[str, str]] = {
    "composition": ("misplaced", "composed"),
    "level": ("tilted", "level"),
    "contrast": ("flat", "contrasty"),
    "harmony": ("tinted", "natural"),
    "sharpness": ("blurry", "sharp"),
    "noise": ("grainy", "clean"),
}
"""Quality -> (word when it is low, word when it is high); only mini-clip's captions use them."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "landscape": (
        "a {tent} tent by the {terrain} at {time}, {weather} sky with the {body}",
        "{weather} {time} over the {terrain}, the {body} above a {tent} tent",
        "photograph of the {terrain}, {time}, {weather}, {body} in the sky, {tent} tent",
    ),
    "portrait": (
        "a {framing} portrait of a person with {length} {hair} hair in a {shirt} shirt, {backdrop} backdrop, "
        "light from the {light}",
        "{framing} studio portrait, {length} {hair} hair, {shirt} shirt, {backdrop} wall, lit from the {light}",
        "photograph of a person, {framing}, {hair} {length} hair, {shirt} shirt, light {light}, {backdrop} behind",
    ),
}

Content = tuple[int, ...]
"""One index for each attribute of its kind, in the order of ``KINDS``."""


@dataclass(frozen=True)
class Scenes:
    """n scenes of one kind.

    ``content``: int64 (n, attributes); ``craft``: float32 (n, 6), qualities in [0, 1] in the order of
    ``CRAFT_WEIGHTS``; ``nuisance``: float32 (n, 24), uniform in [0, 1]: what neither caption nor craft says.
    """

    kind: str
    content: NDArray[np.int64]
    craft: NDArray[np.float32]
    nuisance: NDArray[np.float32]

    def beauty(self) -> NDArray[np.float32]:
        """Ground truth of beauty, (n,) float32 in [0, 1]: the weighted sum of the six qualities."""
        return self.craft @ np.asarray(list(CRAFT_WEIGHTS.values()), np.float32)


def combinations(kind: str) -> tuple[Content, ...]:
    """Every content that makes sense: no moon at noon, no sun at night (288 landscapes, 512 portraits)."""
    every = itertools.product(*(range(len(values)) for values in KINDS[kind].values()))
    return tuple(content for content in every if kind == "portrait" or _sky_is_possible(content))


def _sky_is_possible(content: Content) -> bool:
    time, body = LANDSCAPE["time"][content[1]], LANDSCAPE["body"][content[2]]
    return (time, body) not in {("noon", "moon"), ("night", "sun")}


def is_held_out(kind: str, content: Content) -> bool:
    """Whether no training stage may see this content: one in ten, by a hash of its words."""
    words = " ".join(values[index] for values, index in zip(KINDS[kind].values(), content, strict=True))
    return int.from_bytes(hashlib.sha256(f"{kind} {words}".encode()).digest()[:4], "big") % 10 == 0


def contents(kind: str, *, held_out: bool) -> tuple[Content, ...]:
    """The contents of a kind that training sees, or those that it never does."""
    return tuple(content for content in combinations(kind) if is_held_out(kind, content) is held_out)


def caption(kind: str, content: Content, template: int) -> str:
    """The caption of a content in one of the three templates of its kind."""
    attributes = KINDS[kind]
    words = {name: values[index] for (name, values), index in zip(attributes.items(), content, strict=True)}
    return TEMPLATES[kind][template].format(**words)


def craft_words(craft: NDArray[np.float32], which: tuple[int, ...]) -> str:
    """Words for some of a scene's qualities, such as ``sharp, tilted``: what a critic would add."""
    pairs = [list(CRAFT_WORDS.values())[index] for index in which]
    return ", ".join(pair[int(craft[index] > 0.5)] for pair, index in zip(pairs, which, strict=True))


def sample(
    kind: str,
    n: int,
    rng: np.random.Generator,
    *,
    held_out: bool = False,
    craft: NDArray[np.float32] | None = None,
) -> Scenes:
    """Draw n scenes: content uniform over the allowed combinations, craft uniform unless given (n, 6)."""
    table = np.asarray(contents(kind, held_out=held_out), np.int64)
    content = table[rng.integers(len(table), size=n)]
    qualities = rng.random((n, len(CRAFT_WEIGHTS)), np.float32) if craft is None else craft
    return Scenes(kind, content, qualities, rng.random((n, 24), np.float32))
