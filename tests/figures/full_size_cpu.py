"""Memory of rendering at SDXL's size on a CPU: the peak of a process, and what ``doctor`` said of it before.

    python -m tests.figures.full_size_cpu FOLDER

is the rendering alone, and prints its peak in bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .commands import GIB, installed_command
from .figure import Figure, figure_of
from .peak import peak_bytes

RANK = 64
CROSS_ATTENTION = r"attn2\.to_(q|k|v|out\.0)"
PEAK_GIB, LEAST, MOST = 10.0, 0.95, 1.10
SUITE = """\
schema = 2
name = "full-size"
prompts = ["prompts.jsonl"]

[settings]
width = 256
height = 256
steps = 2
guidance_scale = 5.0
sampler = "euler"
dtype = "bfloat16"
batch = 1

[variants.base]
checkpoint = "random:{shape}"

[variants.merged]
checkpoint = "random:{shape}"
loras = [{{ path = "lora.safetensors", weight = 0.8 }}]
"""
PROMPT = {"id": "p", "text": "a lighthouse in fog"}


def figure_full_size(shape: str = "sdxl") -> tuple[Figure, ...]:
    """A base and a LoRA of rank 64 on every cross-attention are drawn at 256x256, bfloat16, 2 steps, in one process.

    The peak is of its resident memory, random weights of SDXL's shape. The estimate is that of ``doctor``; its two
    bounds are a figure each.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_suite(folder, shape)
        doctor = [installed_command(), "doctor", str(folder / "suite.toml"), "--device", "cpu", "--json"]
        estimated_bytes = json.loads(output_of(doctor))["memory"]["needed_bytes"]
        rendered_bytes = int(output_of([sys.executable, "-m", __spec__.name, place]).split()[-1])
    over = [estimated_bytes / rendered_bytes]
    return (
        figure_of("full_size_cpu_peak_gib", [rendered_bytes / GIB], "<=", PEAK_GIB),
        figure_of("full_size_cpu_estimate_over_peak", over, ">=", LEAST),
        figure_of("full_size_cpu_estimate_over_peak", over, "<=", MOST),
    )


def write_suite(folder: Path, shape: str) -> None:
    """The suite, its prompt and its LoRA."""
    from .merge_work import write_lora

    write_lora(folder / "lora.safetensors", shape, rank=RANK, layers=CROSS_ATTENTION)
    (folder / "suite.toml").write_text(SUITE.format(shape=shape), encoding="utf-8")
    (folder / "prompts.jsonl").write_text(json.dumps(PROMPT) + "\n", encoding="utf-8")


def output_of(command: list[str]) -> str:
    """What a command that succeeds prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(place: str) -> None:
    """Render the suite, and print the peak."""
    from bench.cli import run_command_line

    folder = Path(place)
    arguments = ["render", str(folder / "suite.toml"), "-o", str(folder / "run"), "--device", "cpu", "--quiet"]
    code = run_command_line(arguments)
    if code:
        raise SystemExit(code)
    sys.stdout.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
