"""What the reports say of how a run was made."""

from __future__ import annotations

import msgspec
from fakes import make_run
from markdown_it import MarkdownIt
from report_runs import page_of, with_info, with_suite

from bench.compare import compare_run
from bench.records import Lora, Run, Variant
from bench.report import html, markdown
from bench.report.data import build_view
from bench.report.tables import variant_views

replace = msgspec.structs.replace
REVISION = "462165984030d82259a11f4367a4eed129e94a7b"

# --- variants ------------------------------------------------------------------------------


def run_of(variant: Variant) -> Run:
    """A run whose last variant is ``variant``, under the name ``spo``."""
    run = make_run("run", prompts=2, samples=1)
    prints = [
        replace(one, checkpoint=variant.checkpoint, loras=variant.loras) if one.name == "spo" else one
        for one in run.info.variants
    ]
    run = with_info(run, variants=tuple(prints))
    return with_suite(run, variants=(*run.info.suite.variants[:2], replace(variant, name="spo")))


def test_everything_that_a_variant_is_made_of_is_shown_in_both_reports() -> None:
    lora = Lora(
        path="glow.safetensors", weight=0.8, unet=0.4, text_encoder=0.0, text_encoder_2=1.5,
        blocks={"M00": -1.0, "IN04": 0.25},
    )  # fmt: skip
    variant = Variant(
        name="spo", checkpoint="org/model", revision=REVISION, unet="tuned/unet", vae="org/vae-fix", loras=(lora,)
    )
    run = run_of(variant)
    made_of = variant_views(run)[2].made_of
    assert made_of == (
        "org/model (StableDiffusionXLPipeline)",
        f"revision {REVISION}",
        "UNet from tuned/unet",
        "VAE from org/vae-fix",
        "+ LoRA glow.safetensors × 0.8 (UNet × 0.4, text encoder × 0, text encoder 2 × 1.5, M00 × −1, IN04 × 0.25)",
        "LoRAs fused, 64 modules changed",
    )
    view = build_view(run, compare_run(run))
    page = page_of(html(view)).named("main")[0].text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(view, ()))
    (row,) = (one.content for one in tokens if one.type == "inline" and "org/model" in one.content)
    assert all(line in page for line in made_of)
    assert row.replace("\\", "").split("<br>") == list(made_of)


def test_a_variant_of_one_checkpoint_is_one_line() -> None:
    assert variant_views(run_of(Variant(name="spo", checkpoint="m")))[2].made_of == ("m (StableDiffusionXLPipeline)",)
