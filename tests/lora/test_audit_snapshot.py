"""The audit of a variant that is a recipe with a LoRA of its own, held against a snapshot and an independent sum.

After a change that is meant, ``PYTHONPATH=tests python tests/variants/test_audit_snapshot.py`` writes it anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_checkpoints import write_tiny

from bench.mini import weights
from bench.pipeline.switch import switch_variant
from bench.records import Audit, Lora, MergeAudit, Settings, Variant
from bench.report.audits import recipe_text

SNAPSHOT = Path(__file__).parents[1] / "golden" / "audit.json"
RECIPE = """\
schema = 1
method = "copy"
models = ["mini"]
loras = [{ path = "mini:spo", weight = 0.5, blocks = { M00 = 0.25 } }]
"""
SETTINGS = Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler="ddim", batch=1)


def audit(folder: Path) -> Audit:
    path = folder / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    variant = Variant(name="x", checkpoint=str(path), loras=(Lora(path="mini:dpo", weight=0.8, text_encoder=0.0),))
    return switch_variant(None, variant, SETTINGS, device="cpu", weights_dir=None)[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit(tmp_path_factory.mktemp("recipe"))


def differences(now: Any, then: Any, where: str = "audit") -> list[str]:
    """Where nested values of JSON differ; numbers by more than one in a thousand: processors round differently."""
    if isinstance(now, dict) and isinstance(then, dict) and now.keys() == then.keys():
        return [text for key in now for text in differences(now[key], then[key], f"{where}.{key}")]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [
            text for n, pair in enumerate(zip(now, then, strict=True)) for text in differences(*pair, f"{where}[{n}]")
        ]
    if isinstance(now, float) and isinstance(then, float):
        return [] if now == pytest.approx(then, rel=1e-3, abs=1e-9) else [f"{where}: {now} was {then}"]
    return [] if now == then else [f"{where}: {now!r} was {then!r}"]


def as_json(one: Audit) -> Any:
    return json.loads(msgspec.json.encode(one))


def test_the_audit_is_the_snapshot(found: Audit) -> None:
    assert differences(as_json(found), json.loads(SNAPSHOT.read_text(encoding="utf-8"))) == []


def test_a_recipes_change_by_block_is_that_of_its_loras(found: Audit) -> None:
    """Computed from the files with numpy: |W + s B A - W| / |W| over the changed tensors' blocks."""
    base = load_file(weights.pipeline_folder() / "unet" / "diffusion_pytorch_model.safetensors")
    lora = load_file(weights.lora_file("spo"))
    change = weight = 0.0
    for name, before in base.items():
        if not name.startswith("mid_block."):
            continue
        before = before.astype(np.float64)
        weight += (before**2).sum()
        down = lora.get(f"unet.{name.removesuffix('.weight')}.lora_A.weight")
        if down is None:
            continue
        up = lora[f"unet.{name.removesuffix('.weight')}.lora_B.weight"]
        change += ((0.25 * up.astype(np.float64) @ down.astype(np.float64)) ** 2).sum()
    assert found.merge is not None
    assert found.merge.blocks["M00"] == pytest.approx(np.sqrt(change / weight), rel=2e-3)
    assert found.merge.blocks["TE1"] == found.merge.blocks["TE2"] == 0.0


def test_a_recipes_loras_are_told_with_the_weights_it_gives_them(found: Audit) -> None:
    assert found.merge is not None
    (given,), (told,) = found.merge.fused_loras, found.merge.loras
    assert (given.path, given.weight, given.blocks) == ("mini:spo", 0.5, {"M00": 0.25})
    assert sum(told.applied.values()) == told.keys
    middle = [one for one in told.modules if "mid_block" in one.module]
    assert {one.weight for one in middle} == {0.25}
    assert {one.weight for one in told.modules if one not in middle} == {0.5}
    assert {one.relative_change for one in told.modules} == {None}


MERGE = """\
schema = 1
method = "weighted_sum"
models = ["inner.toml", "random:tiny"]
alpha = {alpha}
blocks = {{ M00 = 0.0 }}
vae = "random:tiny"
"""


def merged(folder: Path, alpha: float, dtype: str) -> MergeAudit:
    (folder / "inner.toml").write_text('schema = 1\nmethod = "copy"\nmodels = ["a.safetensors"]\n', encoding="utf-8")
    (folder / "r.toml").write_text(MERGE.format(alpha=alpha), encoding="utf-8")
    write_tiny(folder / "a.safetensors", 1)
    settings = msgspec.structs.replace(SETTINGS, dtype=dtype)
    variant = Variant(name="x", checkpoint=str(folder / "r.toml"))
    found = switch_variant(None, variant, settings, device="cpu", weights_dir=None)[1].merge
    assert found is not None
    return found


def test_a_merge_is_told_with_all_that_its_recipe_says(tmp_path: Path) -> None:
    found = merged(tmp_path, 0.25, "float32")
    assert (found.method, found.models, found.base) == ("weighted_sum", ("inner.toml", "random:tiny"), "a.safetensors")
    assert found.fields == {
        "alpha": 0.25,
        "blocks": {"M00": 0.0},
        "vae": "random:tiny",
        "recipes": {"inner.toml": {"method": "copy", "models": ["a.safetensors"]}},
    }
    assert found.blocks["M00"] == 0.0
    assert found.blocks["IN00"] > 0.1
    assert found.blocks["VAE"] > 0.1, "a VAE that is replaced is a change too"
    assert found.rounded_away == 0.0
    said = recipe_text(found)
    assert said.startswith(
        "Recipe: weighted_sum of inner.toml and random:tiny; alpha 0.25; blocks M00 0; vae random:tiny;"
    )


def test_what_a_merge_loses_to_rounding_is_told(tmp_path: Path) -> None:
    found = merged(tmp_path, 1e-4, "float16")
    assert found.rounded_away is not None
    assert 0.2 < found.rounded_away < 1.0


def test_any_other_checkpoint_has_no_merge() -> None:
    variant = Variant(name="x", checkpoint="mini")
    assert switch_variant(None, variant, SETTINGS, device="cpu", weights_dir=None)[1].merge is None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        SNAPSHOT.write_text(json.dumps(as_json(audit(Path(place))), indent=1) + "\n", encoding="utf-8")
