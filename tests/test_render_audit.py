"""What rendering writes into run.json of the weights, and how far fusing moves pixels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tiny
from PIL import Image

from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"))))


@pytest.fixture(scope="module")
def run(suite, tmp_path_factory):
    """Base, a LoRA fused, and the same LoRA beside the weights, rendered for real."""
    _, fused = suite.variants
    variants = (*suite.variants, replace(fused, name="beside", fuse=False))
    folder = tmp_path_factory.mktemp("run") / "run"
    run_stage("render", replace(suite, variants=variants), folder, device="cpu")
    return load_run(folder)


def pixels(run, variant):
    names = sorted(one.image for one in run.renders if one.variant == variant)
    return np.stack([np.asarray(Image.open(f"{run.path}/{name}")).astype(int) for name in names])


def test_each_variant_has_its_audit(run):
    prints = {one.name: one for one in run.info.variants}
    assert {name: one.lora_mode for name, one in prints.items()} == {
        "base": "none",
        "spo": "fused",
        "beside": "unfused",
    }
    assert prints["base"].audit.loras == ()
    for name in ("spo", "beside"):
        (lora,) = prints[name].audit.loras
        assert lora.keys == sum(lora.applied.values()) == 2 * len(lora.modules)
        assert min(prints[name].audit.blocks.values()) > 0
    assert prints["spo"].audit.loras == prints["beside"].audit.loras


def test_fusing_moves_pixels_by_rounding_alone_and_the_audit_says_so(run):
    found = {one.name: one.audit.fused_against_runtime for one in run.info.variants}
    assert found["base"] is None
    distance = np.abs(pixels(run, "spo") - pixels(run, "beside"))
    assert distance.max() <= 2
    assert np.abs(pixels(run, "spo") - pixels(run, "base")).mean() > 1
    for name in ("spo", "beside"):
        assert found[name].images == 2
        assert found[name].max <= 2
        assert found[name].mean == pytest.approx(distance.mean(), abs=0.02)


def test_an_audit_is_made_once_for_the_same_weights(run, suite, tmp_path):
    import shutil

    folder = shutil.copytree(run.path, tmp_path / "run")
    (folder / next(one.image for one in run.renders if one.variant == "spo")).unlink()
    run_stage("render", run.info.suite, folder, device="cpu")
    assert load_run(folder).info.variants == run.info.variants
