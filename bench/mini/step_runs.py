"""The runs behind ``bench.mini.step_evidence``: the embedded family on held-out prompts, steps scored, in windows.

A part of a setting is a run folder. What it lacks is drawn and scored by the stages of ``bench.run``, so that the same
call goes on where it was stopped.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from bench.comparability import check_environment
from bench.metrics import Inputs, metric, registry_of
from bench.mini import world
from bench.mini.evidence import SETTINGS as PIXELS
from bench.mini.evidence import loras_of, prompts
from bench.mini.networks import Instrument, load_instrument
from bench.records import (
    Lora,
    MetricFacts,
    Progress,
    Prompt,
    Run,
    RunOptions,
    StepPlan,
    StepScore,
    Suite,
    Variant,
)
from bench.run import run_stage
from bench.score import score
from bench.store import RunFolder, load_run, load_steps
from bench.suite import load_suite, protocol_digest
from bench.suite.attribution import attribution_suite
from bench.suite.sweep import UNTIMED

SAMPLES = 2
WINDOWS = 5
SWITCH = 0.2
"""Fraction of the steps after which the schedule goes over from DPO to SPO: 4 of 20."""
TRAINED, SCHEDULE, STEPS = ("dpo", "spo"), "dpo-then-spo", "steps"
METRICS = ("mini-preference", "mini-clip")
STEP_METRICS = ("mini-preference", "mini-step-aware")


class Setting(NamedTuple):
    """How images are drawn, with the LoRAs of which training seed, and which steps are scored."""

    name: str
    """How the names of its run folders begin."""
    guidance_scale: float
    eta: float
    seed: str
    """How the LoRAs' names end: "" for the first training seed."""
    at: tuple[int, ...]

    @property
    def title(self) -> str:
        """In words."""
        return f"CFG {self.guidance_scale:g}, eta {self.eta:g}, training seed {1 if self.seed else 0}"


EVERY = tuple(range(1, PIXELS.steps + 1))
FEW = (1, 2, 4, 6, 8, 10, 14, 20)
"""Steps that are scored at the other settings, and that tables show."""
CHOSEN = (
    Setting("cfg3", 3.0, 0.0, "", EVERY),
    Setting("cfg3-seed1", 3.0, 0.0, "-seed1", FEW),
    Setting("cfg7.5", 7.5, 0.0, "", FEW),
    Setting("eta1", 3.0, 1.0, "", FEW),
)


@metric(
    MetricFacts(
        name="craft",
        version="1",
        summary="How beautiful the picture is, as the held-out instrument reads its six qualities.",
        unit="beauty, 0 to 1",
        higher_is_better=True,
        low=None,
        high=None,
        category="aesthetic",
        encoder=None,
        trained_on=(),
        training_data="scenes of the embedded family's world that no other stage has seen, with their true craft",
        licence="Apache-2.0",
        reference="weights of this project, docs/mini.md",
    ),
    load_head=lambda place: load_instrument(place.device),
    needs_text=False,
)
def craft(inputs: Inputs) -> torch.Tensor:
    """Weighted sum of the six qualities that the held-out instrument reads, (n,) float32, about 0 to 1."""
    instrument: Instrument = inputs.head
    with torch.inference_mode():
        qualities: torch.Tensor = instrument(inputs.pixels)[0]
        return qualities @ torch.tensor([*world.CRAFT_WEIGHTS.values()])


REGISTRY = registry_of(craft)
"""For ``score`` alone: a metric of the product that reads the truth would be one to train on."""


# What is drawn.


def suite_of(setting: Setting) -> Suite:
    """Base, DPO, SPO, the schedule, and each LoRA in each window alone."""
    dpo, spo = loras_of(f"dpo{setting.seed}"), loras_of(f"spo{setting.seed}")
    loras = {"base": (), "dpo": dpo, "spo": spo, SCHEDULE: (*first_steps(dpo), *later_steps(spo))}
    suite = msgspec.structs.replace(
        load_suite("mini"),
        name=f"step-evidence-{setting.name}",
        prompts=held_out(),
        prompt_files=(),
        samples=SAMPLES,
        seed=1,
        metrics=METRICS,
        settings=msgspec.structs.replace(PIXELS, guidance_scale=setting.guidance_scale, eta=setting.eta),
        variants=tuple(Variant(name=name, checkpoint="mini", loras=own) for name, own in loras.items()),
        limits=(),
        measure=UNTIMED,
        compare_unfused=False,
    )
    windows = [variant for name in TRAINED for variant in windowed(suite, name).variants[2:]]
    return msgspec.structs.replace(suite, variants=(*suite.variants, *windows))


def first_steps(loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
    """LoRAs until the schedule goes over."""
    return tuple(msgspec.structs.replace(lora, step_factors=((0.0, 1.0), (SWITCH, 0.0))) for lora in loras)


def later_steps(loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
    """LoRAs from then on."""
    return tuple(msgspec.structs.replace(lora, step_factors=((0.0, 0.0), (SWITCH, 1.0))) for lora in loras)


def held_out() -> tuple[Prompt, ...]:
    """Every held-out content of the world in one of its captions."""
    counts = {kind: itertools.count(1) for kind in world.KINDS}
    return tuple(Prompt(id=f"{kind}-{next(counts[kind]):02d}", text=text, tags=(kind,)) for kind, _, text in prompts())


def windowed(suite: Suite, name: str) -> Suite:
    """The attribution's suite of one LoRA, without what runs up to a window or from one on."""
    base = suite.variants[0]
    found = attribution_suite(suite, name, WINDOWS, lambda lora: False)  # the shipped LoRAs change the UNet alone
    if found.attribution is None:
        raise ValueError(f"{found.name} has no windows")
    only = tuple(one for one in found.attribution.windows if one.kind == "only")
    kept = {base.name, name, *(one.variant for one in only)}
    return msgspec.structs.replace(
        found,
        variants=tuple(variant for variant in found.variants if variant.name in kept),
        attribution=msgspec.structs.replace(found.attribution, windows=only),
    )


class Part(NamedTuple):
    """Variants of a setting that are drawn and scored together, in a run folder of their own.

    So several processes can work on one setting; ``read`` puts the parts together again.
    """

    setting: Setting
    what: str
    variants: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the run folder."""
        return f"{self.setting.name}-{self.what}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.setting.title}, {self.what}"


def parts_of(setting: Setting) -> tuple[Part, ...]:
    """The parts of a setting: whole LoRAs with all that their steps predict, the schedule, each LoRA's windows."""
    suite = suite_of(setting)
    windows = {name: tuple(variant.name for variant in windowed(suite, name).variants[2:]) for name in TRAINED}
    return (
        Part(setting, STEPS, ("base", *TRAINED)),
        Part(setting, "schedule", (SCHEDULE,)),
        *(Part(setting, f"windows-{name}", own) for name, own in windows.items()),
    )


# Drawing and reading.


def draw(part: Part, place: Path, progress: Progress | None = None) -> None:
    """Draw and score what of a part is missing."""
    suite, folder = suite_of(part.setting), place / part.name
    plan = StepPlan(metrics=STEP_METRICS, at=part.setting.at) if part.what == STEPS else None
    options = RunOptions(variants=part.variants, device="cpu", steps=plan)
    for stage in ("steps" if plan else "render", "score"):
        run_stage(stage, suite, folder, options, progress=progress)
    with RunFolder.open(folder, suite=suite, protocol_digest=protocol_digest(suite)) as opened:
        score(opened, variants=part.variants, metrics=[craft.facts.name], registry=REGISTRY, progress=progress)


class Drawn(NamedTuple):
    """What there is of a setting."""

    run: Run
    """With the instrument's readings among its metrics."""
    steps: tuple[StepScore, ...]


def read(setting: Setting, place: Path) -> Drawn | None:
    """The parts of a setting that were begun, as one run; None before the first image.

    Raises:
        IncomparableError: they were drawn by other versions, or on other machines, so that their pixels do not pair.
    """
    folders = [place / part.name for part in parts_of(setting) if (place / part.name / "run.json").is_file()]
    if not folders:
        return None
    first, *others = (load_run(folder) for folder in folders)
    for other in others:
        check_environment(first.info, other.info.machine, other.info.packages)
    info = msgspec.structs.replace(first.info, metrics=(craft.facts, *first.info.metrics))
    run = msgspec.structs.replace(
        first,
        info=info,
        renders=tuple(one for run in (first, *others) for one in run.renders),
        scores=tuple(one for run in (first, *others) for one in run.scores),
    )
    return Drawn(run, tuple(one for folder in folders for one in load_steps(folder)))
