"""Pickled weights: never read here, since reading one may run any code; told with the command that converts them."""

from __future__ import annotations

import shlex
from pathlib import Path

from bench.errors import WeightsError

PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
"""Suffixes of files that can run any code when they are read."""
CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
    "save_file({k: v.contiguous().clone() for k, v in d.items() if isinstance(v, torch.Tensor)}, sys.argv[2])"
)
"""Reads a pickle without running what is in it (``weights_only``), and writes its tensors as safetensors."""


def refuse_pickle(name: str) -> None:
    """Raises WeightsError for a name that ends as pickled weights do, with the command that converts them."""
    if Path(name).suffix.lower() in PICKLES:
        raise WeightsError(
            f"{name}: is a pickle, which may run any code when it is read; only .safetensors files are read.",
            convert_hint(Path(name)),
        )


def convert_hint(path: Path) -> str:
    """The command that writes a pickle's tensors as safetensors beside it, under the name that is looked for."""
    stem = "model" if path.stem == "pytorch_model" else path.stem  # transformers' names
    return f'convert it: python -c "{CONVERT}" {shlex.join([str(path), str(path.with_name(stem + ".safetensors"))])}'
