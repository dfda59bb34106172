"""Loading: LoRAs against W + weight (alpha / rank) B A by hand, and what cannot be loaded."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import WeightsError
from bench.mini import weights
from bench.pipeline.switch import load_pipeline
from bench.records import Lora, Settings, Variant

RANK, ALPHA = 3, 2.0
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
MODULES = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k")


def load(settings: Settings, *loras: Lora, checkpoint: str | Path = "mini", **parts: str) -> Any:
    variant = Variant(name="x", checkpoint=str(checkpoint), loras=loras, **parts)
    return load_pipeline(variant, settings, device="cpu")


def unet_state(pipe: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in pipe.unet.state_dict().items()}


def random_pairs(unet: Mapping[str, Tensor], seed: int, modules: tuple[str, ...] = MODULES) -> dict[str, Tensor]:
    """A and B of some modules, of a size that changes them visibly."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for module in modules:
        outputs, inputs = unet[f"{module}.weight"].shape
        pairs[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator) / inputs**0.5
        pairs[f"{module}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator) / RANK**0.5
    return pairs


def write_lora(folder: Path, name: str, pairs: Mapping[str, Tensor], alpha: float = ALPHA) -> Path:
    """The LoRA as diffusers' training scripts save it, its alpha in the file's metadata."""
    config = {
        "r": RANK,
        "lora_alpha": alpha,
        "target_modules": sorted({key.rsplit(".lora_", 1)[0] for key in pairs}),
    }
    StableDiffusionXLPipeline.save_lora_weights(
        folder, unet_lora_layers=dict(pairs), unet_lora_adapter_metadata=config, weight_name=name
    )
    return folder / name


def test_fused_lora_is_the_formula_in_every_module_and_nothing_else(tmp_path: Path, settings: Settings) -> None:
    pipe = load(settings)
    before = unet_state(pipe)
    pairs = random_pairs(before, seed=1)
    path = write_lora(tmp_path, "own.safetensors", pairs)
    after = load(settings, Lora(path=str(path), weight=0.7)).unet.state_dict()
    assert set(after) == set(before)
    for module in MODULES:
        a, b = (pairs[f"{module}.lora_{side}.weight"] for side in "AB")
        expected = before[f"{module}.weight"] + 0.7 * (ALPHA / RANK) * b @ a
        assert float((expected - before[f"{module}.weight"]).abs().max()) > 0.05
        torch.testing.assert_close(after[f"{module}.weight"], expected, rtol=0, atol=1e-5)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"{module}.weight" for module in MODULES}


def test_two_loras_add_up(tmp_path: Path, settings: Settings) -> None:
    before = unet_state(load(settings))
    drawn = [random_pairs(before, seed) for seed in (1, 2)]
    files = [write_lora(tmp_path, f"{row}.safetensors", pairs, alpha=RANK) for row, pairs in enumerate(drawn)]
    scales = (0.5, -1.0)
    loras = [Lora(path=str(path), weight=scale) for path, scale in zip(files, scales, strict=True)]
    after = load(settings, *loras).unet.state_dict()
    for module in MODULES:
        expected = before[f"{module}.weight"]
        for pairs, scale in zip(drawn, scales, strict=True):
            expected = expected + scale * pairs[f"{module}.lora_B.weight"] @ pairs[f"{module}.lora_A.weight"]
        torch.testing.assert_close(after[f"{module}.weight"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", weights.LORAS)
def test_shipped_lora_is_the_formula_with_alpha_equal_to_rank(mini_pipe: Any, settings: Settings, name: str) -> None:
    before = mini_pipe.unet.state_dict()
    after = load(settings, Lora(path=f"mini:{name}", weight=1.5)).unet.state_dict()
    pairs = {key: value.float() for key, value in load_file(weights.lora_file(name)).items()}
    modules = sorted({key.rsplit(".lora_", 1)[0] for key in pairs})
    assert len(modules) > 16
    for module in modules:
        key = f"{module.removeprefix('unet.')}.weight"
        expected = before[key] + 1.5 * pairs[f"{module}.lora_B.weight"] @ pairs[f"{module}.lora_A.weight"]
        torch.testing.assert_close(after[key], expected, rtol=0, atol=1e-5)


def test_weight_zero_changes_nothing(tmp_path: Path, settings: Settings) -> None:
    pipe = load(settings)
    before = unet_state(pipe)
    path = write_lora(tmp_path, "own.safetensors", random_pairs(before, seed=1))
    after = load(settings, Lora(path=str(path), weight=0.0)).unet.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_a_fused_pipeline_carries_no_adapter(tmp_path: Path, settings: Settings) -> None:
    pipe = load(settings, Lora(path="mini:spo"))
    assert not [name for name, _ in pipe.unet.named_modules() if "lora" in name]
    assert pipe.get_list_adapters() == {}


# --- what cannot be applied ----------------------------------------------------------------


def test_truncated_lora(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights.lora_file("spo").read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"cut.safetensors: is damaged, cut short") as caught:
        load(settings, Lora(path=str(path)))
    assert caught.value.exit_code == 3


def test_empty_lora(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "empty.safetensors"
    path.touch()
    with pytest.raises(WeightsError, match=r"empty.safetensors: is damaged"):
        load(settings, Lora(path=str(path)))


def test_lora_without_tensors(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "none.safetensors"
    save_file({}, path)
    with pytest.raises(WeightsError, match="holds no tensors"):
        load(settings, Lora(path=str(path)))


def test_lora_of_a_module_that_there_is_not(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "kohya.safetensors"
    save_file({"lora_unet_mid_block_to_q.lora_down.weight": torch.zeros(2, 8)}, path)
    with pytest.raises(WeightsError, match="lora_unet_mid_block_to_q"):
        load(settings, Lora(path=str(path)))


def test_lora_with_a_module_that_the_checkpoint_lacks(tmp_path: Path, settings: Settings) -> None:
    pipe = load(settings)
    pairs = random_pairs(unet_state(pipe), seed=1)
    foreign = {f"down_blocks.7.to_q.lora_{side}.weight": torch.ones(RANK, RANK) for side in "AB"}
    path = tmp_path / "foreign.safetensors"
    save_file({f"unet.{key}": value.contiguous() for key, value in (pairs | foreign).items()}, path)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors: .*down_blocks\.7"):
        load(settings, Lora(path=str(path)))


def test_lora_of_other_widths(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "wide.safetensors"
    key = f"unet.{MODULES[0]}.lora"
    save_file({f"{key}_A.weight": torch.ones(2, 640), f"{key}_B.weight": torch.ones(640, 2)}, path)
    with pytest.raises(WeightsError, match=r"wide.safetensors: .*640"):
        load(settings, Lora(path=str(path)))


# --- checkpoints ---------------------------------------------------------------------------


def test_settings_reach_the_pipeline(settings: Settings) -> None:
    changed = Settings(
        width=64, height=64, steps=1, guidance_scale=1.0, sampler="ddpm", dtype="bfloat16", vae_tiling=True
    )
    pipe = load(changed)
    parts = (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    assert type(pipe.scheduler).__name__ == "DDPMScheduler"
    assert pipe.vae.use_tiling
    assert not load(settings).vae.use_tiling


@pytest.mark.parametrize("inside", ["", "unet"])
def test_unet_from_another_place(mini_copy: Path, mini_pipe: Any, settings: Settings, inside: str) -> None:
    file = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value * 2 for key, value in load_file(file).items()}, file)
    pipe = load(settings, unet=str(mini_copy / inside))
    key = "conv_in.weight"
    assert torch.equal(pipe.unet.state_dict()[key], 2 * mini_pipe.unet.state_dict()[key])
    assert torch.equal(pipe.vae.state_dict()["encoder.conv_in.weight"], mini_pipe.vae.encoder.conv_in.weight)


def test_truncated_checkpoint(mini_copy: Path, settings: Settings) -> None:
    file = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="is damaged, cut short") as caught:
        load(settings, checkpoint=mini_copy)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


def test_checkpoint_without_a_part(mini_copy: Path, settings: Settings) -> None:
    shutil.rmtree(mini_copy / "vae")
    with pytest.raises(WeightsError, match=r"holds no \.safetensors weights for vae"):
        load(settings, checkpoint=mini_copy)


def test_weights_of_another_shape(mini_copy: Path, settings: Settings) -> None:
    file = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"conv_in.weight": torch.zeros(64, 4, 3, 3)}, file)
    with pytest.raises(WeightsError, match=r"conv_in\.weight, which is \(64, 4, 3, 3\) and not \(64, 16, 3, 3\)"):
        load(settings, checkpoint=mini_copy)


class _Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_an_image_encoder_in_the_folder_is_not_opened(settings: Settings, mini_copy: Path, tmp_path: Path) -> None:
    index = mini_copy / "model_index.json"
    named = {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}
    index.write_text(json.dumps(json.loads(index.read_text("utf-8")) | named), encoding="utf-8")
    folder = mini_copy / "image_encoder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip_vision_model"}', encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch(tmp_path / "opened")))
    pipe = load(settings, checkpoint=mini_copy)
    assert pipe.image_encoder is None
    assert not (tmp_path / "opened").exists()


def test_a_tokenizer_that_cannot_be_read_is_named(settings: Settings, mini_copy: Path) -> None:
    (mini_copy / "tokenizer" / "tokenizer.json").write_text('{"model": []}', encoding="utf-8")
    with pytest.raises(WeightsError, match="tokenizer: is not a tokenizer of CLIP"):
        load(settings, checkpoint=mini_copy)
