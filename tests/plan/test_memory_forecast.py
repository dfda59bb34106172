"""The forecast of memory against what an H100 took, and against what it must obey whatever the numbers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.checkpoints.fingerprint import Needed, weights_needed
from bench.mini.weights import pipeline_folder
from bench.pipeline import switch as models
from bench.pipeline.switch import switch_variant
from bench.plan import memory
from bench.plan.memory import (
    GIB,
    KNOWN_VAES,
    SD15,
    SDXL,
    Kept,
    Parts,
    estimate_memory,
    kept_of,
    needed_bytes,
    parts_of,
    peaks,
)
from bench.records import Lora, Machine, Prompt, Settings, Suite, Variant
from bench.render import auto_batch as fitting

replace = msgspec.structs.replace
FULL = Settings(width=1024, height=1024, steps=30, guidance_scale=7.0, sampler="euler", dtype="float16")
FIXED_VAE = KNOWN_VAES["madebyollin/sdxl-vae-fp16-fix"]
UNET_ALONE = SDXL._replace(text_parameters=0, vae=SDXL.vae._replace(parameters=0))


def machine(gib: float, device: str = "cuda:0") -> Machine:
    on_gpu = gib * GIB if device != "cpu" else None
    return Machine(
        os="Linux", cpu="A CPU", cores=16, memory_bytes=round(gib * GIB), device=device, device_name="A GPU",
        device_memory_bytes=None if on_gpu is None else round(on_gpu),
    )  # fmt: skip


def suite(settings: Settings = FULL, **variant: str) -> Suite:
    made = Variant(name="base", **({"checkpoint": "stabilityai/stable-diffusion-xl-base-1.0"} | variant))  # type: ignore[arg-type]
    fields = {"prompt_files": (), "prompts": (), "samples": 1, "seed": 0, "metrics": ()}
    return Suite(schema=2, name="own", settings=settings, variants=(made,), **fields)


# --- measured on an H100 80GB, SDXL's shape, 1024x1024 (docs/performance.md) ---------------


@pytest.mark.parametrize(("batch", "gib"), [(1, 5.2), (8, 7.4)])
def test_denoising_takes_what_the_unet_alone_took(batch: int, gib: float) -> None:
    found = peaks(UNET_ALONE, replace(FULL, batch=batch)).denoise / GIB
    assert found == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "batch", "gib"),
    [("bfloat16", 1, 8.7), ("bfloat16", 4, 14.3), ("float16", 1, 11.2), ("float16", 4, 22.5)],
)
def test_decoding_takes_what_the_vae_took(dtype: str, batch: int, gib: float) -> None:
    """SDXL's own VAE: half precision in bfloat16, float32 within a float16 pipeline, since it overflows there."""
    found = peaks(SDXL, replace(FULL, dtype=dtype, batch=batch)).decode / GIB  # type: ignore[arg-type]
    assert found == pytest.approx(gib, rel=0.01)


# --- measured on the CPU: peak_rss of a timing process of the embedded family -------------


def test_a_process_on_the_cpu_takes_about_what_one_took() -> None:
    here = needed_of("mini", str(pipeline_folder()))
    settings = Settings(width=64, height=64, steps=4, guidance_scale=3.0, sampler="ddim")
    found = estimate_memory(suite(settings, checkpoint="mini"), machine(24, "cpu"), here)
    assert found is not None
    assert found.needed_bytes == pytest.approx(919_429_120, rel=0.25)
    assert found.weights_bytes == 4 * (3721408 + 1676291 + 147200 + 507392)
    assert "known by their name" not in found.basis


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
)


@given(any_settings, st.sampled_from([SDXL, SD15, SDXL._replace(vae=FIXED_VAE)]))
def test_more_work_never_takes_less(settings: Settings, parts: Parts) -> None:
    found = peaks(parts, settings)
    assert found.weights < min(found.denoise, found.decode)
    for more in ({"batch": settings.batch + 1}, {"width": settings.width + 8}, {"guidance_scale": 7.0}):
        bigger = peaks(parts, replace(settings, **more))
        assert bigger.denoise >= found.denoise
        assert bigger.decode >= found.decode
    assert peaks(parts, replace(settings, vae_tiling=True)).decode <= found.decode
    assert needed_bytes(parts, settings, "cuda:0") > max(found.denoise, found.decode)


def test_tiling_helps_only_where_the_image_is_larger_than_a_tile() -> None:
    tiled = replace(FULL, vae_tiling=True)
    assert peaks(SDXL, tiled) == peaks(SDXL, FULL), "SDXL's own VAE cuts from 1024 pixels on"
    fixed = SDXL._replace(vae=FIXED_VAE)
    assert peaks(fixed, tiled).decode == peaks(fixed, replace(FULL, width=512, height=512)).decode


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
    assert "known by their name" in found.basis


def advice(gib: float, settings: Settings, **variant: str) -> tuple[str, ...]:
    found = estimate_memory(suite(settings, **variant), machine(gib), ())
    assert found is not None
    assert not found.fits
    return found.advice


def test_the_advice_is_what_would_fit() -> None:
    assert advice(24, replace(FULL, batch=4)) == (
        "batch = 3 would take 21.1 GiB",
        'dtype = "bfloat16" would take 16.3 GiB',
    )
    assert advice(12, FULL) == ('dtype = "bfloat16" would take 10.1 GiB',)
    fixed = {"vae": "madebyollin/sdxl-vae-fp16-fix"}
    assert advice(9, FULL, **fixed) == ("vae_tiling = true would take 8.56 GiB",)
    assert advice(9, replace(FULL, batch=16), **fixed) == (
        'batch = 1 and dtype = "bfloat16" and vae_tiling = true would take 8.56 GiB',
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
        assert not changes or needed_bytes(SDXL, replace(settings, **changes), "cuda:0") <= gib * GIB


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
    assert kept_of([base], here, parts) == Kept(0, True)
    model = None
    for number, one in enumerate(merged, 1):
        model, _ = switch_variant(model, one, MINI, device="cpu", weights_dir=None)
        held = sum(kept.numel() * kept.element_size() for kept in model.original.values())
        assert kept_of([base, *merged[:number]], here, parts) == Kept(held, True)
    assert held > 0


def test_on_a_cpu_all_of_it_lies_beside() -> None:
    base, merged = with_loras(MINI, LORAS["spo"], checkpoint="mini").variants
    whole = replace(suite(MINI, checkpoint="mini"), variants=(base, merged))
    here = weights_needed(whole, None)
    plain = estimate_memory(replace(whole, variants=(base,)), machine(24, "cpu"), here)
    found = estimate_memory(whole, machine(24, "cpu"), here)
    assert plain is not None
    assert found is not None
    kept = kept_of([merged], here, parts_of(merged, here) or SDXL).size_bytes
    assert found.variant == "merged"
    assert found.weights_bytes == plain.weights_bytes
    assert found.needed_bytes - plain.needed_bytes == found.peak_bytes - plain.peak_bytes == kept > 0
    assert "The weights that LoRAs change are kept beside as they were: " in found.basis
    assert "kept beside" not in plain.basis


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
    assert found.advice == ("batch = 3 would take 23.3 GiB",)


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
    """By hand: 1.1 x (6.46 + 0.376 + 1.88 n) GiB within 0.9 of the card, n a power of two."""
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


def needed_of(what: str, path: str | None) -> tuple[Needed, ...]:
    return (Needed(variant="base", what=what, present=path is not None, path=path, size_bytes=None, get=""),)


def test_a_checkpoint_that_nobody_knows_has_no_forecast() -> None:
    strange = suite(checkpoint="someone/something")
    assert estimate_memory(strange, machine(80), needed_of("someone/something", None)) is None


def test_the_largest_variant_counts() -> None:
    small = Variant(name="small", checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5")
    both = replace(suite(), variants=(small, *suite().variants))
    found = estimate_memory(both, machine(80), ())
    assert found is not None
    assert found.variant == "base"
