"""What counts of the scheduler that is saved beside a checkpoint, and what every suite sets itself. No torch.

A model is trained with a noise schedule (betas) to predict something: that belongs to its weights. How it is sampled is
the suite's. Everything else that a saved configuration says is left aside, and named where it was somebody's wish, so
that equal weights draw equal pixels whatever program saved the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

from bench import documents
from bench.checkpoints.configurations import read_config
from bench.checkpoints.families import CONFIGS
from bench.errors import WeightsError
from bench.formatting import did_you_mean, joined, listed
from bench.records import CheckpointFacts, Sampler, Settings
from bench.records.weights import BetaSchedule, NoiseSchedule, Prediction

FIELDS: Mapping[str, Any] = {
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "disable_corrector": [],
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "flow_shift": 1.0,
    "interpolation_type": "linear",
    "lambda_min_clipped": -float("inf"),
    "lower_order_final": True,
    "original_inference_steps": 50,
    "predict_x0": True,
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "shift_terminal": None,
    "sigma_max": None,
    "sigma_min": None,
    "solver_order": 2,
    "solver_p": None,
    "steps_offset": 1,
    "thresholding": False,
    "time_shift_type": "exponential",
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
    "timestep_type": "discrete",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": False,
    "use_karras_sigmas": False,
    "use_lu_lambdas": False,
}
"""Every setting that a sampler's class of diffusers takes, besides what a checkpoint tells and ``OWN_FIELDS``."""

OWN_FIELDS = ("algorithm_type", "solver_type", "variance_type")
"""Settings for which samplers have values of their own: ``bench.pipeline.schedulers``."""

ANOTHER_KIND: Mapping[str, tuple[object, str]] = {
    "use_flow_sigmas": (True, "flow matching"),
    "timestep_type": ("continuous", "a noise level as the UNet's time (EDM)"),
    "predict_epsilon": (False, "a UNet that predicts the image"),
}
"""Field of a known scheduler -> the value that makes its model one of another kind, and which."""

READS = "hotart-bench reads SDXL and SD 1.5"
SAVE_AGAIN = "save the whole pipeline again"


class Told(NamedTuple):
    """What a scheduler's configuration tells of its checkpoint: fields of ``CheckpointFacts``."""

    prediction: Prediction = "epsilon"
    zero_terminal_snr: bool = False
    noise: NoiseSchedule = NoiseSchedule()
    left_aside: tuple[str, ...] = ()


class _Saved(msgspec.Struct, frozen=True, kw_only=True, rename={"class_name": "_class_name"}):
    """The fields that are read, as diffusers writes them."""

    class_name: str = ""
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool | None = None
    num_train_timesteps: int = NoiseSchedule().num_train_timesteps
    beta_start: float | None = None
    beta_end: float | None = None
    beta_schedule: str | None = None
    trained_betas: tuple[float, ...] | None = None


@cache
def known_schedulers() -> Mapping[str, Mapping[str, Any]]:
    """diffusers' schedulers of the kind that SD 1.5 and SDXL are trained with, and the default of each field.

    ``python tests/checkpoints/write_schedulers.py`` writes the file.
    """
    known: dict[str, dict[str, Any]] = json.loads((CONFIGS / "schedulers.json").read_text("utf-8"))
    return known


def read_scheduler(folder: Path) -> Told:
    """What the scheduler of a diffusers folder tells.

    Raises:
        WeightsError: its configuration is missing, or has a field of another type; it is of another kind of model, or
            of a class that is not known; it does not tell the betas.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_config(path)
    try:
        saved = documents.convert(config, _Saved)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}.", SAVE_AGAIN) from error
    entry = read_config(folder / "model_index.json").get("scheduler")
    loaded = entry[1] if isinstance(entry, list) and len(entry) == 2 else None  # the class that diffusers takes
    for name in (saved.class_name, loaded):
        if isinstance(name, str):
            _refuse_unknown(path, name)
    _refuse_another_kind(path, config)
    if saved.prediction_type not in get_args(Prediction):
        known = joined(get_args(Prediction))
        raise WeightsError(f"{path}: prediction_type is {saved.prediction_type!r}; known are {known}.")
    return Told(
        "v_prediction" if saved.prediction_type == "v_prediction" else "epsilon",
        saved.rescale_betas_zero_snr is True,
        _noise(path, saved),
        _left_aside(saved.class_name, config),
    )


def _refuse_unknown(path: Path, name: str) -> None:
    if name in known_schedulers():
        return
    if not name:
        raise WeightsError(f"{path}: does not name its class (_class_name), which says how it is read.", SAVE_AGAIN)
    kinds = {"EDM": "a model with EDM's noise (Playground 2.5, CosXL)", "Flow": "a model of flow matching"}
    kind = next((words for mark, words in kinds.items() if mark in name), "")
    if kind:
        raise WeightsError(f"{path}: is of {name}: {kind}, for which there is no sampler. {READS}.")
    raise WeightsError(
        f"{path}: is of {name!r}, which is none of the schedulers that SD 1.5 and SDXL are trained with"
        f"{did_you_mean(name, known_schedulers())}.",
        f"if the model was trained as those are, save it with one of {listed(known_schedulers(), 99)}",
    )


def _refuse_another_kind(path: Path, config: Mapping[str, Any]) -> None:
    for field, (value, kind) in ANOTHER_KIND.items():
        if field in config and config[field] == value:
            raise WeightsError(
                f"{path}: says {_said(field, value)}: a model with {kind}, for which there is no sampler. {READS}."
            )


def _noise(path: Path, saved: _Saved) -> NoiseSchedule:
    """The betas, which must be told: classes differ in what they take where a configuration is silent."""
    count = saved.num_train_timesteps
    if saved.trained_betas is not None:
        noise = NoiseSchedule(trained_betas=saved.trained_betas, num_train_timesteps=count)
        betas = saved.trained_betas
    else:
        fields = ("beta_start", "beta_end", "beta_schedule")
        missing = [field for field in fields if getattr(saved, field) is None]
        if missing:
            raise WeightsError(
                f"{path}: does not say {joined(missing)}: the noise that the model was trained with.", SAVE_AGAIN
            )
        if saved.beta_schedule not in get_args(BetaSchedule):
            known = joined(get_args(BetaSchedule))
            raise WeightsError(f"{path}: beta_schedule is {saved.beta_schedule!r}; known are {known}.")
        noise = msgspec.convert({field: getattr(saved, field) for field in fields}, NoiseSchedule)
        noise = msgspec.structs.replace(noise, num_train_timesteps=count)
        betas = (noise.beta_start, noise.beta_end)
    if not all(0 < beta < 1 for beta in betas) or not 1 < count <= 100_000:
        raise WeightsError(f"{path}: betas are over 0 and under 1, for 2 to 100,000 timesteps.", SAVE_AGAIN)
    if saved.trained_betas is not None and len(betas) != count:
        raise WeightsError(f"{path}: has {len(betas)} trained_betas for {count} timesteps.", SAVE_AGAIN)
    return noise


def _left_aside(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a configuration wishes otherwise than suites set it; not what its class writes unasked."""
    own = known_schedulers()[kind]
    usual = {field: [value, own.get(field)] for field, value in FIELDS.items() if field != "rescale_betas_zero_snr"}
    for field in OWN_FIELDS:
        usual[field] = [fields.get(field) for fields in known_schedulers().values()]
    wished = [field for field in usual if field in config and config[field] not in usual[field]]
    return tuple(_said(field, config[field]) for field in wished)


def _said(field: str, value: object) -> str:
    text = json.dumps(value)
    return f"{field} = {text if len(text) <= 40 else f'{text[:40]}…'}"


# What settings can do.


def refuse_settings(what: str, facts: CheckpointFacts, settings: Settings) -> None:
    """Raises WeightsError where settings cannot draw a checkpoint: as ``refuse_sampler``, or it has no such input."""
    refuse_sampler(what, facts, settings.sampler)
    last = facts.noise.num_train_timesteps - 1
    if settings.timesteps and settings.timesteps[0] > last:
        raise WeightsError(f"{what}: was trained with timesteps up to {last}; timesteps has {settings.timesteps[0]}.")
    sizes = {"original_size": settings.original_size, "target_size": settings.target_size, "crop": settings.crop}
    set_there = [name for name, value in sizes.items() if value not in (None, (0, 0))]
    if set_there and facts.family == "sd15":
        raise WeightsError(
            f"{what}: is of SD 1.5, which is not told sizes and crops; the settings have {joined(set_there)}.",
            f"take {joined(set_there)} out of [settings]",
        )


WITHOUT_ZERO_SNR: tuple[Sampler, ...] = ("heun",)
"""Samplers whose class cannot begin at pure noise."""

WITHOUT_ZERO_SNR_FOR_NOISE: tuple[Sampler, ...] = ("heun", "ddim", "ddpm", "lcm", "tcd")
"""Those that cannot where the UNet predicts the noise: they would divide by the image's share of the first latents, 0;
the others take 2^-24 for it."""


def refuse_sampler(what: str, facts: CheckpointFacts, sampler: Sampler) -> None:
    """Raises WeightsError where a sampler cannot draw a checkpoint as it was trained.

    A model of zero terminal SNR begins at the last timestep, which is nothing but noise (Lin et al. 2023, "Common
    Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891).
    """
    if not facts.zero_terminal_snr:
        return
    unable = WITHOUT_ZERO_SNR if facts.prediction == "v_prediction" else WITHOUT_ZERO_SNR_FOR_NOISE
    if sampler in unable:
        able = [name for name in get_args(Sampler) if name not in (*unable, "none")]
        predicts = "v" if facts.prediction == "v_prediction" else "noise"
        raise WeightsError(
            f"{what}: was trained to zero terminal SNR and predicts {predicts}, so that it begins at pure noise, which "
            f"{sampler} cannot.",
            f"set sampler to one of {joined(able)}",
        )
