"""The forecast of memory against what an H100 took, and against what it must obey whatever the numbers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.forecast import forecast_memory
from bench.forecast.memory import GIB, needed_bytes, peaks
from bench.forecast.parts import KNOWN_VAES, SD15, SDXL, Parts
from bench.mini.weights import pipeline_folder
from bench.records import Machine, Settings, Suite, Variant
from bench.variants import Needed

replace = msgspec.structs.replace
FULL = Settings(width=1024, height=1024, steps=30, guidance=7.0, sampler="euler", dtype="float16")
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
    return Suite(
        schema=1, name="own", prompts=(), cases=(), samples=1, seed=0, metrics=(), settings=settings, variants=(made,)
    )  # fmt: skip


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
    settings = Settings(width=64, height=64, steps=4, guidance=3.0, sampler="ddim")
    found = forecast_memory(suite(settings, checkpoint="mini"), machine(24, "cpu"), here)
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
    guidance=st.sampled_from([1.0, 7.0]),
    sampler=st.just("euler"),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    batch=st.integers(min_value=1, max_value=64),
    vae_tiling=st.booleans(),
)


@given(any_settings, st.sampled_from([SDXL, SD15, SDXL._replace(vae=FIXED_VAE)]))
def test_more_work_never_takes_less(settings: Settings, parts: Parts) -> None:
    found = peaks(parts, settings)
    assert found.weights < min(found.denoise, found.decode)
    for more in ({"batch": settings.batch + 1}, {"width": settings.width + 8}, {"guidance": 7.0}):
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
    found = forecast_memory(suite(replace(FULL, batch=batch), **named), machine(gib), ())
    assert found is not None
    assert found.fits is fits
    assert (found.advice == ()) is fits
    assert "known by their name" in found.basis


def advice(gib: float, settings: Settings, **variant: str) -> tuple[str, ...]:
    found = forecast_memory(suite(settings, **variant), machine(gib), ())
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
    found = forecast_memory(suite(settings), machine(gib), ())
    assert found is not None
    assert found.fits == (found.needed_bytes <= gib * GIB)
    for sentence in found.advice:
        changes = {}
        for change in sentence.partition(" would")[0].split(" and "):
            name, _, value = change.partition(" = ")
            if value:
                changes[name] = {"true": True}.get(value, int(value) if value.isdecimal() else value.strip('"'))
        assert not changes or needed_bytes(SDXL, replace(settings, **changes), "cuda:0") <= gib * GIB


# --- whose sizes are known -----------------------------------------------------------------


def needed_of(what: str, path: str | None) -> tuple[Needed, ...]:
    return (Needed(variant="base", what=what, present=path is not None, path=path, size_bytes=None, get=""),)


def test_a_checkpoint_that_nobody_knows_has_no_forecast() -> None:
    strange = suite(checkpoint="someone/something")
    assert forecast_memory(strange, machine(80), needed_of("someone/something", None)) is None


def test_the_largest_variant_counts() -> None:
    small = Variant(name="small", checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5")
    both = replace(suite(), variants=(small, *suite().variants))
    found = forecast_memory(both, machine(80), ())
    assert found is not None
    assert found.variant == "base"
