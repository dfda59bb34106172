"""The estimate of memory against what an H100 and a CPU took, and against what it must obey whatever the numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from fakes import make_run
from hypothesis import given
from hypothesis import strategies as st

from bench.checkpoints.fingerprint import Needed, weights_needed
from bench.checkpoints.random_weights import open_random
from bench.mini.weights import pipeline_folder
from bench.pipeline import switch as models
from bench.pipeline.switch import switch_variant
from bench.plan import memory
from bench.plan.memory import (
    GIB,
    KNOWN_VAES,
    SD15,
    SDXL,
    Load,
    Parts,
    estimate_memory,
    lora_bytes,
    parts_of,
    peaks,
    unet_activations,
    vae_activations,
)
from bench.records import Lora, Machine, MemoryEstimate, Prompt, Run, Settings, Suite, Timing, TimingName, Variant
from bench.render import auto_batch as fitting

replace = msgspec.structs.replace
FULL = Settings(width=1024, height=1024, steps=30, guidance_scale=7.0, sampler="euler", dtype="float16")
FIXED = SDXL._replace(**KNOWN_VAES["madebyollin/sdxl-vae-fp16-fix"])
UNET_ALONE = SDXL._replace(text_parameters=0, vae_parameters=0)


def machine(gib: float, device: str = "cuda:0") -> Machine:
    on_gpu = gib * GIB if device != "cpu" else None
    return Machine(
        os="Linux", cpu="A CPU", cores=16, memory_bytes=round(gib * GIB), device=device, device_name="A GPU",
        device_memory_bytes=None if on_gpu is None else round(on_gpu),
    )  # fmt: skip


def needed_bytes(parts: Parts, settings: Settings) -> int:
    return Load("base", parts, 0, 0, True, "cuda:0", 0).needed(settings)


def suite(settings: Settings = FULL, **variant: str) -> Suite:
    made = Variant(name="base", **({"checkpoint": "stabilityai/stable-diffusion-xl-base-1.0"} | variant))  # type: ignore[arg-type]
    fields = {"prompt_files": (), "prompts": (), "samples": 1, "seed": 0, "metrics": ()}
    return Suite(schema=2, name="own", settings=settings, variants=(made,), **fields)


# --- measured on an H100 80GB, SDXL's shape, 1024x1024 (docs/performance.md) ---------------


@pytest.mark.parametrize(("batch", "gib"), [(1, 5.2), (8, 7.4)])
def test_denoising_takes_what_the_unet_alone_took(batch: int, gib: float) -> None:
    found = peaks(UNET_ALONE, replace(FULL, batch=batch))[1] / GIB
    assert found == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "batch", "gib"),
    [("bfloat16", 1, 8.7), ("bfloat16", 4, 14.3), ("float16", 1, 11.2), ("float16", 4, 22.5)],
)
def test_decoding_takes_what_the_vae_took(dtype: str, batch: int, gib: float) -> None:
    """SDXL's own VAE: half precision in bfloat16, float32 within a float16 pipeline, since it overflows there."""
    found = peaks(SDXL, replace(FULL, dtype=dtype, batch=batch))[2] / GIB  # type: ignore[arg-type]
    assert found == pytest.approx(gib, rel=0.01)


# --- measured on the CPU: peak_rss of a timing process of the embedded family -------------


def test_a_process_on_the_cpu_takes_about_what_one_took() -> None:
    here = needed_of("mini", str(pipeline_folder()))
    settings = Settings(width=64, height=64, steps=4, guidance_scale=3.0, sampler="ddim")
    found = estimate_memory(suite(settings, checkpoint="mini"), machine(24, "cpu"), here)
    assert found is not None
    assert found.needed_bytes == pytest.approx(919_429_120, rel=0.25)
    assert found.weights_bytes == 4 * (3721408 + 1676291 + 147200 + 507392)
    assert "headers" in found.basis


def test_what_runtimes_add_is_said_not_to_be_counted() -> None:
    here = needed_of("mini", str(pipeline_folder()))
    settings = Settings(width=64, height=64, steps=4, guidance_scale=3.0, sampler="ddim")
    plain, fast = (
        estimate_memory(suite(settings, checkpoint="mini", **given), machine(24, "cpu"), here)
        for given in ({}, {"runtime": "deepcache:2"})
    )
    assert plain is not None
    assert fast is not None
    assert fast.basis == f"{plain.basis} What the runtime of base adds is not counted."
    assert fast.needed_bytes == plain.needed_bytes


# --- measured on a CPU: resident memory of the whole process, SDXL's shape with random weights, 256x256, 2 steps ----


def write_lora(path: Path, rank: int) -> None:
    """A LoRA of this rank on the cross-attention of SDXL's UNet, in float16; the file has holes for its numbers."""
    header, at = {}, 0
    for name, tensor in open_random("sdxl").tensors.items():
        if name.startswith("unet.") and name.endswith("weight") and ".attn2.to_" in name:
            out, inputs = tensor.shape
            for side, shape in (("A", [rank, inputs]), ("B", [out, rank])):
                size = 2 * math.prod(shape)
                key = f"{name.removesuffix('.weight')}.lora_{side}.weight"
                header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
                at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def test_sdxl_with_a_lora_on_a_cpu_takes_about_what_two_processes_took(tmp_path: Path) -> None:
    lora = tmp_path / "own.safetensors"
    write_lora(lora, 64)
    settings = replace(FULL, width=256, height=256, steps=2, dtype="bfloat16")
    whole = with_loras(settings, (Lora(path="own"),), checkpoint="random:sdxl")
    here = tuple(
        Needed(variant=name, what=what, present=True, path=path and str(path), size_bytes=size)
        for name in ("base", "merged")
        for what, path, size in (("random:sdxl", None, None), ("own", lora, lora.stat().st_size))
    )
    found = estimate_memory(whole, machine(24, "cpu"), here)
    assert found is not None
    for seen_gib in (9.96, 10.10):
        assert 0.95 * seen_gib <= found.needed_bytes / GIB <= 1.10 * seen_gib


# --- counted, and measured by a run --------------------------------------------------------


def test_what_is_known_by_name_is_what_is_counted() -> None:
    for known, family in ((SDXL, "sdxl"), (SD15, "sd15")):
        here = needed_of(f"random:{family}", None, present=True)
        counted = parts_of(suite(checkpoint=f"random:{family}").variants[0], here)
        assert counted == known._replace(counted=True)


def test_activations_of_sdxl_by_hand() -> None:
    """At the latent's size the UNet still holds 3 outputs of the way down, and joins 640 channels with 320."""
    widths = {"block_out_channels": [320, 640, 1280], "layers_per_block": 2}
    blocks = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]}
    assert unet_activations(widths | blocks, 8) == (3 * 320 + 640 + 3 * (640 + 320) + 320) / 64
    assert vae_activations({"block_out_channels": [128, 256, 512, 512]}) == 3 * 256 + 128


def estimated(whole: Suite, device: str, run: Run | None = None, name: str = "A GPU") -> MemoryEstimate:
    found = estimate_memory(whole, replace(machine(80, device), device_name=name), (), run)
    assert found is not None
    return found


@pytest.mark.parametrize(("device", "name"), [("cpu", "peak_rss"), ("cuda:0", "peak_allocated")])
def test_what_a_run_measured_comes_first(device: str, name: TimingName) -> None:
    single, four = suite(FULL), suite(replace(FULL, batch=4))
    values = (11.0 * GIB, 9.0 * GIB)
    peak = Timing(variant="base", name=name, unit="byte", round=0, process=1, warmups=(), values=values)
    run = make_run("r")
    run = replace(run, info=replace(run.info, suite=single, machine=machine(80, device)), timings=(peak,))
    found = estimated(single, device, run)
    assert found.peak_bytes == 11 * GIB
    assert found.basis.startswith("Measured: 11.0 GiB in this folder's run")
    more = estimated(four, device).peak_bytes - estimated(single, device).peak_bytes
    assert estimated(four, device, run).peak_bytes - found.peak_bytes == pytest.approx(more, abs=2)


def test_what_was_measured_of_something_else_does_not_count() -> None:
    own, run = suite(FULL), make_run("r")
    peak = Timing(variant="base", name="peak_rss", unit="byte", round=0, process=1, warmups=(), values=(11.0 * GIB,))
    run = replace(run, info=replace(run.info, suite=own, machine=machine(80, "cpu")), timings=(peak,))
    others = (suite(replace(FULL, steps=4)), suite(FULL, vae="madebyollin/sdxl-vae-fp16-fix"))
    bases = [estimated(other, "cpu", run).basis for other in others] + [estimated(own, "cpu", run, "another").basis]
    assert not any("Measured" in basis for basis in bases)
    assert "Measured" in estimated(own, "cpu", run).basis


# --- what must hold ------------------------------------------------------------------------

sizes = st.integers(min_value=8, max_value=256).map(lambda n: n * 8)
any_settings = st.builds(
    Settings,
    width=sizes,
    height=sizes,
    steps=st.just(30),
    guidance_scale=st.sampled_from([1.0, 7.0]),
    sampler=st.just("euler"),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    batch=st.integers(min_value=1, max_value=64),
    vae_tiling=st.booleans(),
    vae_slicing=st.booleans(),
)


@given(any_settings, st.sampled_from([SDXL, SD15, FIXED]))
def test_more_work_never_takes_less(settings: Settings, parts: Parts) -> None:
    weights, denoise, decode = peaks(parts, settings)
    assert weights < min(denoise, decode)
    for more in ({"batch": settings.batch + 1}, {"width": settings.width + 8}, {"guidance_scale": 7.0}):
        bigger = peaks(parts, replace(settings, **more))
        assert bigger[1] >= denoise
        assert bigger[2] >= decode
    assert peaks(parts, replace(settings, vae_tiling=True))[2] <= decode
    assert needed_bytes(parts, settings) > max(denoise, decode)


def test_tiling_helps_only_where_the_image_is_larger_than_a_tile() -> None:
    tiled = replace(FULL, vae_tiling=True)
    assert peaks(SDXL, tiled) == peaks(SDXL, FULL), "SDXL's own VAE cuts from 1024 pixels on"
    assert peaks(FIXED, tiled)[2] == peaks(FIXED, replace(FULL, width=512, height=512))[2]


@given(any_settings)
def test_one_by_one_a_batch_is_decoded_in_the_memory_of_one(settings: Settings) -> None:
    sliced = replace(settings, vae_slicing=True)
    assert peaks(SDXL, sliced)[2] == peaks(SDXL, replace(sliced, batch=1))[2] <= peaks(SDXL, settings)[2]
    assert peaks(SDXL, sliced)[1] == peaks(SDXL, settings)[1], "denoising takes what it took"


# --- whether it fits, and what would -------------------------------------------------------


@pytest.mark.parametrize(
    ("gib", "batch", "vae", "fits"),
    [
        (12, 1, "fixed", True),
        (12, 1, "own", False),
        (24, 4, "fixed", True),
        (24, 4, "own", False),
        (80, 8, "own", True),
    ],
)
def test_sdxl_on_usual_cards(gib: int, batch: int, vae: str, fits: bool) -> None:
    named = {"vae": "madebyollin/sdxl-vae-fp16-fix"} if vae == "fixed" else {}
    found = estimate_memory(suite(replace(FULL, batch=batch), **named), machine(gib), ())
    assert found is not None
    assert found.fits is fits
    assert (found.advice == ()) is fits
    assert "of that name" in found.basis


def advice(gib: float, settings: Settings, **variant: str) -> tuple[str, ...]:
    found = estimate_memory(suite(settings, **variant), machine(gib), ())
    assert found is not None
    assert not found.fits
    return found.advice


def test_the_advice_is_what_would_fit() -> None:
    assert advice(24, replace(FULL, batch=4)) == (
        "batch = 3 would take 21.1 GiB",
        "vae_slicing = true would take 12.8 GiB",
        'dtype = "bfloat16" would take 16.3 GiB',
    )
    assert advice(12, FULL) == ('dtype = "bfloat16" would take 10.1 GiB',)
    fixed = {"vae": "madebyollin/sdxl-vae-fp16-fix"}
    assert advice(9, FULL, **fixed) == ("vae_tiling = true would take 8.24 GiB",)
    assert advice(9, replace(FULL, batch=16), **fixed) == (
        'batch = 1 and dtype = "bfloat16" and vae_tiling = true would take 8.24 GiB',
    )
    (none,) = advice(6, FULL, **fixed)
    assert none.startswith("no batch, tiling or dtype would fit")


@given(any_settings, st.integers(min_value=2, max_value=80))
def test_whatever_is_advised_fits(settings: Settings, gib: int) -> None:
    found = estimate_memory(suite(settings), machine(gib), ())
    assert found is not None
    assert found.fits == (found.needed_bytes <= gib * GIB)
    for sentence in found.advice:
        changes = {}
        for change in sentence.partition(" would")[0].split(" and "):
            name, _, value = change.partition(" = ")
            if value:
                changes[name] = {"true": True}.get(value, int(value) if value.isdecimal() else value.strip('"'))
        assert not changes or needed_bytes(SDXL, replace(settings, **changes)) <= gib * GIB


# --- weights that LoRAs change are kept beside ---------------------------------------------

LORAS = {name: (Lora(path=f"mini:{name}"),) for name in ("dpo", "spo")}
MINI = Settings(width=64, height=64, steps=4, guidance_scale=3.0, sampler="ddim")
ELSEWHERE = (Lora(path="org/lora:lora.safetensors"),)


def with_loras(settings: Settings = FULL, loras: tuple[Lora, ...] = ELSEWHERE, **variant: str) -> Suite:
    """A base and a variant of it with LoRAs."""
    whole = suite(settings, **variant)
    return replace(whole, variants=(*whole.variants, replace(whole.variants[0], name="merged", loras=loras)))


def test_what_is_kept_is_what_changing_variants_keeps() -> None:
    base, *merged = (Variant(name=name, checkpoint="mini", loras=LORAS.get(name, ())) for name in ("base", *LORAS))
    here = weights_needed(replace(suite(MINI), variants=(base, *merged)), None)
    parts = parts_of(base, here)
    assert parts is not None
    assert lora_bytes([base], here, parts) == (0, 0, True)
    model = None
    for number, one in enumerate(merged, 1):
        model, _ = switch_variant(model, one, MINI, device="cpu", weights_dir=None)
        held = sum(kept.numel() * kept.element_size() for kept in model.original.values())
        (size,) = (item.size_bytes for item in here if (item.variant, item.what) == (one.name, one.loras[0].path))
        assert lora_bytes([base, *merged[:number]], here, parts) == (held, size, True)
    assert held > 0


def test_on_a_cpu_all_of_it_lies_beside() -> None:
    base, merged = with_loras(MINI, LORAS["spo"], checkpoint="mini").variants
    whole = replace(suite(MINI, checkpoint="mini"), variants=(base, merged))
    here = weights_needed(whole, None)
    plain = estimate_memory(replace(whole, variants=(base,)), machine(24, "cpu"), here)
    found = estimate_memory(whole, machine(24, "cpu"), here)
    assert plain is not None
    assert found is not None
    kept, own, _ = lora_bytes([merged], here, parts_of(merged, here) or SDXL)
    assert found.variant == "merged"
    assert found.weights_bytes == plain.weights_bytes
    assert min(kept, own) > 0
    assert found.needed_bytes - plain.needed_bytes == found.peak_bytes - plain.peak_bytes
    assert found.needed_bytes - plain.needed_bytes == pytest.approx(memory.HEAP * (kept + own), abs=2)
    assert "The weights that LoRAs change are kept as they were: " in found.basis
    assert "the LoRA files (" in found.basis
    assert "kept" not in plain.basis


@pytest.mark.parametrize(("gib", "kept_gib"), [(12, 0.0), (24, 24 - 0.5 - 8 - 6.46), (80, 9.56)])
def test_on_a_gpu_it_leaves_room_for_drawing(gib: int, kept_gib: float) -> None:
    """The whole UNet in float32, of weights that are not here: 2.567e9 x 4 bytes are 9.56 GiB."""
    settings = replace(FULL, dtype="bfloat16")
    plain, found = (estimate_memory(one, machine(gib), ()) for one in (suite(settings), with_loras(settings)))
    assert plain is not None
    assert found is not None
    beside = found.needed_bytes - plain.needed_bytes
    assert beside / GIB == pytest.approx(kept_gib, abs=0.01)
    assert found.decode_bytes - plain.decode_bytes == found.denoise_bytes - plain.denoise_bytes == beside
    assert ("in the machine's memory" in found.basis) is (gib == 24)
    assert ("of the whole UNet, since not every LoRA could be read" in found.basis) is (gib > 12)


def test_the_kept_weights_can_be_what_does_not_fit() -> None:
    four = replace(FULL, dtype="bfloat16", batch=4)
    found = estimate_memory(with_loras(four), machine(24), ())
    assert found is not None
    assert (found.variant, found.fits) == ("merged", False)
    assert found.advice == ("batch = 3 would take 23.3 GiB", "vae_slicing = true would take 19.2 GiB")


def test_it_is_told_as_the_other_rooms_do_it() -> None:
    assert memory.SPARE_GIB * GIB == models.SPARE_BYTES
    found = (memory.AUTO_LARGEST, memory.AUTO_UNMEASURED, memory.AUTO_MARGIN)
    assert found == (fitting.LARGEST_BATCH, fitting.UNMEASURED_BATCH, fitting.MARGIN)
    variant = Variant(name="x", checkpoint="a", revision="b", unet="c", vae="d")
    assert memory.base_of(variant) == models.base_of(variant)


# --- an open batch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gib", "device", "images", "batch"),
    [(80, "cuda:0", 200, 16), (80, "cuda:0", 3, 2), (24, "cuda:0", 200, 4), (6, "cuda:0", 200, 1), (64, "cpu", 9, 4)],
)
def test_an_open_batch_is_the_one_that_would_be_chosen(gib: int, device: str, images: int, batch: int) -> None:
    """By hand: 1.1 x (6.46 + 1.75 (1.07 n + 0.24)) GiB within 0.9 of the card, n a power of two."""
    prompts = tuple(Prompt(id=f"c{number}", text="a fox") for number in range(images))
    open_batch = replace(suite(replace(FULL, dtype="bfloat16", batch=None)), prompts=prompts)
    found = estimate_memory(open_batch, machine(gib, device), ())
    fixed = replace(open_batch, settings=replace(open_batch.settings, batch=batch))
    assert found is not None
    assert found.basis.endswith(f'batch = "auto" is taken to be {batch}.')
    same = estimate_memory(fixed, machine(gib, device), ())
    assert same is not None
    assert (found.peak_bytes, found.fits, found.advice) == (same.peak_bytes, same.fits, same.advice)


# --- whose sizes are known -----------------------------------------------------------------


def needed_of(what: str, path: str | None, present: bool = False) -> tuple[Needed, ...]:
    return (Needed(variant="base", what=what, present=present or path is not None, path=path, size_bytes=None),)


def test_a_checkpoint_that_nobody_knows_has_no_estimate() -> None:
    strange = suite(checkpoint="someone/something")
    assert estimate_memory(strange, machine(80), needed_of("someone/something", None)) is None


def test_the_largest_variant_counts() -> None:
    small = Variant(name="small", checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5")
    both = replace(suite(), variants=(small, *suite().variants))
    found = estimate_memory(both, machine(80), ())
    assert found is not None
    assert found.variant == "base"
