"""Fingerprints: the same for the same weights anywhere, another for any other weight."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import write_recipe

from bench.checkpoints.families import read_pipeline_class
from bench.checkpoints.fingerprint import fingerprint
from bench.checkpoints.safetensors_files import read_header
from bench.errors import WeightsError
from bench.lora.algorithms import weights_of
from bench.mini import weights
from bench.records import Lora, Sampler, Settings, Variant

DPO, SPO = Lora(path="mini:dpo"), Lora(path="mini:spo")


def variant(checkpoint: str | Path = "mini", *loras: Lora, name: str = "x", **parts: str) -> Variant:
    return Variant(name=name, checkpoint=str(checkpoint), loras=loras, **parts)


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_same_weights_at_another_place_under_another_name(mini_copy: Path) -> None:
    here, there = fingerprint(variant()), fingerprint(variant(mini_copy, name="another"))
    assert here.digest == there.digest
    assert here.files == there.files
    assert (here.name, there.name) == ("x", "another")
    assert (here.checkpoint, there.checkpoint) == ("mini", str(mini_copy))


def test_lora_at_another_place_is_the_same_lora(tmp_path: Path) -> None:
    copied = shutil.copyfile(weights.lora_file("spo"), tmp_path / "renamed.safetensors")
    own = fingerprint(variant("mini", Lora(path=str(copied))))
    assert own.digest == fingerprint(variant("mini", SPO)).digest


def test_a_file_is_hashed_once_for_all_variants_until_it_changes(
    mini_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = hashlib.file_digest

    def counting(file: BinaryIO, digest: str) -> object:
        hashed.append(Path(file.name).parent.name)
        return real(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    first = [fingerprint(variant(mini_copy, *loras)) for loras in ((), (DPO,), (SPO,))]
    parts = ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert sorted(name for name in hashed if name != "loras") == parts
    unet = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    before = unet.stat()
    flip_last_byte(unet)
    os.utime(unet, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert fingerprint(variant(mini_copy)).digest != first[0].digest
    assert sorted(name for name in hashed if name != "loras") == sorted([*parts, "unet"])


def test_files_are_listed_with_the_hash_and_size_that_the_manifest_knows() -> None:
    found = fingerprint(variant("mini", DPO, SPO))
    known = weights.manifest()
    names = [
        "pipeline/unet/diffusion_pytorch_model.safetensors",
        "pipeline/vae/diffusion_pytorch_model.safetensors",
        "pipeline/text_encoder/model.safetensors",
        "pipeline/text_encoder_2/model.safetensors",
        "loras/dpo.safetensors",
        "loras/spo.safetensors",
    ]
    components = ["unet", "vae", "text_encoder", "text_encoder_2", "lora:0", "lora:1"]
    assert [file.component for file in found.files] == components
    assert [file.sha256 for file in found.files] == [known[name]["sha256"] for name in names]
    assert [file.size_bytes for file in found.files] == [known[name]["size_bytes"] for name in names]
    assert (found.pipeline, found.lora_mode) == ("StableDiffusionXLPipeline", "fused")
    assert fingerprint(variant()).lora_mode == "none"


def test_modules_that_the_loras_change_are_counted_once() -> None:
    modules = {key.rsplit(".lora_", 1)[0] for key in read_header(weights.lora_file("spo")).tensors}
    assert fingerprint(variant()).modules_changed == 0
    assert fingerprint(variant("mini", SPO)).modules_changed == len(modules) > 0
    assert fingerprint(variant("mini", SPO, SPO)).modules_changed == len(modules)


def test_lora_of_another_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    pair = {"lora_A": np.zeros((2, 640), np.float32), "lora_B": np.zeros((640, 2), np.float32)}
    save_file({f"unet.mid_block.to_q.{side}.weight": values for side, values in pair.items()}, path)
    with pytest.raises(WeightsError, match=r"2 of 2 keys of the LoRA fit nothing.*unet\.mid_block\.to_q"):
        fingerprint(variant("mini", Lora(path=str(path))))


def test_component_that_was_cut_short_is_refused_before_anything_is_loaded(mini_copy: Path) -> None:
    file = mini_copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model.safetensors: is damaged, cut short"):
        fingerprint(variant(mini_copy))


def test_every_arrangement_of_loras_is_another_variant() -> None:
    arrangements = [
        (),
        (DPO,),
        (SPO,),
        (DPO, SPO),
        (SPO, DPO),
        (SPO, SPO),
        (Lora(path="mini:spo", weight=0.5),),
        (Lora(path="mini:spo", weight=0.0),),
        (Lora(path="mini:spo", weight=-1.0),),
    ]
    assert len({fingerprint(variant("mini", *loras)).digest for loras in arrangements}) == len(arrangements)


def test_what_is_left_out_of_a_lora_is_part_of_the_variant(tmp_path: Path) -> None:
    state = load_file(weights.lora_file("spo"))
    save_file(state | {"bundle_emb.cat.clip_l": np.ones((1, 8), np.float32)}, tmp_path / "bundled.safetensors")
    bundled = Lora(path=str(tmp_path / "bundled.safetensors"), leave_out=("bundle_emb",))
    assert fingerprint(variant("mini", bundled)).loras == (bundled,)
    assert weights_of(bundled)["leave_out"] == ("bundle_emb",)
    assert weights_of(SPO) == {  # as in digests from before there was anything to leave out
        "weight": 1.0, "unet": None, "text_encoder": None, "text_encoder_2": None, "blocks": {}
    }  # fmt: skip


def test_what_a_lora_was_begun_with_is_part_of_the_variant(tmp_path: Path) -> None:
    digests = set()
    for begun in (True, "pissa", "olora"):
        told = json.dumps({"unet.lora_alpha": 8, "unet.init_lora_weights": begun})
        path = tmp_path / f"{begun}" / "lora.safetensors"
        path.parent.mkdir()
        save_file(load_file(weights.lora_file("spo")), path, {"lora_adapter_metadata": told})
        digests.add(fingerprint(variant("mini", Lora(path=str(path)))).digest)
    assert len(digests) == 3


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_one_bit_of_a_component_is_another_variant(mini_copy: Path, component: str) -> None:
    flip_last_byte(next((mini_copy / component).glob("*.safetensors")))
    assert fingerprint(variant(mini_copy)).digest != fingerprint(variant()).digest


def test_one_bit_of_a_lora_is_another_variant(tmp_path: Path) -> None:
    copied = Path(shutil.copyfile(weights.lora_file("spo"), tmp_path / "spo.safetensors"))
    flip_last_byte(copied)
    own = fingerprint(variant("mini", Lora(path=str(copied))))
    assert own.digest != fingerprint(variant("mini", SPO)).digest


@pytest.mark.parametrize("inside", ["", "vae"])
def test_replaced_component_is_what_counts(mini_copy: Path, inside: str) -> None:
    flip_last_byte(next((mini_copy / "vae").glob("*.safetensors")))
    replaced = fingerprint(variant("mini", vae=str(mini_copy / inside)))
    assert replaced.digest == fingerprint(variant(mini_copy)).digest
    assert replaced.digest != fingerprint(variant()).digest


def test_shards_of_a_component_are_all_hashed(mini_copy: Path) -> None:
    whole = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    parts = [whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors") for number in (1, 2)]
    tensors = sorted(load_file(whole).items())
    for number, part in enumerate(parts):
        save_file(dict(tensors[number::2]), part)
    whole.unlink()
    found = [file for file in fingerprint(variant(mini_copy)).files if file.component == "unet"]
    assert [file.sha256 for file in found] == [hashlib.sha256(part.read_bytes()).hexdigest() for part in parts]


def test_a_file_that_is_not_loaded_does_not_count(mini_copy: Path) -> None:
    (mini_copy / "unet" / "notes.safetensors").write_bytes(b"of no use")
    assert fingerprint(variant(mini_copy)).digest == fingerprint(variant()).digest


def test_one_text_encoder_is_enough(mini_copy: Path) -> None:
    shutil.rmtree(mini_copy / "text_encoder_2")
    index = mini_copy / "model_index.json"
    facts = json.loads(index.read_text()) | {"_class_name": "StableDiffusionPipeline"}
    index.write_text(json.dumps(facts))
    found = fingerprint(variant(mini_copy))
    assert found.pipeline == "StableDiffusionPipeline"
    assert [file.component for file in found.files] == ["unet", "vae", "text_encoder"]


def test_a_recipe_over_a_folder_has_that_folders_tokenizers_checked(mini_copy: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", f'method = "copy"\nmodels = ["{mini_copy}"]\n')
    fingerprint(variant(recipe))
    (mini_copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="tokenizer: holds no tokenizer"):
        fingerprint(variant(recipe))


def test_pickled_weights_are_refused(mini_copy: Path) -> None:
    file = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsError, match=r"unet: holds no \.safetensors weights") as caught:
        fingerprint(variant(mini_copy))
    assert caught.value.hint.startswith("convert it: python -c")
    assert caught.value.hint.endswith(f"{file.with_suffix('.bin')} {file}")


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"], ids=["missing", "torn", "a list", "without a class"])
def test_what_is_no_diffusers_folder(mini_copy: Path, text: str | None) -> None:
    index = mini_copy / "model_index.json"
    index.unlink()
    if text is not None:
        index.write_text(text)
    with pytest.raises(
        WeightsError, match=r"is not a diffusers folder|model_index\.json: is not such a configuration"
    ) as caught:
        read_pipeline_class(mini_copy)
    assert (caught.value.exit_code, "save_pretrained" in caught.value.hint) == (3, True)


def test_pipeline_of_another_family_is_named(mini_copy: Path) -> None:
    (mini_copy / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(WeightsError, match="holds a FluxPipeline; hotart-bench renders StableDiffusionXLPipeline"):
        fingerprint(variant(mini_copy))


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("vae/config.json", {"scaling_factor": 0.5}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("unet/config.json", {"norm_eps": 1e-3}),
    ],
)
def test_what_a_network_computes_is_part_of_it(mini_copy: Path, file: str, fields: dict[str, object]) -> None:
    before = fingerprint(variant(mini_copy)).digest
    edit(mini_copy / file, **fields)
    assert fingerprint(variant(mini_copy)).digest != before


def test_where_a_configuration_is_from_is_no_part_of_it(mini_copy: Path) -> None:
    before = fingerprint(variant(mini_copy)).digest
    edit(mini_copy / "unet" / "config.json", _diffusers_version="9.9")
    edit(
        mini_copy / "text_encoder" / "config.json", transformers_version="9.9", architectures=["X"], torch_dtype="bf16"
    )
    assert fingerprint(variant(mini_copy)).digest == before


def test_the_words_that_a_tokenizer_knows_are_part_of_it(mini_copy: Path) -> None:
    before = fingerprint(variant(mini_copy)).digest
    words = next(file for file in (mini_copy / "tokenizer").iterdir() if file.name in ("tokenizer.json", "vocab.json"))
    words.write_text(words.read_text("utf-8") + " ", "utf-8")
    assert fingerprint(variant(mini_copy)).digest != before


@pytest.mark.parametrize("fields", [{"lora_alpha": 2}, {"use_rslora": True}])
def test_what_pefts_configuration_says_of_a_lora_is_part_of_it(tmp_path: Path, fields: dict[str, object]) -> None:
    tensors = {f"base_model.model.{key}": value for key, value in load_file(weights.lora_file("spo")).items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"r": 8, "lora_alpha": 16}), "utf-8")
    own = variant("mini", Lora(path=str(tmp_path / "adapter_model.safetensors")))
    before = fingerprint(own).digest
    edit(config, **fields)
    assert fingerprint(own).digest != before
    config.unlink()
    with pytest.raises(WeightsError, match="was written by PEFT, which keeps alpha") as caught:
        fingerprint(own)
    assert "put that file beside it" in (caught.value.hint or "")


def test_another_noise_schedule_is_another_variant(mini_copy: Path) -> None:
    edit(mini_copy / "scheduler" / "scheduler_config.json", beta_end=0.02)
    ours, theirs = fingerprint(variant("mini", unet=str(mini_copy))), fingerprint(variant())
    assert ours.files == theirs.files
    assert ours.digest != theirs.digest


def settings_of(sampler: Sampler) -> Settings:
    return Settings(width=64, height=64, steps=4, guidance_scale=1.0, sampler=sampler)


def test_a_sampler_that_cannot_draw_a_variant_is_refused_before_anything_is_rendered(mini_copy: Path) -> None:
    edit(mini_copy / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    unable: tuple[Sampler, ...] = ("heun", "ddim")
    for sampler in unable:
        with pytest.raises(WeightsError, match=f"begins at pure noise, which {sampler} cannot"):
            fingerprint(variant(mini_copy), None, settings_of(sampler))
    fingerprint(variant(mini_copy), None, settings_of("euler"))


def test_a_runtime_and_its_packages_version_make_another_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    real = json.dumps

    def dumps(facts: dict[str, object], **given: object) -> str:
        told.append(real(facts, **given))
        return told[-1]

    monkeypatch.setattr("bench.checkpoints.fingerprint.json.dumps", dumps)
    plain = fingerprint(variant())
    assert '"runtime"' not in told[0], "what came later is in no digest without it"
    digests = {plain.digest}
    for version in ("0.18.0", "0.19.0"):
        monkeypatch.setattr("bench.suite.runtimes.package_version", lambda _, version=version: version)
        found = fingerprint(variant(runtime="torchao-int8"))
        assert found.runtime == f"torchao-int8 (torchao {version})"
        digests.add(found.digest)
    digests.add(fingerprint(variant(runtime="torchao-int8-weights")).digest)
    assert len(digests) == 4
    assert fingerprint(variant(runtime="torchao-int8+deepcache:3")).digest == (
        fingerprint(variant(runtime="deepcache:3+torchao-int8")).digest
    )
