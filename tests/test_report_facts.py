"""What the reports say of how a run was made: its variants, and the command that repeats it."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_runs import page_of, with_info, with_suite

from bench.cli.app import parse
from bench.cli.options import check_device, check_dtype, split_names
from bench.cli.sweep import read_weights
from bench.compare import compare_run
from bench.formatting import interval
from bench.formatting import markdown as escaped
from bench.records import Audit, CheckpointFacts, Embedding, ExternalImages, Lora, LoraAudit, Run, Suite, Sweep, Variant
from bench.report import html, markdown
from bench.report.facts import command
from bench.report.headline import pair_name
from bench.report.page import build_view
from bench.report.tables import made_of
from bench.suite.limits import parse_limits

replace = msgspec.structs.replace
REVISION = "462165984030d82259a11f4367a4eed129e94a7b"

# --- intervals -----------------------------------------------------------------------------


def test_under_30_prompts_the_t_interval_stands_in_tag_tables_and_beside_the_headlines() -> None:
    """The bootstrap's covers 7 of 10 where a tag has three prompts, and one says 95 %."""
    run = make_run("run", prompts=8)
    deltas = compare_run(run)
    view = build_view(run, deltas)
    note = markdown(view, ())
    seen = 0
    for section in note.split("\n## By tag\n")[1].split("\n## ")[0].split("\n**")[1:]:
        metric, rows = section.split("**")[0], [line.split("|")[1:-1] for line in section.splitlines() if "|" in line]
        pairs = [cell.strip() for cell in rows[0][2:]]
        for tag, _, *cells in rows[2:]:
            for pair, cell in zip(pairs, cells, strict=True):
                (delta,) = [
                    one
                    for one in deltas
                    if (one.tag, escaped(pair_name(one)), one.metric) == (tag.strip(), pair, metric)
                ]
                if delta.interval is None:
                    continue
                assert delta.small_sample is not None
                told = cell.strip().removesuffix("†").split(" ", 1)[1]
                assert told in [escaped(interval(delta.small_sample, places)) for places in range(7)]
                seen += told not in [escaped(interval(delta.interval, places)) for places in range(7)]
    assert seen > 3
    headline = next(one for one in deltas if (one.tag, one.metric) == (None, "mini-preference"))
    assert headline.small_sample is not None
    assert any(f", t {escaped(interval(headline.small_sample, places))} |" in note for places in range(7))


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
    lines = made_of(run, run.info.suite.variants[2])
    assert lines == (
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
    assert all(line in page for line in lines)
    assert row.replace("\\", "").split("<br>") == list(lines)


def test_what_was_left_out_of_a_lora_is_said_in_both_reports() -> None:
    lora = Lora(path="glow.safetensors", leave_out=("bundle_emb",))
    run = run_of(Variant(name="spo", checkpoint="m", loras=(lora,)))
    note = "2 tensors of embeddings left out."
    found = LoraAudit(path=lora.path, layout="kohya", keys=2, applied={"unet": 2}, modules=(), notes=(note,))
    audit = Audit(checkpoint=CheckpointFacts(layout="diffusers", family="sdxl"), dtype="float16", loras=(found,))
    run = with_info(run, variants=tuple(replace(one, audit=audit if one.loras else None) for one in run.info.variants))
    view = build_view(run, compare_run(run))
    for text in (html(view), markdown(view, ()).replace("\\", "")):
        assert "glow.safetensors × 1 (without bundle_emb)" in text
        assert note in text


def test_prompts_of_another_program_are_told_in_both_reports() -> None:
    run = make_run("run", prompts=4)
    used = Embedding(name="hands", path="/x/hands.pt", sha256="ab" * 32)
    given = replace(run.info.suite.settings, prompt_syntax="a1111", clip_skip=2, embeddings=(used,))
    view = build_view(with_suite(run, settings=given), ())
    told = "as A1111 reads prompts, clip skip 2, embedding hands (ababababab)"
    assert told in html(view)
    assert told in markdown(view, ())
    assert "Text encoding" not in markdown(build_view(run, ()), ())


def test_a_variant_of_one_checkpoint_is_one_line() -> None:
    run = run_of(Variant(name="spo", checkpoint="m"))
    assert made_of(run, run.info.suite.variants[2]) == ("m (StableDiffusionXLPipeline)",)


# --- the command that repeats the run ------------------------------------------------------

BARE = make_run("my runs/given", prompts=1, samples=1)
LEARNT = ("mini-clip", "mini-aesthetic", "mini-preference")
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(lambda word: word[0] != "-")
weights = st.floats(-4, 4).map(lambda weight: round(weight, 9) + 0.0).filter(bool)
metrics = st.sets(st.sampled_from([facts.name for facts in BARE.info.metrics]))


def scored_run(suite: Suite, scored: set[str], dtype: str, device: str, variants: set[str]) -> Run:
    """A run of ``suite`` that was asked for with these flags, as its folder tells of it."""
    facts = tuple(replace(one, metric_dtype=dtype if one.name in LEARNT else "float32") for one in BARE.info.metrics)
    info = replace(
        BARE.info,
        suite=suite,
        metrics=facts,
        variants=tuple(one for one in BARE.info.variants if one.name in variants),
        machine=replace(BARE.info.machine, device=device),
    )
    return replace(BARE, info=info, scores=tuple(one for one in BARE.scores if one.metric in scored))


def asked(text: str) -> tuple[str, dict[str, object]]:
    """The verb of a command line and its settings, as the program reads them."""
    words = shlex.split(text)
    assert words.pop(0) == "hotart-bench"
    job = parse(words)
    flags = {name: value for name, value in job.keywords.items() if value not in (None, False)}  # type: ignore[union-attr]
    for name in ("metrics", "variants"):
        if name in flags:
            flags[name] = split_names(flags[name], f"--{name}")
    check_device(flags["device"])
    check_dtype(flags.get("metric_dtype"))
    return job.func.__name__, flags  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(
    source=names,
    limit=st.none() | st.integers(1, 500),
    variants=st.sets(st.sampled_from(["base", "dpo", "spo"])),
    own=metrics,
    scored=metrics,
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    device=st.sampled_from(["cpu", "mps", "cuda:0", "cuda:13"]),
    swept=st.none() | st.tuples(names, st.sets(weights, min_size=1, max_size=6)),
)
def test_the_command_asks_for_the_same_settings(source, limit, variants, own, scored, dtype, device, swept) -> None:
    suite = replace(BARE.info.suite, source=source, limit=limit, metrics=tuple(sorted(own)))
    expected = {"suite": source, "limit": limit, "device": device}
    if scored and scored != own:
        expected["metrics"] = scored
    if swept is not None:
        lora, steps = swept
        rising = tuple(sorted({0.0, *steps}))
        suite = replace(suite, sweep=Sweep(lora=lora, weights=rising, variants=()))
        expected |= {"lora": lora, "lora_weights": rising}
    else:
        expected["variants"] = variants if 0 < len(variants) < 3 else None
        expected["metric_dtype"] = dtype if dtype != "float32" and scored & set(LEARNT) else None
    verb, flags = asked(command(scored_run(suite, scored, dtype, device, variants)))
    assert verb == ("run" if swept is None else "sweep")
    for name in ("metrics", "variants"):
        if name in flags:
            flags[name] = set(flags[name])
    if swept is not None:
        flags["lora_weights"] = read_weights(flags["lora_weights"])
    assert flags == {name: value for name, value in expected.items() if value is not None}


@settings(max_examples=25, deadline=None)
@given(
    images=names,
    prompts=names,
    scored=metrics.filter(bool),
    limits=st.dictionaries(st.sampled_from([facts.name for facts in BARE.info.metrics]), st.just("0.1sd"), max_size=3),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_the_command_of_external_images_asks_for_the_same_settings(images, prompts, scored, limits, dtype) -> None:
    external = ExternalImages(images=images, prompts=prompts)
    suite = replace(BARE.info.suite, external_images=external, limits=parse_limits(limits))
    verb, flags = asked(command(scored_run(suite, scored, dtype, "cuda:0", set())))
    assert verb == "score"
    assert (str(flags.pop("images")), str(flags.pop("prompts"))) == (str(Path(images)), str(Path(prompts)))
    assert set(flags.pop("metrics")) == scored
    read = dict(item.split("=") for item in str(flags.pop("limits", "")).split(",") if item)
    assert read == limits
    half = {"metric_dtype": dtype} if dtype != "float32" and scored & set(LEARNT) else {}
    assert flags == {"output": "my runs/given", "device": "cuda:0", **half}


def test_the_command_leaves_out_what_the_suite_says_itself() -> None:
    assert command(make_run("run", prompts=1)) == "hotart-bench run fake --device cpu"
