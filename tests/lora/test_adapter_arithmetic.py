"""The arithmetic of every kind, against lycoris's own and against sums written out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Weights, checkpoint, lora, random, save, shapes
from kinds_of_lycoris import ALPHA, CONV, LINEAR, POINT, RANK, low_rank, shape
from lycoris.functional import lokr, weight_decompose
from lycoris.modules.locon import LoConModule
from lycoris.modules.lokr import LokrModule

from bench.errors import WeightsError
from bench.lora.algorithms import Change, changed, delta
from bench.lora.apply import AdapterParts
from bench.lora.parse import read_adapter
from bench.records.weights import ChangeKind

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def read(
    folder: Path, module: str, parts: Weights, alpha: float | None = ALPHA
) -> tuple[Change, Weights, torch.Tensor]:
    """The change that parts of one module make, its tensors, and the weight that it is for."""
    name = f"lora_unet_{module.removeprefix('unet.').replace('.', '_')}"
    tensors = {f"{name}.{role}": tensor for role, tensor in parts.items()}
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    adapter = read_adapter(save(folder, tensors), shapes(checkpoint("sdxl")))
    (change,) = adapter.changes
    assert change.tensor == f"{module}.weight"
    read = AdapterParts(adapter.path)
    return change, read.of(change), checkpoint("sdxl")[change.tensor]


@pytest.mark.parametrize(
    ("module", "kind", "recorded"),
    [
        (LINEAR, "lora", "lora"),
        (CONV, "lora", "lora"),
        (POINT, "lora", "lora"),
        (CONV, "tucker", "tucker"),
        (LINEAR, "loha", "loha"),
        (CONV, "loha", "loha"),
        (CONV, "loha tucker", "loha"),
    ],
)
def test_low_rank_kinds_are_lycoris_s(module: str, kind: str, recorded: ChangeKind, tmp_path: Path) -> None:
    parts, theirs = low_rank(module, kind)
    change, tensors, weight = read(tmp_path, module, parts)
    assert change[1:6] == (recorded, False, RANK, ALPHA, ALPHA / RANK)
    torch.testing.assert_close(delta(change, tensors, weight.shape), theirs.reshape(weight.shape), **CLOSE)
    torch.testing.assert_close(
        changed(change, weight, tensors, 0.5), weight + 0.5 * theirs.reshape(weight.shape), **CLOSE
    )


def kron_parts(module: str, first: str, second: str) -> tuple[Weights, list[torch.Tensor | None]]:
    """Parts of a LoKr, and lycoris's list of them: w1, w1a, w1b, w2, w2a, w2b, t2."""
    out, into, *kernel = shape(module)
    a, c, b, d = 2, 4, out // 2, into // 4
    whole1, pair1 = random(a, c), (random(a, RANK), random(RANK, c))
    whole2 = random(b, d, *kernel)
    pair2 = (random(b, RANK), random(RANK, d, *kernel))
    tucker = (random(RANK, b), random(RANK, d), random(RANK, RANK, *kernel))
    parts: Weights = {}
    theirs: list[torch.Tensor | None] = [None] * 7
    if first == "whole":
        parts["lokr_w1"] = theirs[0] = whole1
    else:
        parts["lokr_w1_a"], parts["lokr_w1_b"] = theirs[1:3] = pair1
    if second == "whole":
        parts["lokr_w2"] = theirs[3] = whole2
    elif second == "pair":
        theirs[4:6] = pair2
        parts["lokr_w2_a"], parts["lokr_w2_b"] = pair2[0], pair2[1].flatten(1)
    else:
        parts["lokr_w2_a"], parts["lokr_w2_b"], parts["lokr_t2"] = theirs[4:7] = tucker
    return parts, theirs


@pytest.mark.parametrize("first", ["whole", "pair"])
@pytest.mark.parametrize(
    ("module", "second"), [(LINEAR, "whole"), (LINEAR, "pair"), (CONV, "whole"), (CONV, "pair"), (CONV, "tucker")]
)
def test_every_lokr_is_lycoris_s(module: str, first: str, second: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    parts, theirs = kron_parts(module, first, second)
    change, tensors, weight = read(tmp_path, module, parts)
    whole = (first, second) == ("whole", "whole")
    assert change[1:6] == ("lokr", False, None if whole else RANK, ALPHA, 1.0 if whole else ALPHA / RANK)
    # Not its diff_weight, which takes the wrong side of a Tucker factor for the rank; its modules do not.
    wanted = lokr.kron_weight(*theirs, scale=change.scale)
    torch.testing.assert_close(delta(change, tensors, weight.shape), wanted.reshape(weight.shape), **CLOSE)


@pytest.mark.parametrize("alpha", [float("inf"), 65_504.0, 0.0, None])
def test_the_alpha_of_two_whole_factors_means_1_whatever_it_is(alpha: float | None, tmp_path: Path) -> None:
    parts, theirs = kron_parts(LINEAR, "whole", "whole")
    change, tensors, weight = read(tmp_path, LINEAR, parts, alpha)
    assert change.scale == 1.0
    torch.testing.assert_close(delta(change, tensors, weight.shape), lokr.kron_weight(*theirs, scale=1.0), **CLOSE)


def test_the_alpha_of_factors_of_a_rank_must_be_finite(tmp_path: Path) -> None:
    parts, _ = kron_parts(LINEAR, "whole", "pair")
    with pytest.raises(WeightsError, match=r"an alpha that is not finite.*\(inf\)"):
        read(tmp_path, LINEAR, parts, float("inf"))
    parts, _ = kron_parts(LINEAR, "whole", "whole")
    with pytest.raises(WeightsError, match=r"an alpha that is not finite.*\(nan\)"):
        read(tmp_path, LINEAR, parts, float("nan"))


@pytest.mark.parametrize("module", [LINEAR, CONV])
@pytest.mark.parametrize("per_output", [True, False])
@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_dora_is_lycoris_s_and_is_mixed_with_the_weight(
    module: str, per_output: bool, kind: str, tmp_path: Path
) -> None:
    parts, added = low_rank(module, kind)
    out, into, *kernel = shape(module)
    norms = torch.rand(*((out, 1) if per_output else (1, into)), *(1 for _ in kernel)) + 0.5
    change, tensors, weight = read(tmp_path, module, parts | {"dora_scale": norms})
    assert change.dora
    full = weight_decompose(weight + added.reshape(weight.shape), norms, 1, per_output)
    torch.testing.assert_close(changed(change, weight, tensors, 1.0), full, **CLOSE)
    for strength in (-0.5, 0.25, 1.5):
        mixed = weight + strength * (full - weight)
        torch.testing.assert_close(changed(change, weight, tensors, strength), mixed, **CLOSE)


def test_the_norms_of_square_weights_are_told_by_their_shape(tmp_path: Path) -> None:
    parts, _ = low_rank(LINEAR, "lora")
    width = shape(LINEAR)[0]
    assert shape(LINEAR) == (width, width)
    norms = torch.rand(width) + 0.5
    for spread, axis in ((norms[:, None], 1), (norms[None], 0)):
        change, tensors, weight = read(tmp_path, LINEAR, parts | {"dora_scale": spread})
        found = changed(change, weight, tensors, 1.0)
        torch.testing.assert_close(found.norm(dim=axis), norms, **CLOSE)


def test_a_row_of_zeros_stays_one_under_dora(tmp_path: Path) -> None:
    parts, _ = low_rank(LINEAR, "lora")
    parts["lora_up.weight"][3] = 0
    change, tensors, weight = read(tmp_path, LINEAR, parts | {"dora_scale": torch.ones(shape(LINEAR)[0], 1)})
    weight = weight.clone()
    weight[3] = 0
    assert not changed(change, weight, tensors, 1.0)[3].any()


def test_tucker_and_kron_written_out(tmp_path: Path) -> None:
    parts, _ = low_rank(CONV, "tucker")
    change, tensors, weight = read(tmp_path, CONV, parts)
    up, down, mid = (parts[f"lora_{name}.weight"].numpy().astype(np.float64) for name in ("up", "down", "mid"))
    wanted = np.zeros(weight.shape)
    for p in range(RANK):
        for q in range(RANK):
            wanted += np.multiply.outer(np.multiply.outer(up[:, p, 0, 0], down[q, :, 0, 0]), mid[p, q])
    np.testing.assert_allclose(delta(change, tensors, weight.shape), wanted * ALPHA / RANK, rtol=1e-4, atol=1e-6)

    parts, _ = kron_parts(CONV, "whole", "whole")
    change, tensors, weight = read(tmp_path, CONV, parts)
    first, second = parts["lokr_w1"].numpy(), parts["lokr_w2"].numpy()
    wanted = np.zeros(weight.shape)
    for o in range(weight.shape[0]):
        for i in range(weight.shape[1]):
            b, d = second.shape[:2]
            wanted[o, i] = first[o // b, i // d] * second[o % b, i % d]
    np.testing.assert_allclose(delta(change, tensors, weight.shape), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("tensor", "role", "kind"),
    [
        (f"{CONV}.weight", "diff", "diff"),
        (f"{CONV}.bias", "diff_b", "bias"),
        ("unet.conv_norm_out.weight", "w_norm", "norm"),
        ("unet.conv_norm_out.bias", "b_norm", "norm"),
        ("text_encoder_2.text_model.final_layer_norm.bias", "b_norm", "norm"),
    ],
)
def test_differences_are_added_whatever_alpha_stands_beside_them(
    tensor: str, role: str, kind: ChangeKind, tmp_path: Path
) -> None:
    weight = checkpoint("sdxl")[tensor]
    added = random(*weight.shape)
    path = save(tmp_path, {f"{tensor.rpartition('.')[0]}.{role}": added})
    (change,) = read_adapter(path, shapes(checkpoint("sdxl"))).changes
    assert change[:6] == (tensor, kind, False, None, None, 1.0)
    parts = AdapterParts(path)
    assert torch.equal(changed(change, weight, parts.of(change), 1.0), weight + added)


def test_all_parts_of_a_full_difference_are_applied(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    name = "lora_unet_" + CONV.removeprefix("unet.").replace(".", "_")
    tensors = {f"{name}.diff": random(*shape(CONV)), f"{name}.diff_b": random(shape(CONV)[0])}
    adapter = read_adapter(save(tmp_path, tensors | {f"{name}.alpha": torch.tensor(0.5)}), shapes(weights))
    assert [(change.tensor, change.scale) for change in adapter.changes] == [(f"{CONV}.bias", 1), (f"{CONV}.weight", 1)]
    assert adapter.applied == {"unet": 3}


def test_a_point_convolution_and_a_linear_layer_take_each_other_s_loras(tmp_path: Path) -> None:
    parts, theirs = low_rank(POINT, "lora")
    flat = {role: part.flatten(1) for role, part in parts.items()}
    change, tensors, weight = read(tmp_path, POINT, flat)
    torch.testing.assert_close(delta(change, tensors, weight.shape), theirs.reshape(weight.shape), **CLOSE)
    parts, theirs = low_rank(LINEAR, "lora")
    spread = {role: part[:, :, None, None] for role, part in parts.items()}
    change, tensors, weight = read(tmp_path, LINEAR, spread)
    torch.testing.assert_close(delta(change, tensors, weight.shape), theirs, **CLOSE)


def test_no_alpha_means_the_rank(tmp_path: Path) -> None:
    parts, theirs = low_rank(LINEAR, "lora")
    change, tensors, weight = read(tmp_path, LINEAR, parts, alpha=None)
    assert (change.alpha, change.scale) == (None, 1.0)
    torch.testing.assert_close(delta(change, tensors, weight.shape), theirs * RANK / ALPHA, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
def test_stored_precision_and_alpha_in_any_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = checkpoint("sdxl")[f"{LINEAR}.weight"]
    tensors = {key: tensor.to(dtype) for key, tensor in lora(LINEAR, weight, alpha=1.5).items()}
    (change,) = read_adapter(save(tmp_path, tensors), shapes(checkpoint("sdxl"))).changes
    assert (change.alpha, change.scale) == (1.5, 0.75)
    parts = AdapterParts(tmp_path / "lora.safetensors")
    found = delta(change, parts.of(change), weight.shape)
    wanted = 0.75 * tensors[f"{LINEAR}.lora_up.weight"].double() @ tensors[f"{LINEAR}.lora_down.weight"].double()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, **CLOSE)


def test_an_alpha_may_be_a_whole_number(tmp_path: Path) -> None:
    weight = checkpoint("sdxl")[f"{LINEAR}.weight"]
    tensors = lora(LINEAR, weight) | {f"{LINEAR}.alpha": torch.tensor([3])}
    (change,) = read_adapter(save(tmp_path, tensors), shapes(checkpoint("sdxl"))).changes
    assert (change.alpha, change.scale) == (3, 1.5)


@pytest.mark.parametrize("kind", [LoConModule, LokrModule])
def test_lycoris_writes_rslora_so_that_alpha_over_rank_is_the_scale(kind: type[LoConModule], tmp_path: Path) -> None:
    weight = checkpoint("sdxl")[f"{LINEAR}.weight"]
    layer = torch.nn.Linear(*reversed(weight.shape))
    module = kind("x", layer, 1.0, RANK if kind is LoConModule else 1, ALPHA, rs_lora=True)
    for part in module.parameters():
        torch.nn.init.normal_(part)
    parts = {role: tensor.detach() for role, tensor in module.custom_state_dict().items() if role != "alpha"}
    alpha = float(module.custom_state_dict()["alpha"])
    change, tensors, _ = read(tmp_path, LINEAR, parts, alpha)
    x = torch.randn(3, weight.shape[1])
    module.eval()
    theirs = module(x) - layer(x)
    torch.testing.assert_close(x @ delta(change, tensors, weight.shape).T, theirs, rtol=1e-4, atol=1e-5)
