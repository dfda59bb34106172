"""Every training stage, one iteration each on a tiny pool, from nothing to weights that the package takes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.checkpoints.fingerprint import fingerprint
from bench.mini import models, weights
from bench.mini.networks import load_instrument, load_mini_clip
from bench.mini.networks import tokenizer as load_tokenizer
from bench.mini.train import __main__ as commands
from bench.mini.train import base, clip, data, dpo, instrument, loop, preference, ship, spo, step_aware, vae
from bench.mini.train.__main__ import STAGES, stage_function
from bench.mini.train.loop import Dice, Recipe
from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_pipeline
from bench.records import Lora, Settings, Variant

SCENES = 128
BATCHES: dict[ModuleType, int] = {
    vae: 4,
    base: 4,
    clip: 8,
    preference: 4,
    instrument: 32,
    step_aware: 4,
    dpo: 16,
    spo: 2,
}


def recipes(module: ModuleType) -> dict[str, Recipe]:
    """The recipes of a stage's module, warm restarts included."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Recipe)}


@pytest.fixture(scope="module")
def tiny() -> Iterator[pytest.MonkeyPatch]:
    """Recipes of one iteration, pools of 128 scenes, and SPO in 4 steps that keeps every pair."""
    torch.set_num_threads(1)
    whole_pool = data.pool
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "CHUNK", SCENES // 2)
        for module, batch in BATCHES.items():
            for name, recipe in recipes(module).items():
                patch.setattr(module, name, dataclasses.replace(recipe, iterations=1, batch=batch))
        for module in (vae, base, step_aware, dpo, clip, preference, instrument):
            patch.setattr(module, "POOL", SCENES)
        for module in (clip, preference):
            patch.setattr(module, "SECOND_POOL", SCENES)
        patch.setattr(vae, "pool", lambda work, name, n: whole_pool(work, name, SCENES))
        patch.setattr(clip, "AESTHETIC_RATINGS", 96)
        for name, value in {"STEPS": 4, "PLAIN_STEPS": 1, "CANDIDATES": 2, "KEEP": -1.0}.items():
            patch.setattr(spo, name, value)
        yield patch


@pytest.fixture(scope="module")
def work(tiny: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after every stage but ``ship``."""
    folder = tmp_path_factory.mktemp("work")
    for name in STAGES[:-1]:
        stage_function(name)(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stages' weights in the place of the package's."""
    target = tmp_path_factory.mktemp("shipped") / "weights"
    ship.run(work, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "FOLDER", target)
        forget()
        yield target
    forget()


def forget() -> None:
    weights.manifest.cache_clear()
    weights.weight_file.cache_clear()


def losses(work: Path, stage: str) -> list[float]:
    lines = (work / f"{stage}.log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_every_stage_has_its_function_and_ends_with_ship() -> None:
    assert all(callable(stage_function(name)) for name in STAGES)
    assert STAGES[-1] == "ship"


def test_training_without_peft_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["train", "vae"])
    with pytest.raises(SystemExit):
        commands.main()
    assert "pip install 'hotart-bench[train]'" in capsys.readouterr().err


def test_every_stage_trained_once_at_a_finite_loss(work: Path) -> None:
    trained = [recipe.stage for module in BATCHES for recipe in recipes(module).values()]
    assert len(set(trained)) == len(trained) >= len(BATCHES)
    for stage in trained:
        found = losses(work, stage)
        assert len(found) == 1, stage
        assert np.isfinite(found[0]), stage
        assert found[0] > 0, stage


def test_preference_optimisation_begins_where_policy_and_reference_agree(work: Path) -> None:
    """The first loss of DPO and SPO is log 2: an untrained LoRA changes nothing."""
    assert losses(work, "dpo") == pytest.approx([np.log(2)], abs=1e-3)
    assert losses(work, "spo") == pytest.approx([np.log(2)], abs=1e-3)


def test_stages_read_no_pool_but_their_own(work: Path) -> None:
    pools = [f"pool-{name}-{SCENES}" for name in ("instrument", "second", "train")]
    assert sorted(path.name for path in work.glob("pool-*")) == pools


def test_the_second_pair_of_metrics_needs_nothing_of_any_other_stage(work: Path, tmp_path: Path) -> None:
    for name in ("clip-2", "preference-2"):
        stage_function(name)(tmp_path)
    assert [path.name for path in tmp_path.glob("pool-*")] == [f"pool-second-{SCENES}"]
    for name in ("mini-clip-2", "mini-preference-2"):
        alone, among_others = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, work))
        for key, value in alone.items():
            torch.testing.assert_close(value, among_others[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("first", "second"), [("clip", "preference"), ("clip-2", "preference-2")])
def test_a_preference_model_begins_at_the_clip_of_its_own_pair(work: Path, first: str, second: str) -> None:
    """Adam moves no weight by more than the learning rate, at most 1.5e-5 in the first iteration of a warm-up."""
    before, after = (load_file(work / f"mini-{name}.safetensors") for name in (first, second))
    moved = [(after[key] - value).abs().max() for key, value in before.items() if value.is_floating_point()]
    assert 0 < float(max(moved)) < 2e-5


def test_latents_of_the_pool_are_standardised(work: Path) -> None:
    latents = np.load(work / "latents.npy").astype(np.float32)
    assert latents.shape == (SCENES, 16, 8, 8)
    np.testing.assert_allclose(latents.mean((0, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(latents.std((0, 2, 3)), 1, atol=0.05)


def test_base_leaves_what_ships_and_the_decoder_changes_the_decoder_alone(work: Path) -> None:
    before = load_file(work / "vae" / "diffusion_pytorch_model.safetensors")
    after = load_file(work / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors")
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key].half().float(), after[key])}
    assert changed == {"decoder", "post_quant_conv"}
    for part in ("vae", "unet"):
        state = load_file(work / "pipeline" / part / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(value, value.half().float()) for value in state.values())


@pytest.mark.parametrize("module", ["unet", "text_encoder", "text_encoder_2"])
def test_the_base_is_refined_from_where_it_ended(work: Path, module: str) -> None:
    """Adam's first step moves no weight by more than the learning rate, 6e-6 at the first iteration of the warm-up."""
    ended, refined = (torch.load(work / f"{name}.ckpt", weights_only=True) for name in ("base", "base-refine"))
    after = refined["modules"][module]
    moved = [(after[key] - value.half().float()).abs().max() for key, value in ended["average"][module].items()]
    assert 0 < float(max(moved)) < 1e-5


def test_decoder_loss_is_absolute_and_squared_error_of_the_pictures() -> None:
    vae_ = models.build_vae().eval()
    z, x = torch.randn(2, 16, 8, 8), torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad(), loop.half():
        error = (vae_.decode(z).sample.float() - x).double().numpy()
    with torch.no_grad():
        found = float(vae.decoder_loss(vae_, z, x))
    assert found == pytest.approx(np.abs(error).mean() + 20 * np.square(error).mean(), rel=1e-4)


def test_pictures_that_are_decoded_in_parts_are_those_decoded_at_once() -> None:
    vae_, z = models.build_vae().eval(), torch.randn(2 * step_aware.DECODED_AT_ONCE + 3, 16, 8, 8)
    with torch.no_grad(), loop.half():
        whole = (vae_.decode(z).sample.float() / 2 + 0.5).clamp(0, 1)
    found = step_aware.decode(vae_, z)
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-2)  # in bfloat16, where the processor has it
    assert float((whole[0] - whole[-1]).abs().max()) > 0.1


def test_later_stages_can_start_from_what_is_shipped(shipped: Path, tmp_path: Path) -> None:
    ship.start(tmp_path, shipped)
    network, tokenizer = clip.load_mini_clip(tmp_path, "mini-preference")
    assert torch.equal(
        network.logit_scale, load_file(shipped / "networks" / "mini-preference.safetensors")["logit_scale"]
    )
    assert tokenizer.get_vocab() == load_tokenizer().get_vocab()
    assert step_aware.load(tmp_path).vision.time is not None
    assert all((tmp_path / f"{name}.safetensors").is_file() for name in weights.LORAS)
    for path in (shipped / "pipeline").rglob("*.safetensors"):
        copied = load_file(tmp_path / "pipeline" / path.relative_to(shipped / "pipeline"))
        assert all(torch.equal(value, copied[key]) for key, value in load_file(path).items())


def test_what_rests_on_other_weights_goes_and_what_was_begun_from_the_same_stays(shipped: Path, tmp_path: Path) -> None:
    for name in ("dpo.ckpt", "pipeline-latents.npy"):
        (tmp_path / name).write_bytes(b"of another pipeline")
    ship.start(tmp_path, shipped)
    assert not (tmp_path / "dpo.ckpt").exists()
    assert not (tmp_path / "pipeline-latents.npy").exists()
    (tmp_path / "dpo.ckpt").write_bytes(b"begun")
    ship.start(tmp_path, shipped)
    assert (tmp_path / "dpo.ckpt").read_bytes() == b"begun"


def test_weights_that_cannot_be_shipped_whole_leave_those_that_are_there(shipped: Path, tmp_path: Path) -> None:
    work, target = tmp_path / "work", shutil.copytree(shipped, tmp_path / "weights")
    work.mkdir()
    ship.start(work, shipped)
    (work / "step-aware.safetensors").unlink()
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(FileNotFoundError):
        ship.run(work, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    ship.start(work, shipped)
    shutil.copyfile(shipped / "networks" / "step-aware.safetensors", work / "step-aware.safetensors")
    ship.run(work, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights", "work"]
    assert (target / "manifest.json").read_bytes() == (shipped / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["dpo", "spo"])
def test_lora_of_the_attention_was_trained_and_is_saved_in_peft_layout(work: Path, name: str) -> None:
    state = load_file(work / f"{name}.safetensors")
    sides = {side: [key for key in state if key.endswith(f".lora_{side}.weight")] for side in "AB"}
    assert len(sides["A"]) == len(sides["B"]) > 16
    assert len(state) == 2 * len(sides["A"])
    assert all(key.startswith("unet.") and any(target in key for target in dpo.TARGETS) for key in state)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(state[key].shape[0] == dpo.RANK for key in sides["A"])
    assert any(bool(state[key].any()) for key in sides["B"])  # it began at 0


def test_step_aware_model_keeps_the_text_encoder_and_temperature_of_the_plain_one(work: Path) -> None:
    plain, aware = (load_file(work / f"{name}.safetensors") for name in ("mini-preference", "step-aware"))
    kept = [key for key in plain if key.startswith("text.") or key == "logit_scale"]
    assert len(kept) > 10
    assert all(torch.equal(plain[key], aware[key]) for key in kept)
    assert any(bool(aware[key].any()) for key in aware if ".modulation.weight" in key)  # it began at 0


def test_aesthetic_head_is_the_ridge_regression_of_noisy_ratings(work: Path, tiny: pytest.MonkeyPatch) -> None:
    head = load_file(work / "mini-aesthetic.safetensors")
    network, _ = clip.load_mini_clip(work, "mini-clip")
    source = data.pool(work, "train", SCENES)
    with torch.no_grad():
        # Untrained embeddings differ by little more than rounding, which depends on the batch: the stage's own batches.
        parts = [torch.from_numpy(np.array(part)).float() / 255 for part in np.array_split(source.images[:96], 48)]
        x = torch.cat([network.embed_images(part) for part in parts]).double().numpy()
    rated = source.beauty()[:96] + np.random.default_rng(7).normal(0, 0.1, 96)
    centred, target = x - x.mean(0), rated - rated.mean()
    strength = clip.RIDGE * centred.var(0, ddof=1).mean() * 96
    rows = np.vstack([centred, np.sqrt(strength) * np.eye(96)])
    expected = np.linalg.lstsq(rows, np.concatenate([target, np.zeros(96)]), rcond=None)[0]
    predicted = centred @ head["weight"].double().numpy()
    np.testing.assert_allclose(predicted, centred @ expected, atol=2e-3)
    weight = head["weight"].double().numpy()
    # Bias and weights are stored in float32, and the head of nearly equal embeddings is huge: each term is rounded.
    rounding = 2.0**-23 * float(np.abs(x.mean(0)) @ np.abs(weight))
    assert float(head["bias"]) == pytest.approx(rated.mean() - float(x.mean(0) @ weight), abs=1e-4 + rounding)


def test_finished_stages_return_at_once_with_the_same_weights(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(recipe: Recipe, iteration: int) -> Dice:
        raise AssertionError(f"{recipe.stage} trained again")

    monkeypatch.setattr(loop, "dice", never)
    for name in ("instrument", "preference", "preference-2", "dpo", "spo"):
        file = work / f"{f'mini-{name}' if name.startswith('preference') else name}.safetensors"
        before = load_file(file)
        stage_function(name)(work)
        after = load_file(file)
        assert all(torch.equal(value, after[key]) for key, value in before.items())


# --- ship ----------------------------------------------------------------------------------


def test_shipped_files_are_accepted_by_the_package(shipped: Path) -> None:
    listed = weights.manifest()
    found = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    assert found == set(listed) | {"manifest.json"}
    assert all(weights.weight_file(name) == shipped / name for name in listed)
    assert {f"networks/{name}.safetensors" for name in ship.NETWORKS} <= set(listed)
    assert {f"loras/{name}.safetensors" for name in weights.LORAS} <= set(listed)


def test_shipped_weights_are_the_trained_ones_in_half_precision(work: Path, shipped: Path) -> None:
    for name in ship.NETWORKS:
        trained, half = load_file(work / f"{name}.safetensors"), load_file(shipped / "networks" / f"{name}.safetensors")
        assert set(trained) == set(half)
        for key, value in trained.items():
            expected = value.half() if value.is_floating_point() else value
            assert torch.equal(half[key], expected), key


def test_shipped_networks_load(shipped: Path) -> None:
    for name in ("mini-clip", "mini-preference", "mini-clip-2", "mini-preference-2"):
        load_mini_clip(name)
    load_mini_clip("step-aware", timestep=True)
    load_instrument()


@pytest.mark.parametrize("name", weights.LORAS)
def test_shipped_pipeline_draws_with_a_shipped_lora(shipped: Path, name: str) -> None:
    settings = Settings(width=64, height=64, steps=1, guidance_scale=3.0, sampler="ddim")
    variant = Variant(name=name, checkpoint="mini", loras=(Lora(path=f"mini:{name}"),))
    assert fingerprint(variant).lora_mode == "fused"
    pipe = load_pipeline(variant, settings, device="cpu")
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}
    encoded = stages.encode(pipe, ["a red tent by the sea"], [""], settings)
    latents = stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, [1]), [1])
    assert np.isfinite(stages.decode(pipe, latents)).all()


def test_weights_that_the_package_cannot_carry_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.safetensors").write_bytes(bytes(2048))
    monkeypatch.setattr(ship, "LIMIT_BYTES", 1024)
    with pytest.raises(ValueError, match="more than"):
        ship.write_manifest(tmp_path)
