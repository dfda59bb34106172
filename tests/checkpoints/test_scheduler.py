"""Saved schedulers: what of them counts, what is left aside and named, and what is another kind of model."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from write_schedulers import SCHEDULERS, scheduler_class, schedulers_text

from bench.checkpoints.families import CONFIGS, config_folder
from bench.checkpoints.scheduler import ANOTHER_KIND, FIELDS, OWN_FIELDS, Told, known_schedulers, read_scheduler
from bench.errors import WeightsError
from bench.pipeline.schedulers import SAMPLERS, make_scheduler
from bench.records import CheckpointFacts, Sampler, Schedule
from bench.records.base import SCHEDULES_OF
from bench.records.weights import NoiseSchedule

# diffusers 0.42 turns tensors into arrays in a way that numpy 2 deprecates: theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BOTH: list[tuple[Sampler, Schedule]] = [
    (sampler, schedule) for sampler in SAMPLERS for schedule in SCHEDULES_OF[sampler] if schedule != "timesteps"
]
SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
TOLD = {*SDXL, "trained_betas", "prediction_type", "rescale_betas_zero_snr"}
"""What is a checkpoint's own to say."""


def save(folder: Path, told: dict[str, Any], index: str = "EulerDiscreteScheduler", **pipeline: object) -> Path:
    """A folder with this scheduler, whose ``model_index.json`` names the class ``index``."""
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(told), encoding="utf-8")
    named = {"_class_name": "StableDiffusionXLPipeline", "scheduler": ["diffusers", index], **pipeline}
    (folder / "model_index.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


def read(folder: Path, index: str = "EulerDiscreteScheduler", **told: Any) -> Told:
    return read_scheduler(save(folder, {"_class_name": "EulerDiscreteScheduler", **SDXL, **told}, index))


# --- equal weights draw equal pixels -------------------------------------------------------


def values_of(kind: Any, field: str) -> st.SearchStrategy[Any]:
    """Any value that a field of a scheduler's class may have in a saved file, by its annotation and default."""
    default = inspect.signature(kind.__init__).parameters[field].default
    hint = get_type_hints(kind.__init__).get(field)
    words = [word for one in (hint, *get_args(hint)) if get_origin(one) is Literal for word in get_args(one)]
    choices: list[st.SearchStrategy[Any]] = [st.just(default)]
    if words:
        choices.append(st.sampled_from(words))
    if isinstance(default, bool):
        choices.append(st.booleans())
    elif isinstance(default, int):
        choices.append(st.integers(0, 3))
    elif isinstance(default, float):
        choices.append(st.floats(0.5, 3))
    elif isinstance(default, list):
        choices.append(st.lists(st.integers(0, 5), max_size=3))
    elif default is None and not words:
        choices.append(st.floats(0.1, 30))
    elif isinstance(default, str) and not words:
        choices.append(st.text(max_size=5))
    return st.one_of(choices)


@st.composite
def saved(draw: st.DrawFn) -> dict[str, Any]:
    """What a folder of SDXL's noise may hold: any class, any value of every field that is not the checkpoint's own."""
    name = draw(st.sampled_from(sorted(SCHEDULERS)))
    kind = scheduler_class(name)
    fields = [field for field in list(inspect.signature(kind.__init__).parameters)[1:] if field not in TOLD]
    config = {field: draw(values_of(kind, field)) for field in fields if draw(st.booleans())}
    hidden = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=3)) - TOLD  # of classes that it was before
    config = dict.fromkeys(hidden, True) | config
    for field, (another, _) in ANOTHER_KIND.items():
        if field in config and config[field] == another:
            del config[field]
    return {"_class_name": name, "_diffusers_version": "0.1", **SDXL, **config}


def drawn(told: Told, sampler: Sampler, schedule: Schedule) -> list[torch.Tensor]:
    """All that a sampler computes: timesteps, noise levels, and each step's latents of a UNet that is no constant."""
    facts = CheckpointFacts(layout="diffusers", family="sdxl", **told._asdict())
    scheduler = make_scheduler("x", facts, sampler, schedule)
    scheduler.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((1, 4, 2, 2), generator=generator) * scheduler.init_noise_sigma
    found = [scheduler.timesteps, scheduler.alphas_cumprod, getattr(scheduler, "sigmas", scheduler.betas)]
    for step in scheduler.timesteps:
        predicted = torch.sin(3 * scheduler.scale_model_input(latents, step)) * 2
        options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        latents = scheduler.step(predicted, step, latents, **options).prev_sample
        found.append(latents)
    return found


@settings(max_examples=80, deadline=None)
@given(saved(), st.sampled_from(BOTH), st.sampled_from(["epsilon", "v_prediction"]))
def test_one_set_of_weights_is_drawn_alike_whatever_scheduler_it_was_saved_with(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], both: tuple[Sampler, Schedule], predicts: str
) -> None:
    folder = save(tmp_path_factory.mktemp("any"), config | {"prediction_type": predicts}, config["_class_name"])
    told = read_scheduler(folder)
    plain = read(folder, prediction_type=predicts)
    assert told._replace(left_aside=()) == plain
    assert plain.left_aside == ()
    for one, other in zip(drawn(told, *both), drawn(plain, *both), strict=True):
        assert torch.equal(one, other)


def test_the_schedulers_of_the_shipped_families_wish_nothing_else() -> None:
    for family in ("sdxl", "sd15", "tiny"):
        assert read_scheduler(config_folder(family)) == Told()


def test_defaults_of_the_classes_are_those_of_diffusers() -> None:
    assert (CONFIGS / "schedulers.json").read_text("utf-8") == schedulers_text()


def test_every_class_is_one_of_the_kind(tmp_path: Path) -> None:
    for name, fields in known_schedulers().items():
        assert {*SDXL, "trained_betas", "prediction_type"} <= set(fields), name
        read(tmp_path, name, _class_name=name)


# --- what is left aside is named -----------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({}, ()),
        ({"clip_sample": True}, ("clip_sample = true",)),
        ({"_class_name": "DDIMScheduler", "clip_sample": True}, ()),  # which that class writes unasked
        ({"_class_name": "DDIMScheduler", "thresholding": True}, ("thresholding = true",)),
        ({"timestep_spacing": "linspace", "steps_offset": 0}, ()),
        ({"timestep_spacing": "trailing"}, ('timestep_spacing = "trailing"',)),
        ({"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -float("inf")}, ()),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": True, "solver_order": 1},
            ("solver_order = 1", "use_lu_lambdas = true"),
        ),
        ({"algorithm_type": "sde-dpmsolver++"}, ('algorithm_type = "sde-dpmsolver++"',)),
        ({"interpolation_type": "x" * 99}, ('interpolation_type = "' + 39 * "x" + "…",)),
        ({"skip_prk_steps": False, "anything": 1}, ()),  # which no sampler here has
    ],
)
def test_a_wish_that_is_left_aside_is_named_and_a_default_is_not(
    told: dict[str, Any], named: tuple[str, ...], tmp_path: Path
) -> None:
    assert read(tmp_path, **told).left_aside == named


# --- what is the checkpoint's own ----------------------------------------------------------


def test_betas_prediction_and_zero_terminal_snr_come_from_the_checkpoint(tmp_path: Path) -> None:
    told = read(tmp_path, beta_end=0.02, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert told == Told("v_prediction", True, NoiseSchedule(beta_end=0.02))
    assert read(tmp_path, rescale_betas_zero_snr=None) == Told()
    (betas,) = (read(tmp_path, trained_betas=[0.25, 0.5], num_train_timesteps=2).noise,)
    assert betas == NoiseSchedule(trained_betas=(0.25, 0.5), num_train_timesteps=2)
    facts = CheckpointFacts(layout="diffusers", family="sdxl", noise=betas)
    assert make_scheduler("x", facts, "euler", "leading").alphas_cumprod.tolist() == [0.75, 0.375]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "EDM": ({"_class_name": "EDMEulerScheduler"}, r"is of EDMEulerScheduler: a model with EDM's noise"),
    "flow matching": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "a model of flow matching"),
    "flow sigmas": ({"use_flow_sigmas": True}, "says use_flow_sigmas = true: a model with flow matching"),
    "a flow": ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'; known are epsilon and v"),
    "the image": ({"predict_epsilon": False}, "a UNet that predicts the image"),
    "continuous time": ({"timestep_type": "continuous"}, "a noise level as the UNet's time"),
    "cascade": ({"_class_name": "DDPMWuerstchenScheduler"}, "none of the schedulers that SD 1.5 and SDXL"),
    "a near name": ({"_class_name": "EulerDiscreteSchduler"}, r"did you mean 'EulerDiscreteScheduler'\?"),
    "no name": ({"_class_name": ""}, "does not name its class"),
    "a list of names": ({"_class_name": ["EulerDiscreteScheduler"]}, "_class_name: expected str, got array"),
    "no betas": ({"beta_start": None, "beta_schedule": None}, "does not say beta_start and beta_schedule"),
    "betas in words": ({"beta_end": "0.012"}, "beta_end: expected float"),
    "a schedule that no sampler has": ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; known are linear"),
    "betas over 1": ({"beta_end": 1.5}, "over 0 and under 1"),
    "no timesteps": ({"num_train_timesteps": 0}, "for 2 to 100,000 timesteps"),
    "betas of another count": ({"trained_betas": [0.1, 0.2]}, "has 2 trained_betas for 1000 timesteps"),
    "a word for true": ({"rescale_betas_zero_snr": "false"}, "rescale_betas_zero_snr: expected bool"),
    "a prediction that is a list": ({"prediction_type": ["epsilon"]}, "prediction_type: expected str, got array"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_kind_of_model_is_refused_by_name(case: str, tmp_path: Path) -> None:
    told, words = WRONG[case]
    with pytest.raises(WeightsError, match=words) as caught:
        read(tmp_path, **told)
    assert caught.value.message.startswith(str(tmp_path / "scheduler" / "scheduler_config.json"))


def test_the_class_that_diffusers_takes_counts_too(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is of EDMDPMSolverMultistepScheduler"):
        read(tmp_path, "EDMDPMSolverMultistepScheduler")


def test_own_fields_are_none_of_the_shared(tmp_path: Path) -> None:
    assert not set(OWN_FIELDS) & FIELDS.keys()
