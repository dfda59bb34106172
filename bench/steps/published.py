"""The published step metrics: SPO's step-aware preference models and LPO's latent reward models. Imports no torch."""

from __future__ import annotations

from bench.metrics.declare import LoadedStepMetric, Place, step_metric
from bench.metrics.weights import find_weights
from bench.records import MetricFacts

SPO = "Z. Liang et al., Step-by-step Preference Optimization, arXiv 2406.04314"
LPO = "T. Zhang et al., Diffusion Model as a Noise-Aware Latent Reward Model, arXiv 2502.01051"
PICK_A_PIC = "Pick-a-Pic v1: choices of users of a web application between diffusion pictures, noised to every timestep"
SPO_DATA = f"{PICK_A_PIC}; it starts from PickScore"
CHOSEN = ("pick-a-pic", "aesthetic-v2", "webimagetext")
"""The choices, and what chose among them: LAION's predictor, and an openai CLIP as CLIPScore."""
LPO_DATA = (
    f"{PICK_A_PIC}; of the pairs, those on which an aesthetic score, CLIPScore and VQAScore agree with the choice"
)


def _facts(name: str, summary: str, reference: str, trained_on: tuple[str, ...], training_data: str) -> MetricFacts:
    return MetricFacts(
        name=name,
        version="1",
        summary=summary,
        unit="exp(logit_scale) x cosine",
        higher_is_better=True,
        low=None,
        high=None,
        category="preference",
        encoder=None,
        trained_on=trained_on,
        training_data=training_data,
        licence="Apache-2.0",
        reference=reference,
    )


_SEES_IMAGE = "Which predicted image people would prefer at a step; SPO learns it."
_SEES_LATENT = "Which noisy latent people would prefer at a step; LPO learns it."


@step_metric(
    _facts("spo-step-aware-sdxl", _SEES_IMAGE, SPO, ("pickscore",), SPO_DATA),
    reads="picture",
    families=("sdxl",),
    final_metric="pickscore",
    weights=("spo-step-aware-sdxl",),
)
def spo_step_aware_sdxl(place: Place) -> LoadedStepMetric:
    """SPO's step-aware preference model for SDXL, from the published file."""
    from bench.steps.preference import load_step_aware

    return load_step_aware(find_weights("spo-step-aware-sdxl", place.weights_dir), place)


@step_metric(
    _facts("spo-step-aware-sd15", _SEES_IMAGE, SPO, ("pickscore",), SPO_DATA),
    reads="picture",
    families=("sd15",),
    final_metric="pickscore",
    weights=("spo-step-aware-sd15",),
)
def spo_step_aware_sd15(place: Place) -> LoadedStepMetric:
    """SPO's step-aware preference model for SD 1.5, from the published file."""
    from bench.steps.preference import load_step_aware

    return load_step_aware(find_weights("spo-step-aware-sd15", place.weights_dir), place)


@step_metric(
    _facts("lpo-latent-reward-sdxl", _SEES_LATENT, LPO, CHOSEN, LPO_DATA),
    reads="latent",
    families=("sdxl",),
    final_metric="pickscore",
    weights=("lpo-latent-reward-sdxl",),
)
def lpo_latent_reward_sdxl(place: Place) -> LoadedStepMetric:
    """LPO's latent reward model for SDXL, from the published folder ``lrm_sdxl``.

    It is asked about a step's own latent at that step's timestep, as its trainer pairs them; LPO itself asks about the
    latent after the step.
    """
    from bench.steps.latent_reward import SDXL, load_latent_reward

    folder = find_weights("lpo-latent-reward-sdxl", place.weights_dir) / "lrm_sdxl"
    return load_latent_reward(folder, SDXL, place)


@step_metric(
    _facts("lpo-latent-reward-sd15", _SEES_LATENT, LPO, CHOSEN, LPO_DATA),
    reads="latent",
    families=("sd15",),
    final_metric="pickscore",
    weights=("lpo-latent-reward-sd15",),
)
def lpo_latent_reward_sd15(place: Place) -> LoadedStepMetric:
    """LPO's latent reward model for SD 1.5, from the published folder ``lrm_sd15``; asked as the one for SDXL."""
    from bench.steps.latent_reward import SD15, load_latent_reward

    folder = find_weights("lpo-latent-reward-sd15", place.weights_dir) / "lrm_sd15"
    return load_latent_reward(folder, SD15, place)
