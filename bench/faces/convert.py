"""Makes ``weights/mtcnn.safetensors`` of facenet-pytorch's wheel: ``python -m bench.faces.convert WHEEL``.

    pip download facenet-pytorch==2.6.0 --no-deps

The tensors stay as they are, but for two things: the first dense layer of two networks reads its crop column by column
and channels last there, and row by row and channels first here; and the layers that place landmarks are left out.
"""

from __future__ import annotations

import io
import sys
import zipfile

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.documents import sha256_of
from bench.errors import WeightsError
from bench.faces.detector import WEIGHTS, load_cascade

PICKLES = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
"""sha256 of each ``facenet_pytorch/data/NAME.pt``."""
LEFT_OUT = "landmarks"
NAMES = {
    "pnet": {"conv4_1": "face", "conv4_2": "edges"},
    "rnet": {"dense4": "dense.0", "prelu4": "dense.1", "dense5_1": "face", "dense5_2": "edges"},
    "onet": {"dense5": "dense.0", "prelu5": "dense.1", "dense6_1": "face", "dense6_2": "edges", "dense6_3": LEFT_OUT},
}
"""Layers that are not called ``conv1``, ``prelu1``, ... there, by their names here."""
NETWORKS = {"pnet": "proposal", "rnet": "refining", "onet": "output"}


def main(wheel: str) -> None:
    """Write the weight file.

    Raises:
        WeightsError: the wheel holds other weights, or what was made of them is not the file that is shipped.
    """
    state: dict[str, Tensor] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, network in NETWORKS.items():
            data = archive.read(f"facenet_pytorch/data/{name}.pt")
            if sha256_of(data) != PICKLES[name]:
                raise WeightsError(f"{wheel}: {name}.pt has sha256 {sha256_of(data)}, not {PICKLES[name]}.")
            own = torch.load(io.BytesIO(data), weights_only=True)
            state |= {f"{network}.{key}": tensor for key, tensor in renamed(name, own).items()}
    save_file(state, WEIGHTS)
    load_cascade()


def renamed(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one network by their names here."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        layer, kind = key.split(".")
        own = NAMES[name].get(layer) or f"body.{int(layer[-1]) - 1}.{int(layer.startswith('prelu'))}"
        if own == LEFT_OUT:
            continue
        if own == "dense.0" and kind == "weight":
            tensor = tensor.reshape(len(tensor), 3, 3, -1).permute(0, 3, 2, 1).flatten(1)
        found[f"{own}.{kind}"] = tensor.contiguous()
    return found


if __name__ == "__main__":
    main(sys.argv[1])
