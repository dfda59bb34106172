"""Merged files against a simple merge written here: each stored tensor of the input files for itself, all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import POSITIONS, tiny_state, write_recipe

from bench.errors import WeightsError
from bench.merge.write import MergedFile, merge

Arrays = dict[str, np.ndarray]
ALPHA, DENSITY, DROP = 0.3, 0.2, 0.4
LOGIT_SCALE = "conditioner.embedders.1.model.logit_scale"
PROJECTION = "conditioner.embedders.0.transformer.text_projection.weight"
KEPT = (POSITIONS, LOGIT_SCALE, PROJECTION)
"""Of the text encoders, and read by no pipeline: as the first file has them."""
CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
PACKED = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"


def weighted_sum(a: np.ndarray, b: np.ndarray, _: np.ndarray) -> np.ndarray:
    return (1 - ALPHA) * a + ALPHA * b


def add_difference(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return a + ALPHA * (b - c)


def slerp(a: np.ndarray, b: np.ndarray, _: np.ndarray) -> np.ndarray:
    angle = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - ALPHA) * angle) * a + np.sin(ALPHA * angle) * b) / np.sin(angle)


def ties(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    changes = []
    for change in (b - a, c - a):
        least = np.sort(np.abs(change), axis=None)[-max(1, round(DENSITY * change.size))]
        changes.append(np.where(np.abs(change) >= least, change, 0))
    agree = np.sign(changes) == np.sign(sum(changes))
    agree &= np.asarray(changes) != 0
    return a + ALPHA * np.where(agree, changes, 0).sum(0) / np.maximum(1, agree.sum(0))


def copy(a: np.ndarray, _: np.ndarray, __: np.ndarray) -> np.ndarray:
    return a


METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], str, str]] = {
    "weighted_sum": (weighted_sum, "ab", f"alpha = {ALPHA}"),
    "add_difference": (add_difference, "abc", f"alpha = {ALPHA}"),
    "slerp": (slerp, "ab", f"alpha = {ALPHA}"),
    "ties": (ties, "abc", f"alpha = {ALPHA}\ndensity = {DENSITY}"),
    "copy": (copy, "a", ""),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    """Three files; in the packed tensors, q, k and v differ much from each other."""
    place, states = tmp_path_factory.mktemp("inputs"), {}
    for seed, name in enumerate("abc"):
        state = {key: tensor.numpy() for key, tensor in tiny_state(seed, torch.float32).items()}
        for key, tensor in state.items():
            if "in_proj" in key and name != "a":  # q, k and v at angles of their own to the first model's
                own = zip(np.split(states["a"][key], 3), np.split(tensor, 3), (2, 0, -1), (9, 1, 0.2), strict=True)
                state[key] = np.concatenate([share * one + size * other for one, other, share, size in own])
        unread = {LOGIT_SCALE: np.array(4.6 + seed, np.float32), PROJECTION: np.full((4, 4), seed, np.float32)}
        states[name] = state | unread
        save_file(states[name], place / f"{name}.safetensors")
    states["place"] = {"path": np.array(str(place))}
    return states


def written(inputs: dict[str, Arrays], folder: Path, models: str, text: str) -> tuple[MergedFile, Arrays]:
    place = Path(str(inputs["place"]["path"]))
    names = ", ".join(f'"{place / model}.safetensors"' for model in models)
    recipe = write_recipe(folder / "r.toml", f"models = [{names}]\n{text}\n")
    done = merge(recipe, folder / "out.safetensors", weights_dir=None, progress=lambda *_: None)
    return done, load_file(folder / "out.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_every_stored_tensor_is_merged_for_itself(inputs: dict[str, Arrays], method: str, tmp_path: Path) -> None:
    formula, models, text = METHODS[method]
    done, found = written(inputs, tmp_path, models, f'method = "{method}"\n{text}')
    assert found.keys() == inputs["a"].keys()
    assert sum(done.tensors.values()) == len(found)
    for key, tensor in found.items():
        a, b, c = (inputs[name][key].astype(np.float64) for name in "abc")
        first = key in KEPT or key.startswith("first_stage_model.")
        np.testing.assert_allclose(tensor, a if first else formula(a, b, c), atol=2e-6, err_msg=key)


def test_the_parts_of_a_packed_tensor_would_be_merged_otherwise(inputs: dict[str, Arrays]) -> None:
    """What the test above would not see if q, k and v were alike."""
    a, b, c = (inputs[name][PACKED].astype(np.float64) for name in "abc")
    for formula in (slerp, ties):
        apart = np.concatenate(
            [formula(*parts) for parts in zip(*(np.split(one, 3) for one in (a, b, c)), strict=True)]
        )
        whole = formula(a, b, c)
        assert np.abs(apart - whole).max() > 0.01 * np.abs(whole).max()


def test_dare_keeps_or_makes_up_for_each_entry(inputs: dict[str, Arrays], tmp_path: Path) -> None:
    _, found = written(inputs, tmp_path, "ab", f'method = "dare"\nalpha = 1.0\ndrop = {DROP}')
    assert found.keys() == inputs["a"].keys()
    for key, tensor in found.items():
        a, b = (inputs[name][key].astype(np.float64) for name in "ab")
        if key in KEPT or key.startswith("first_stage_model."):
            assert np.array_equal(tensor, a)
            continue
        kept = a + (b - a) / (1 - DROP)
        assert np.minimum(np.abs(tensor - a), np.abs(tensor - kept)).max() < 1e-5, key


def test_what_no_pipeline_reads_has_the_precision_of_the_output(inputs: dict[str, Arrays], tmp_path: Path) -> None:
    _, found = written(inputs, tmp_path, "ab", f'method = "slerp"\nalpha = {ALPHA}\ndtype = "float16"')
    assert (found[LOGIT_SCALE].dtype, float(found[LOGIT_SCALE])) == (np.float16, float(np.float16(4.6)))


@pytest.fixture
def inpainting(inputs: dict[str, Arrays]) -> np.ndarray:
    """An inpainting model beside the others: five more inputs of the first convolution."""
    wide = np.concatenate([inputs["a"][CONV_IN], np.full((inputs["a"][CONV_IN].shape[0], 5, 3, 3), 0.5, np.float32)], 1)
    save_file(inputs["a"] | {CONV_IN: wide}, Path(str(inputs["place"]["path"])) / "i.safetensors")
    return wide


def test_a_difference_makes_an_inpainting_model_of_a_custom_one(
    inputs: dict[str, Arrays], inpainting: np.ndarray, tmp_path: Path
) -> None:
    done, found = written(inputs, tmp_path, "ibc", f'method = "add_difference"\nalpha = {ALPHA}')
    assert found.keys() == inputs["a"].keys()
    for key, tensor in found.items():
        a, b, c = (inputs[name][key].astype(np.float64) for name in "abc")
        first = key in KEPT or key.startswith("first_stage_model.")
        wanted = a if first else add_difference(a, b, c)
        if key == CONV_IN:
            assert np.array_equal(tensor[:, 4:], inpainting[:, 4:])
            tensor = tensor[:, :4]
        np.testing.assert_allclose(tensor, wanted, atol=2e-6, err_msg=key)
    assert done.notes == (
        "r.toml: the difference is added to the first channels of unet.conv_in.weight; those of the mask and the "
        "masked image stay.",
    )


@pytest.mark.parametrize(
    ("method", "models", "text"),
    [
        ("weighted_sum", "ia", "alpha = 0.5"),
        ("weighted_sum", "ai", "alpha = 0.5"),
        ("slerp", "ia", "alpha = 0.5"),
        ("ties", "iab", ""),
        ("dare", "iab", "drop = 0.5"),
        ("add_difference", "aib", "alpha = 0.5"),
        ("add_difference", "iia", "alpha = 0.5"),
        ("add_difference", "iai", "alpha = 0.5"),
    ],
)
@pytest.mark.usefixtures("inpainting")
def test_other_mixes_with_an_inpainting_model_are_refused(
    inputs: dict[str, Arrays], method: str, models: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="do not go together: inpainting is") as caught:
        written(inputs, tmp_path, models, f'method = "{method}"\n{text}')
    assert "[INPAINTING, CUSTOM, BASE]" in caught.value.hint
