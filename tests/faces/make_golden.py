"""Writes ``golden.json``: what facenet-pytorch finds. ``PYTHONPATH=tests python tests/faces/make_golden.py FOLDER``

FOLDER holds facenet-pytorch 2.6.0: ``pip install --no-deps --target FOLDER facenet-pytorch==2.6.0``.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from face_pictures import PICTURES
from PIL import Image

from bench.faces.boxes import searched_size

CROPS = {"proposal": ("pnet", 12), "refining": ("rnet", 24), "output": ("onet", 48)}


def crops(side: int) -> torch.Tensor:
    """Four crops in [-1, 1], of the photograph's face and of noise."""
    picture = PICTURES["photo"]().crop((50, 50, 170, 170)).resize((side, side), Image.Resampling.BOX)
    face = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    other = torch.from_numpy(np.random.default_rng(side).integers(0, 256, (2, 3, side, side))).float()
    return (torch.cat([face[None], face.flip(2)[None], other]) - 127.5) / 128.0


def main(folder: str) -> None:
    package = types.ModuleType("facenet_pytorch")  # its own __init__ imports what is not needed here
    package.__path__ = [str(Path(folder) / "facenet_pytorch")]
    sys.modules["facenet_pytorch"] = package
    mtcnn = importlib.import_module("facenet_pytorch.models.mtcnn").MTCNN(
        keep_all=True, min_face_size=30, thresholds=[0.6, 0.7, 0.9]
    )
    golden: dict[str, object] = {}
    with torch.no_grad():
        for name, (network, side) in CROPS.items():
            edges, *_, probability = getattr(mtcnn, network)(crops(side))
            golden[name] = {
                "probability": probability[:, 1].flatten().tolist(),
                "edges": edges.reshape(4, 4).tolist(),
            }
    boxes = {}
    for name, make in PICTURES.items():
        picture = make().convert("RGB")
        found, probability = mtcnn.detect(picture.resize(searched_size(*picture.size), Image.Resampling.BILINEAR))
        rows = [] if found is None else np.c_[found.astype(float), probability.astype(float)].tolist()
        boxes[name] = sorted(rows, key=lambda row: -row[4])
    text = json.dumps({"boxes": boxes} | golden, indent=1)
    Path(__file__).with_name("golden.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
