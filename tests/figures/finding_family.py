"""The finding on variants of the embedded family, beside what the held-out instrument reads of the same pictures.

``python -m tests.figures.finding_family`` prints the table of docs/finding.md, ``--write`` puts it there; the folder of
``--work`` keeps the pictures, so that it goes on where it stopped. Prompts are the 95 contents that no stage of the
training has seen; the rules of the finding were chosen by simulation alone. Pictures are drawn by the pipeline, two of
each prompt, and scored as external images by the product. The finding never reads the instrument.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from bench.compare.finding import find_in_run
from bench.formatting import joined
from bench.machine import machine_facts
from bench.metrics.registry import training_of_metrics
from bench.mini import evidence
from bench.records import ExternalImages, Finding, Run, RunOptions, Suite, TrainedOn, Variant
from bench.run import run_stage
from bench.score.external_images import import_images
from bench.store import load_run
from bench.suite.images_table import Pair
from bench.trained_on import find_training

PAGE = Path(__file__).parents[2] / "docs" / "finding.md"
BEGIN, END = "<!-- family begins -->", "<!-- family ends -->"
SEEDS = 2
SATURATION = 1.5
"""What the saturation of base's pictures is multiplied by."""
LORAS = {
    "spo": ("spo", 1.0),
    "dpo": ("dpo", 1.0),
    "spo-seed1": ("spo-seed1", 1.0),
    "dpo-seed1": ("dpo-seed1", 1.0),
    "spo-weight-2": ("spo", 2.0),
}
TITLES = {
    "spo": "SPO",
    "dpo": "DPO",
    "spo-seed1": "SPO, other training seed",
    "dpo-seed1": "DPO, other training seed",
    "spo-weight-2": "SPO at weight 2",
    "other-seeds": "base, other seeds (A/A)",
    "saturated": "base, saturated",
}
METRICS = (
    *("mini-preference", "mini-aesthetic", "mini-clip", "mini-preference-2", "mini-clip-2"),
    *("saturation", "contrast", "sharpness", "clipped"),
)
Pictures = NDArray[np.uint8]
"""(prompts * SEEDS, 64, 64, 3), prompt-major."""


def pictures(work: Path) -> dict[str, Pictures]:
    """The pictures of base and of every variant; each LoRA's are kept in ``work``."""
    chosen = evidence.prompts()
    base = kept(work / "base.npy", "base", 1.0, 2 * SEEDS).reshape(len(chosen), 2 * SEEDS, 64, 64, 3)
    found = {"base": base[:, :SEEDS].reshape(-1, 64, 64, 3)}
    found |= {name: kept(work / f"{name}.npy", lora, weight, SEEDS) for name, (lora, weight) in LORAS.items()}
    found["other-seeds"] = base[:, SEEDS:].reshape(-1, 64, 64, 3)
    found["saturated"] = np.stack([saturated(picture) for picture in found["base"]])
    return found


def kept(path: Path, lora: str, weight: float, seeds: int) -> Pictures:
    """Pictures of a LoRA, rendered unless ``path`` holds them."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sys.stderr.write(f"rendering {path.stem}\n")
        np.save(path, evidence.render(evidence.loras_of(lora, weight), evidence.prompts(), seeds, evidence.SETTINGS))
    loaded: Pictures = np.load(path)
    return loaded


def saturated(picture: Pictures) -> Pictures:
    """One picture with its colours raised, by Pillow."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(picture)).enhance(SATURATION))


def scored(found: dict[str, Pictures], work: Path) -> Run:
    """A run folder of the pictures as external images with the scores of ``METRICS``, and each one's training."""
    pairs = []
    texts = [text for _, _, text in evidence.prompts()]
    for name, images in found.items():
        for number, image in enumerate(images):
            prompt, sample = divmod(number, SEEDS)
            path = work / "images" / name / f"{prompt:03d}-{sample}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            pairs.append(Pair(path, texts[prompt], f"held-out-{prompt:03d}", name, path.name))
    source = ExternalImages(images=str(work / "images"), prompts="")
    folder = work / "run"
    suite = import_images(pairs, source, folder, metrics=METRICS, limits=(), machine=machine_facts("cpu"), fresh=True)
    run_stage("score", suite, folder, RunOptions(device="cpu"))
    run = load_run(folder)
    return msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, trained_on=training(run.info.suite)))


def training(suite: Suite) -> dict[str, TrainedOn]:
    """What each variant was trained on: base and its changed pictures on nothing, LoRAs on what the package says."""
    found = {}
    for variant in suite.variants:
        lora, weight = LORAS.get(variant.name, ("base", 1.0))
        made = Variant(name=variant.name, checkpoint="mini", loras=evidence.loras_of(lora, weight))
        found[variant.name] = find_training(made, None, training_of_metrics())
    return found


def table(run: Run, found: dict[str, Pictures]) -> list[tuple[str, ...]]:
    """A row a variant: the finding's word, its gains and prices, and the instrument's reading."""
    chosen = evidence.prompts()
    truth = {name: evidence.read(images, chosen, SEEDS) for name, images in found.items()}
    rows = [("variant", "finding", "gains", "prices", "held-out: craft", "held-out: attributes")]
    for one in find_in_run(run, [(name, "base") for name in TITLES]):
        sys.stderr.write("\n".join(one.sentences) + "\n\n")
        deltas = (
            evidence.with_interval(truth[one.candidate][field] - truth["base"][field])
            for field in ("craft", "attributes")
        )
        rows.append((TITLES[one.candidate], f"**{one.word}**", told(one, "gain"), told(one, "price"), *deltas))
    return rows


def told(one: Finding, reads: str) -> str:
    """The metrics of a reading, gains with their training overlap."""
    names = [
        f"{metric.metric} ({metric.training_overlap})" if reads == "gain" else metric.metric
        for metric in one.metrics
        if metric.reads == reads
    ]
    return joined(names) or "none"


def main(arguments: list[str]) -> None:
    """Print the table, or write it into the page between its two marks."""
    parser = argparse.ArgumentParser(prog="python -m tests.figures.finding_family")
    parser.add_argument("--write", action="store_true", help="write the table into docs/finding.md")
    parser.add_argument("--work", type=Path, default=Path("build/finding"), help="where pictures are kept")
    chosen = parser.parse_args(arguments)
    found = pictures(chosen.work)
    head, *rows = table(scored(found, chosen.work), found)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
    shown = "\n".join(lines)
    sys.stdout.write(f"{shown}\n")
    if chosen.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
        PAGE.write_text(f"{before}\n\n{shown}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
