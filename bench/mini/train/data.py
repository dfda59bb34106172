"""Pools of drawn scenes: made once from a seed, kept in the work folder, read by memory map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.mini import draw, world

CHUNK = 512
"""Scenes of one kind that are drawn at once."""

SEEDS = {"train": 11, "instrument": 22, "second": 44}
"""Pool -> seed. Pools of different names share no scene; ``instrument`` feeds the held-out estimators alone, and
``second`` the metrics mini-clip-2 and mini-preference-2."""


@dataclass(frozen=True)
class Pool:
    """n scenes: ``images`` uint8 (n, 3, 64, 64), ``craft`` float32 (n, 6), ``kind`` 0 landscape or 1 portrait,
    ``content`` int64 (n, 6), padded with -1.
    """

    images: NDArray[np.uint8]
    craft: NDArray[np.float32]
    kind: NDArray[np.int64]
    content: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def beauty(self) -> NDArray[np.float32]:
        """Ground truth of beauty, (n,)."""
        return self.craft @ np.asarray(list(world.CRAFT_WEIGHTS.values()), np.float32)

    def caption(self, index: int, template: int) -> str:
        """Caption of one scene."""
        kind = KIND_NAMES[self.kind[index]]
        return world.caption(kind, self.key(index), template)

    def key(self, index: int) -> world.Content:
        """The content of one scene as a tuple."""
        return tuple(int(value) for value in self.content[index] if value >= 0)


KIND_NAMES = tuple(world.KINDS)


def pool(work: Path, name: str, n: int) -> Pool:
    """The pool ``name`` of n scenes (n a multiple of 2 * CHUNK), drawn on first use."""
    path = work / f"pool-{name}-{n}"
    if not path.exists():
        partial = path.with_suffix(".partial")
        _draw_pool(partial, name, n)
        partial.rename(path)
    return Pool(
        images=np.load(path / "images.npy", mmap_mode="r"),
        craft=np.load(path / "craft.npy"),
        kind=np.load(path / "kind.npy"),
        content=np.load(path / "content.npy"),
    )


def _draw_pool(path: Path, name: str, n: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shape = (n, 3, world.SIZE_PX, world.SIZE_PX)
    images = np.lib.format.open_memmap(path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    craft, kinds, contents = [], [], []
    for chunk in range(n // CHUNK):
        rng = np.random.default_rng([SEEDS[name], chunk])
        kind = KIND_NAMES[chunk % 2]
        scenes = world.sample(kind, CHUNK, rng, held_out=False)
        with torch.device("cpu"):
            images[chunk * CHUNK : (chunk + 1) * CHUNK] = draw.draw(scenes)
        craft.append(scenes.craft)
        kinds.append(np.full(CHUNK, chunk % 2, np.int64))
        padding = ((0, 0), (0, 6 - scenes.content.shape[1]))
        contents.append(np.pad(scenes.content, padding, constant_values=-1))
    images.flush()
    np.save(path / "craft.npy", np.concatenate(craft))
    np.save(path / "kind.npy", np.concatenate(kinds))
    np.save(path / "content.npy", np.concatenate(contents))
