"""One loaded model, many variants: what was changed is put back to the last bit, and the audit says what was done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_recipe, write_tiny
from torch import Tensor

from bench.errors import SuiteError, WeightsError
from bench.mini import weights
from bench.pipeline import denoise as stages
from bench.pipeline.compiling import is_compiled
from bench.pipeline.switch import Model, apply_loras, load_model, load_pipeline, restore, switch_variant
from bench.records import Lora, Settings, Variant
from bench.render.unfused import compare_unfused
from bench.suite import load_suite

HALF = Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler="ddim", batch=2, dtype="bfloat16")
ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"


def variant(*loras: Lora, **fields: Any) -> Variant:
    return Variant(name="x", checkpoint="mini", loras=loras, **fields)


def mini(name: str, weight: float = 1.0, **fields: Any) -> Lora:
    return Lora(path=f"mini:{name}", weight=weight, **fields)


def state(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.parameters.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def loaded(request: pytest.FixtureRequest) -> Model:
    """The embedded checkpoint, stored in float16, run in a wider and in another precision."""
    settings = Settings(width=64, height=64, steps=2, guidance_scale=3.0, sampler="ddim", batch=2, dtype=request.param)
    return load_model(variant(), settings, device="cpu")


@pytest.fixture
def model(loaded: Model) -> Iterator[Model]:
    yield loaded
    restore(loaded)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch may use, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_weights_are_back_to_the_last_bit_after_100_changes(model: Model) -> None:
    before = state(model)
    kinds = itertools.cycle(
        [
            (variant(mini("spo")), {}),
            (variant(mini("dpo", -0.7), mini("spo", 1.3)), {}),
            (variant(mini("spo", 0.5), fuse=False), {}),
            (variant(mini("dpo", 1e-3, blocks={"M00": 2.0})), {}),
        ]
    )
    changed = 0
    changes = 100 if model.settings.dtype == "bfloat16" else 20  # where rounding could add up
    for one, flags in itertools.islice(kinds, changes):
        model, _ = switch_variant(model, one, model.settings, device="cpu", weights_dir=None, **flags)
        changed += not same(before, state(model))
        restore(model)
    assert changed == changes * 3 // 4
    assert same(before, state(model))
    assert not model.hooks
    assert not any(module._forward_hooks for module in model.pipe.unet.modules())


def test_a_variant_in_place_is_the_variant_loaded_for_itself(model: Model) -> None:
    chosen = variant(mini("dpo", 0.4), mini("spo", 0.9))
    switch_variant(model, variant(mini("spo", -2.0)), model.settings, device="cpu", weights_dir=None)
    switch_variant(model, chosen, model.settings, device="cpu", weights_dir=None)
    alone = load_pipeline(chosen, model.settings, device="cpu")
    theirs = alone.unet.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.pipe.unet.state_dict().items())


class OnCard(Tensor):
    """A tensor that says it lies on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:0")


@pytest.mark.parametrize(("free_gib", "pins"), [(7.9, True), (8.1, False)])
def test_on_a_gpu_that_is_short_the_kept_weights_are_pinned_and_put_back_without_waiting(
    free_gib: float, pins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = msgspec.structs.replace(HALF, dtype="float16")
    model = load_model(variant(), settings, device="cpu")
    model.parameters = {name: value.as_subclass(OnCard) for name, value in model.parameters.items()}
    before, pinned, waits = state(model), [], []
    empty, copy, to = torch.empty, Tensor.copy_, Tensor.to

    def pin(shape: Any, *, dtype: torch.dtype, pin_memory: bool = False) -> Tensor:
        made = empty(shape, dtype=dtype)
        pinned.extend([made] if pin_memory else [])
        return made

    def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if isinstance(target, OnCard) and any(source is one for one in model.original.values()):
            waits.append(not non_blocking)
        plain = source.as_subclass(Tensor) if type(target) is Tensor else source
        return copy(target, plain, non_blocking=non_blocking)

    def moved(tensor: Tensor, *where: Any, **options: Any) -> Tensor:
        if where == (torch.device("cuda:0"),):
            return tensor.as_subclass(OnCard)
        return to(tensor, *where, **options)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free_gib * 2**30), 80 * 2**30))
    monkeypatch.setattr(torch, "empty", pin)
    monkeypatch.setattr(Tensor, "copy_", copy_)
    monkeypatch.setattr(Tensor, "to", moved)
    apply_loras(model, variant(mini("spo")), None, keep=True)
    assert not same(before, state(model))
    assert len(model.original) == len(model.modified) > 0
    assert [any(kept is one for one in pinned) for kept in model.original.values()] == [pins] * len(model.original)
    restore(model)
    assert same(before, state(model))
    assert len(waits) >= len(model.original)
    assert not any(waits)


def test_weights_are_computed_in_float32_and_cast_once() -> None:
    model = load_model(variant(), HALF, device="cpu")
    switch_variant(model, variant(mini("dpo", 0.3), mini("spo", 0.3)), HALF, device="cpu", weights_dir=None)
    stored = load_file(weights.pipeline_folder() / "unet" / "diffusion_pytorch_model.safetensors")
    pairs = [
        {key: value.float() for key, value in load_file(weights.lora_file(name)).items()} for name in ("dpo", "spo")
    ]
    modules = sorted({key.rsplit(".lora_", 1)[0] for key in pairs[0]})
    for module in modules:
        expected = stored[f"{module.removeprefix('unet.')}.weight"].double()
        for pair in pairs:
            expected = expected + 0.3 * (
                pair[f"{module}.lora_B.weight"].double() @ pair[f"{module}.lora_A.weight"].double()
            )
        differ = model.parameters[f"{module}.weight"] != expected.bfloat16()
        assert differ.double().mean() < 2e-3, "rounding twice makes several per cent of them others"


def test_weights_and_audit_are_the_same_whatever_the_threads(model: Model, threads: Callable[[int], None]) -> None:
    chosen, found = variant(mini("dpo", 0.4), mini("spo", 0.9)), []
    for number in (1, 2, 5):
        threads(number)
        _, audit = switch_variant(model, chosen, model.settings, device="cpu", weights_dir=None)
        assert torch.get_num_threads() == number
        found.append((state(model), audit))
    assert all(same(found[0][0], weights) and found[0][1] == audit for weights, audit in found[1:])


@pytest.mark.parametrize("fuse", [True, False])
def test_what_is_wrong_in_one_of_the_threads_is_told(
    fuse: bool, model: Model, threads: Callable[[int], None], tmp_path: Path
) -> None:
    lora = load_file(weights.lora_file("spo"))
    lora[min(lora)][0, 0] = torch.nan
    save_file(lora, tmp_path / "bad.safetensors")
    threads(2)
    bad = variant(Lora(path=str(tmp_path / "bad.safetensors")), fuse=fuse)
    with pytest.raises(WeightsError, match="not finite"):
        switch_variant(model, bad, model.settings, device="cpu", weights_dir=None)
    assert torch.get_num_threads() == 2


def test_another_checkpoint_is_loaded_anew(settings: Settings, mini_copy: Path) -> None:
    model = load_model(variant(), settings, device="cpu")
    other = Variant(name="y", checkpoint=str(mini_copy))
    found, _ = switch_variant(model, other, model.settings, device="cpu", weights_dir=None)
    assert found is not model
    assert switch_variant(found, other, model.settings, device="cpu", weights_dir=None)[0] is found


# --- weights of components and blocks ------------------------------------------------------


def changed_blocks(model: Model, lora: Lora) -> dict[str, float]:
    audit = switch_variant(model, variant(lora), model.settings, device="cpu", weights_dir=None)[1]
    return {name: change for name, change in audit.blocks.items() if change}


def test_a_block_has_its_own_weight(model: Model) -> None:
    everywhere = changed_blocks(model, mini("spo"))
    assert set(changed_blocks(model, mini("spo", 0.0, blocks={"M00": 1.0}))) == {"M00"}
    assert set(changed_blocks(model, mini("spo", 1.0, blocks={"M00": 0.0}))) == set(everywhere) - {"M00"}
    assert changed_blocks(model, mini("spo", 0.0, unet=1.0)) == everywhere
    assert changed_blocks(model, mini("spo", 5.0, unet=0.5, text_encoder=3.0)) == pytest.approx(
        {name: change / 2 for name, change in everywhere.items()}, rel=0.05
    )


def test_a_block_that_the_unet_has_not(model: Model) -> None:
    with pytest.raises(SuiteError, match=r"loras\[0\].*'IN99' is not a block"):
        apply_loras(model, variant(mini("spo", blocks={"IN99": 1.0})), None, keep=True)


# --- unfused --------------------------------------------------------------------


def test_unfused_loras_leave_the_weights_alone_and_draw_nearly_the_same(settings: Settings) -> None:
    model = load_model(variant(), settings, device="cpu")
    before = state(model)
    inputs = torch.randn(3, 5, 192, generator=torch.Generator().manual_seed(1))
    module = model.pipe.unet.get_submodule(f"{ATTENTION.removeprefix('unet.')}.to_k")
    plain = module(inputs)
    apply_loras(model, variant(mini("spo", 0.8), mini("dpo", -0.5), fuse=False), None, keep=True)
    assert same(before, state(model))
    unfused = module(inputs)
    restore(model)
    assert torch.equal(module(inputs), plain)
    apply_loras(model, variant(mini("spo", 0.8), mini("dpo", -0.5)), None, keep=True)
    torch.testing.assert_close(unfused, module(inputs), rtol=0, atol=2e-5)
    assert float((unfused - plain).abs().max()) > 1e-3


def test_what_is_no_plain_product_can_only_be_fused(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    shape = load_file(weights.pipeline_folder() / "unet" / "diffusion_pytorch_model.safetensors")[
        "conv_in.weight"
    ].shape
    save_file({"lora_unet_conv_in.diff": torch.ones(shape)}, path)
    model = load_model(variant(), settings, device="cpu")
    with pytest.raises(WeightsError, match=r"full.safetensors: 1 of its changes can only be fused"):
        apply_loras(model, variant(Lora(path=str(path)), fuse=False), None, keep=True)
    apply_loras(model, variant(Lora(path=str(path))), None, keep=True)


# --- the audit -----------------------------------------------------------------------------


def test_the_audit_has_the_norms_of_an_independent_computation(settings: Settings) -> None:
    model = load_model(variant(), settings, device="cpu")
    audit = apply_loras(model, variant(mini("spo", 0.8)), None, keep=True)
    stored = load_file(weights.pipeline_folder() / "unet" / "diffusion_pytorch_model.safetensors")
    pairs = {key: value.double() for key, value in load_file(weights.lora_file("spo")).items()}
    (lora,) = audit.loras
    assert (lora.path, lora.keys, lora.applied) == ("mini:spo", len(pairs), {"unet": len(pairs)})
    assert len(lora.modules) == len(pairs) // 2
    for one in lora.modules:
        added = 0.8 * pairs[f"{one.module}.lora_B.weight"] @ pairs[f"{one.module}.lora_A.weight"]
        weight = stored[f"{one.module.removeprefix('unet.')}.weight"].double()
        assert one.relative_change == pytest.approx(float(added.norm() / weight.norm()), rel=1e-4)
        assert (one.kind, one.dora, one.rank, one.scale, one.weight) == ("lora", False, 8, 0.8, 0.8)
        assert one.rounded_away == pytest.approx(0, abs=0.02)
    assert audit.checkpoint.layout == "diffusers"
    assert audit.checkpoint.family == "sdxl"


def test_small_changes_are_rounded_away_and_counted() -> None:
    model = load_model(variant(), HALF, device="cpu")
    audit = apply_loras(model, variant(mini("spo", 0.02)), None, keep=True)
    shares = [one.rounded_away for one in audit.loras[0].modules]
    assert all(share is not None and 0.5 < share < 1 for share in shares)


@pytest.mark.parametrize("fuse", [True, False])
def test_what_runs_unfused_is_not_rounded_into_the_weights(fuse: bool) -> None:
    model = load_model(variant(), HALF, device="cpu")
    audit = apply_loras(model, variant(mini("spo", 0.02), fuse=fuse), None, keep=True)
    shares = [one.rounded_away or 0.0 for one in audit.loras[0].modules]
    assert (max(shares) > 0.5) is fuse


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("weight", [900.0, -900.0])
def test_a_change_that_overflows_is_refused(weight: float, keep: bool, tmp_path: Path) -> None:
    """Each number of the file is finite; what they make of a weight is not, in the precision that is run and stored."""
    large = {key: value * (1e4 if "lora_B" in key else 1) for key, value in load_file(weights.lora_file("spo")).items()}
    path = tmp_path / "large.safetensors"
    save_file(large, path)
    settings = msgspec.structs.replace(HALF, dtype="float16")
    model = load_model(variant(), settings, device="cpu")
    before = state(model)
    with pytest.raises(WeightsError, match=r"large\.safetensors: at the weights .* overflow float16") as caught:
        apply_loras(model, variant(Lora(path=str(path), weight=weight)), None, keep=keep)
    assert caught.value.exit_code == 3
    if keep:
        restore(model)
        assert same(before, state(model))


@pytest.fixture
def spoilt(mini_copy: Path) -> Path:
    """The embedded checkpoint with two numbers that are none, in a tensor that its LoRAs change."""
    file = mini_copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors[f"{ATTENTION.removeprefix('unet.')}.to_q.weight"].view(-1)[[3, 5]] = float("nan")
    save_file(tensors, file)
    return mini_copy


def test_what_is_not_finite_in_a_checkpoint_is_counted(spoilt: Path) -> None:
    one = Variant(name="x", checkpoint=str(spoilt))
    _, audit = switch_variant(None, one, HALF, device="cpu", weights_dir=None)
    assert audit.non_finite == {f"{ATTENTION}.to_q.weight": 2}
    _, audit = switch_variant(None, variant(), HALF, device="cpu", weights_dir=None)
    assert audit.non_finite == {}


def test_the_checkpoint_is_blamed_for_what_it_brings(spoilt: Path) -> None:
    one = Variant(name="x", checkpoint=str(spoilt), loras=(mini("spo"),))
    with pytest.raises(WeightsError, match=rf"elsewhere: {ATTENTION}\.to_q\.weight holds values that are not finite"):
        switch_variant(None, one, HALF, device="cpu", weights_dir=None)


# --- recipes -------------------------------------------------------------------------------

COPY = """method = "copy"
models = ["{model}"]
loras = [{{ path = "mini:spo", weight = {weight} }}]
"""


def test_a_recipe_is_audited_wherever_it_stands(mini_copy: Path, tmp_path: Path) -> None:
    """As the checkpoint, beside a replaced VAE, as the UNet alone, and as a model of another recipe."""
    recipe = str(write_recipe(tmp_path / "r.toml", COPY.format(model="mini", weight=0.5)))
    outer = str(write_recipe(tmp_path / "outer.toml", 'method = "copy"\nmodels = ["r.toml"]\n'))
    places = {
        "alone": Variant(name="x", checkpoint=recipe),
        "vae": Variant(name="x", checkpoint=recipe, vae=str(mini_copy / "vae")),
        "unet": Variant(name="x", checkpoint="mini", unet=recipe),
        "nested": Variant(name="x", checkpoint=outer),
    }
    found = {name: switch_variant(None, one, HALF, device="cpu", weights_dir=None)[1] for name, one in places.items()}
    expected = found["alone"].merge
    assert expected is not None
    assert (expected.base, [lora.path for lora in expected.fused_loras]) == ("mini", ["mini:spo"])
    assert expected.blocks["M00"] > 0
    assert expected.blocks["VAE"] == 0
    for name, audit in found.items():
        assert audit.merge is not None, name
        unet = {block: size for block, size in expected.blocks.items() if block not in ("TE1", "TE2", "VAE")}
        assert {block: audit.merge.blocks[block] for block in unet} == unet, name
        assert audit.merge.fused_loras == expected.fused_loras, name
        assert audit.merge.base == "mini", name


def test_a_lora_on_a_recipes_unet_starts_from_what_was_computed(tmp_path: Path) -> None:
    """In half precision the recipe's own result is rounded once, not once before the LoRA and once after it."""
    recipe = str(write_recipe(tmp_path / "r.toml", COPY.format(model="mini", weight=0.3)))
    whole = switch_variant(
        None, Variant(name="x", checkpoint=recipe, loras=(mini("dpo", 0.4),)), HALF, device="cpu", weights_dir=None
    )[0]
    unet = switch_variant(
        None,
        Variant(name="x", checkpoint="mini", unet=recipe, loras=(mini("dpo", 0.4),)),
        HALF,
        device="cpu",
        weights_dir=None,
    )[0]
    assert same(state(whole), state(unet))


@pytest.mark.parametrize("kind", ["zeros", "nan"])
def test_a_lora_that_is_all_zero_or_not_finite(kind: str, settings: Settings, tmp_path: Path) -> None:
    pairs = load_file(weights.lora_file("spo"))
    spoilt = {
        key: value * (0 if kind == "zeros" else float("nan")) if "lora_B" in key else value
        for key, value in pairs.items()
    }
    path = tmp_path / "spoilt.safetensors"
    save_file(spoilt, path)
    model = load_model(variant(), settings, device="cpu")
    said = "changes nothing" if kind == "zeros" else "not finite"
    with pytest.raises(WeightsError, match=said) as caught:
        apply_loras(model, variant(Lora(path=str(path))), None, keep=True)
    assert caught.value.exit_code == 3


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two single files of one shape and other weights."""
    place = tmp_path_factory.mktemp("checkpoints")
    return write_tiny(place / "a.safetensors", 1), write_tiny(place / "b.safetensors", 2)


def test_another_checkpoint_of_the_same_shape_fills_the_networks_that_are_loaded(checkpoints) -> None:
    a, b = (Variant(name="x", checkpoint=str(path)) for path in checkpoints)
    model, _ = switch_variant(None, a, HALF, device="cpu", weights_dir=None)
    networks = {part: getattr(model.pipe, part) for part in ("unet", "vae", "text_encoder", "text_encoder_2")}
    old = model
    for variant_, other in ((b, a), (a, b), (b, a)):
        model, _ = switch_variant(model, variant_, HALF, device="cpu", weights_dir=None)
        assert {part: getattr(model.pipe, part) for part in networks} == networks
        assert same(state(model), state(load_model(variant_, HALF, device="cpu")))
        assert not same(state(model), state(load_model(other, HALF, device="cpu")))
    assert (old.pipe, old.parameters, old.original) == (None, {}, {}), "it keeps no memory"


def test_an_unfused_lora_does_not_stay_with_the_networks(checkpoints) -> None:
    a = Variant(name="x", checkpoint=str(checkpoints[0]))
    first, _ = switch_variant(None, variant(mini("spo"), fuse=False), HALF, device="cpu", weights_dir=None)
    hooks = list(first.hooks)
    assert hooks
    model, _ = switch_variant(first, a, HALF, device="cpu", weights_dir=None)
    assert not first.hooks
    assert same(state(model), state(load_model(a, HALF, device="cpu")))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The graphs that were compiled, by a backend that runs them as they are."""
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    real, whole = UNet2DConditionModel.compile_repeated_blocks, torch.nn.Module.compile
    monkeypatch.setattr(
        UNet2DConditionModel, "compile_repeated_blocks", lambda unet, **given: real(unet, backend=backend, **given)
    )
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **given: whole(module, **{"backend": backend, **given})
    )
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


COMPILED = Settings(width=64, height=64, steps=1, guidance_scale=1.0, sampler="ddim", batch=1, compile=True)


def drawn(model: Model, images: int = 1) -> torch.Tensor:
    """Latents of so many foxes after a step."""
    encoded = stages.encode(model.pipe, ["a fox"] * images, [""] * images, COMPILED)
    seeds = list(range(images))
    return stages.denoise(model.pipe, COMPILED, encoded, stages.noise(model.pipe, COMPILED, seeds), seeds)


def test_what_is_compiled_is_compiled_once_for_all_checkpoints_of_a_shape(checkpoints, compiled) -> None:
    model, latents, counts = None, [], []
    for path in (*checkpoints, checkpoints[0]):
        model, _ = switch_variant(
            model, Variant(name="x", checkpoint=str(path)), COMPILED, device="cpu", weights_dir=None
        )
        latents.append(drawn(model))
        counts.append(len(compiled))
    assert counts[0] > 0
    assert counts == [counts[0]] * 3
    assert torch.equal(latents[0], latents[2])
    assert not torch.equal(latents[0], latents[1])


def test_a_batch_of_another_size_is_compiled_for_itself_and_changes_no_other(checkpoints, compiled) -> None:
    """As the last batch of a run is: what was drawn before it must not be told from its bytes."""
    model, _ = switch_variant(
        None, Variant(name="x", checkpoint=str(checkpoints[0])), COMPILED, device="cpu", weights_dir=None
    )
    first, one = drawn(model, 1), len(compiled)
    drawn(model, 3)
    assert len(compiled) == 2 * one
    drawn(model, 2)
    assert len(compiled) == 3 * one, "no size is left open"
    assert all(not [size for size in sizes_of(graph) if isinstance(size, torch.SymInt)] for graph in compiled)
    assert torch.equal(drawn(model, 1), first)
    assert len(compiled) == 3 * one


def sizes_of(graph: Any) -> list[object]:
    """Every size of what a graph takes."""
    values = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
    return [size for value in values if isinstance(value, torch.Tensor) for size in value.shape]


def test_an_unfused_lora_is_seen_although_blocks_are_compiled(compiled) -> None:
    model, _ = switch_variant(None, variant(), COMPILED, device="cpu", weights_dir=None)
    base, graphs = drawn(model), len(compiled)
    assert graphs > 0
    model, _ = switch_variant(model, variant(mini("spo", 8), fuse=False), COMPILED, device="cpu", weights_dir=None)
    unfused = drawn(model)
    model, _ = switch_variant(model, variant(mini("spo", 8)), COMPILED, device="cpu", weights_dir=None)
    fused = drawn(model)
    torch.testing.assert_close(unfused, fused, rtol=0, atol=1e-4)
    assert float((unfused - base).abs().max()) > 1e-3
    model, _ = switch_variant(model, variant(), COMPILED, device="cpu", weights_dir=None)
    assert torch.equal(drawn(model), base)
    assert len(compiled) == graphs, "nothing was compiled anew"


def test_fused_and_unfused_are_compared_without_what_is_compiled(compiled) -> None:
    suite = msgspec.structs.replace(load_suite("mini"), settings=COMPILED)
    for fuse in (True, False):
        wanted = variant(mini("spo"), fuse=fuse)
        model, _ = switch_variant(None, wanted, COMPILED, device="cpu", weights_dir=None)
        found = compare_unfused(model, wanted, suite)
        assert found is not None
        assert found.mean < 0.1
        assert not compiled
        assert is_compiled(model.pipe.unet) is fuse, "a variant unfused is drawn as it is written"
        torch._dynamo.reset()
    drawn(model)
    assert not compiled
    restore(model)
    drawn(model)
    assert compiled


WHOLE = msgspec.structs.replace(COMPILED, compile="whole")


def test_the_whole_unet_and_the_decoder_are_a_graph_each_for_every_shape(compiled) -> None:
    model, _ = switch_variant(None, variant(), WHOLE, device="cpu", weights_dir=None)
    as_written = load_model(variant(), msgspec.structs.replace(WHOLE, compile=False), device="cpu")
    for images, graphs in ((1, 2), (2, 4), (1, 4)):
        latents = drawn(model, images)
        assert torch.equal(latents, drawn(as_written, images)), "by a backend that runs graphs as they are"
        pixels = stages.decode(model.pipe, latents)
        assert (pixels == stages.decode(as_written.pipe, latents)).all()
        assert len(compiled) == graphs
    assert all(not [size for size in sizes_of(graph) if isinstance(size, torch.SymInt)] for graph in compiled)


def test_what_is_compiled_whole_follows_changed_weights_and_steps_aside_for_unfused_ones(compiled) -> None:
    model, _ = switch_variant(None, variant(), WHOLE, device="cpu", weights_dir=None)
    base, graphs = drawn(model), len(compiled)
    assert graphs == 1
    model, _ = switch_variant(model, variant(mini("spo", 8)), WHOLE, device="cpu", weights_dir=None)
    fused = drawn(model)
    assert float((fused - base).abs().max()) > 1e-3
    model, _ = switch_variant(model, variant(mini("spo", 8), fuse=False), WHOLE, device="cpu", weights_dir=None)
    torch.testing.assert_close(drawn(model), fused, rtol=0, atol=1e-4)
    assert not is_compiled(model.pipe.unet)
    assert is_compiled(model.pipe.vae), "no LoRA reaches it"
    model, _ = switch_variant(model, variant(), WHOLE, device="cpu", weights_dir=None)
    assert torch.equal(drawn(model), base)
    assert len(compiled) == graphs, "nothing was compiled anew"


def test_networks_that_are_taken_over_stay_compiled_whole(checkpoints, compiled) -> None:
    model = None
    for path in checkpoints:
        model, _ = switch_variant(model, Variant(name="x", checkpoint=str(path)), WHOLE, device="cpu", weights_dir=None)
        stages.decode(model.pipe, drawn(model))
        assert len(compiled) == 2
