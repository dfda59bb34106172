"""One small real run, read back and checked."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from datetime import datetime

import numpy as np
import pytest
import tiny
from PIL import Image

import bench
import bench.render
from bench.mini.weights import pipeline_folder
from bench.store import load_run
from bench.suite import image_seed, load_suite, protocol_digest

METRICS = ["mini-clip", "mini-aesthetic", "mini-preference", "saturation", "sharpness", "ssim-to-base"]


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run.folder)


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def strict_lines(path):
    return [json.loads(line, parse_constant=refuse_constant) for line in path.read_text("utf-8").splitlines()]


def pixels(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


# --- the folder of a real run --------------------------------------------------------------


def test_the_folder_holds_what_the_contract_names_and_nothing_else(tiny_run):
    names = {path.relative_to(tiny_run.folder).as_posix() for path in tiny_run.folder.rglob("*") if path.is_file()}
    images = {f"images/{variant}/{prompt_id}-{sample}.png" for variant, prompt_id, sample in tiny.CELLS}
    plots = {name for name in names if re.fullmatch(r"plots/[a-z]+\.png", name)}
    assert len(plots) >= 4
    assert names == images | plots | {
        "run.json",
        "renders.jsonl",
        "scores.jsonl",
        "timings.jsonl",
        "scores.csv",
        "report.html",
        "report.md",
    }


def test_no_json_of_the_run_holds_nan_and_each_line_is_a_record(tiny_run):
    json.loads((tiny_run.folder / "run.json").read_text("utf-8"), parse_constant=refuse_constant)
    for name in ("renders", "scores", "timings"):
        path = tiny_run.folder / f"{name}.jsonl"
        assert path.read_bytes().endswith(b"}\n")
        assert all(isinstance(line, dict) for line in strict_lines(path))


def test_every_planned_image_was_rendered_once(tiny_run):
    lines = strict_lines(tiny_run.folder / "renders.jsonl")
    assert len(lines) == len(tiny.CELLS)
    assert {(line["variant"], line["prompt_id"], line["sample"]) for line in lines} == tiny.CELLS
    assert {line["error"] for line in lines} == {None}
    assert {line["decode_dtype"] for line in lines} == {"float32"}


def test_seeds_are_distinct_and_the_same_for_every_variant(run):
    seeds = {
        name: {(one.prompt_id, one.sample): one.seed for one in run.renders if one.variant == name}
        for name in tiny.VARIANTS
    }
    assert seeds["base"] == seeds["spo"]
    assert len(set(seeds["base"].values())) == len(tiny.CASES) * len(tiny.SAMPLES)
    assert all(seed == image_seed(7, prompt_id, sample) for (prompt_id, sample), seed in seeds["base"].items())


def test_batches_are_those_of_the_suite(run):
    batches = [one.batch for one in run.renders if one.variant == "spo"]
    assert batches == [0, 0, 0, 0, 1, 1]


def test_images_are_what_their_records_say(run, tiny_run):
    for one in run.renders:
        path = tiny_run.folder / one.image
        assert one.image == f"images/{one.variant}/{one.prompt_id}-{one.sample}.png"
        assert one.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert pixels(path).shape == (64, 64, 3)


def test_every_image_is_another_one(run):
    assert len({one.sha256 for one in run.renders}) == len(run.renders)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_images_are_those_of_a_plain_call_of_diffusers(variant, run, tiny_run):
    import diffusers
    import torch

    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(pipeline_folder(), dtype=torch.float32)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    if variant == "spo":
        pipe.load_lora_weights(str(tiny_run.suite_file.parent), weight_name="own.safetensors", adapter_name="own")
        pipe.set_adapters(["own"], [0.5])
    prompts = run.info.suite.prompts[:2]
    images = pipe(
        prompt=[prompt.text for prompt in prompts for _ in tiny.SAMPLES],
        generator=[
            torch.Generator().manual_seed(image_seed(7, prompt.id, n)) for prompt in prompts for n in tiny.SAMPLES
        ],
        num_inference_steps=tiny.STEPS,
        guidance_scale=3.0,
        height=64,
        width=64,
        output_type="np",
    ).images
    cells = [(prompt.id, sample) for prompt in prompts for sample in tiny.SAMPLES]
    for (prompt, sample), image in zip(cells, images, strict=True):
        ours = pixels(tiny_run.folder / f"images/{variant}/{prompt}-{sample}.png")
        # Prompts encoded in a batch and a LoRA that is not fused round differently: one step of 8 bits, no more.
        assert np.abs(ours - image * 255).max() < 1.6


def test_scores_are_complete_and_null_only_with_a_reason(run):
    cells = {(one.variant, one.prompt_id, one.sample, one.metric) for one in run.scores}
    assert cells == {(*cell, metric) for cell in tiny.CELLS for metric in METRICS}
    assert len(run.scores) == len(cells)
    for one in run.scores:
        if (one.variant, one.metric) == ("base", "ssim-to-base"):
            assert (one.value, one.reason) == (None, "is the reference")
        else:
            assert math.isfinite(one.value)
            assert one.reason is None


def test_scores_say_which_image_was_scored(run):
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    versions = {facts.name: facts.version for facts in run.info.metrics}
    for one in run.scores:
        assert one.image_sha256 == images[one.variant, one.prompt_id, one.sample]
        assert one.version == versions[one.metric]
        reference = images["base", one.prompt_id, one.sample] if one.metric == "ssim-to-base" else None
        assert one.reference_sha256 == reference


def test_scores_csv_holds_the_same_numbers(run, tiny_run):
    with (tiny_run.folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["variant", "prompt_id", "sample", "seed", "image", "error", *METRICS]
    images = {(one.variant, one.prompt_id, one.sample): one for one in run.renders}
    assert [(row["variant"], row["prompt_id"], int(row["sample"])) for row in rows] == list(images)
    for one in run.scores:
        (row,) = [row for row in rows if (row["variant"], row["prompt_id"], int(row["sample"])) == cell_of(one)]
        assert row[one.metric] == ("" if one.value is None else repr(one.value))
        assert (int(row["seed"]), row["image"], row["error"]) == (
            images[cell_of(one)].seed,
            images[cell_of(one)].image,
            "",
        )


def cell_of(record):
    return record.variant, record.prompt_id, record.sample


def test_timings_are_complete_and_from_fresh_processes(run):
    found = {(one.variant, one.name): one for one in run.timings}
    names = {"load", "first_image", "text_encode", "denoise_step", "vae_decode", "end_to_end", "peak_rss"}
    assert found.keys() == {(variant, name) for variant in tiny.VARIANTS for name in names}
    assert len(run.timings) == len(found)
    for (_, name), one in found.items():
        assert (one.round, one.warmups) == (0, ())
        assert one.unit == ("byte" if name == "peak_rss" else "second")
        assert len(one.values) == (tiny.STEPS if name == "denoise_step" else 1)
        assert min(one.values) > 0
    processes = [{one.process for one in run.timings if one.variant == variant} for variant in tiny.VARIANTS]
    assert [len(one) for one in processes] == [1, 1]
    assert len({os.getpid()}.union(*processes)) == 3


def test_parts_of_an_image_take_no_longer_than_the_whole(run):
    for variant in tiny.VARIANTS:
        took = {one.name: sum(one.values) for one in run.timings if one.variant == variant}
        assert took["text_encode"] + took["denoise_step"] + took["vae_decode"] <= took["end_to_end"] * 1.01


def test_run_json_says_what_the_run_is(run, tiny_run):
    info = run.info
    suite = load_suite(str(tiny_run.suite_file))
    assert (info.status, info.schema, info.suite) == ("complete", 4, suite)
    assert info.protocol_digest == protocol_digest(suite)
    assert [facts.name for facts in info.metrics] == METRICS
    assert (info.machine.device, info.machine.threads) == ("cpu", 1)
    assert {"python", "torch", "diffusers", "transformers", "peft"} <= info.packages.keys()
    assert datetime.fromisoformat(info.start) <= datetime.fromisoformat(info.end)
    assert any("fused" in note for note in info.settings_notes)
    assert any("Latency" in note for note in info.settings_notes)


def test_fingerprints_name_every_weight_file(run, tiny_run):
    base, spo = run.info.variants
    assert (base.name, base.lora_mode, base.modules_changed) == ("base", "none", 0)
    assert [file.component for file in base.files] == ["unet", "vae", "text_encoder", "text_encoder_2"]
    assert spo.files[:-1] == base.files
    lora = tiny_run.suite_file.parent / "own.safetensors"
    assert (spo.files[-1].component, spo.files[-1].size_bytes) == ("lora:0", lora.stat().st_size)
    for file in (*base.files, spo.files[-1]):
        path = lora if file.component == "lora:0" else pipeline_folder() / file.component / file.name
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (spo.lora_mode, spo.modules_changed) == ("fused", len(tiny.lora_tensors(1)) / 2)
    assert base.digest != spo.digest


def test_the_reports_show_the_run_and_ask_nothing_of_the_network(run, tiny_run):
    page = (tiny_run.folder / "report.html").read_text("utf-8")
    assert all(prompt.text in page for prompt in run.info.suite.prompts)
    assert all(one.digest[:8] in page for one in run.info.variants)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    note = (tiny_run.folder / "report.md").read_text("utf-8")
    linked = re.findall(r"(?:images|plots)/[\w./-]+\.png", note)
    assert any(name.startswith("plots/") for name in linked)
    assert all((tiny_run.folder / name).is_file() for name in linked)


def test_frames_hold_the_same_run(run, tiny_run):
    frames = bench.load_run(tiny_run.folder)
    assert (len(frames.renders), len(frames.scores)) == (len(run.renders), len(run.scores))
    assert frames.renders["error"].isna().all()
    assert frames.scores.groupby("variant", observed=True)["value"].count().to_dict() == {"base": 30, "spo": 36}
    assert list(frames.timings["value"]) == [value for one in run.timings for value in one.values]


def test_the_outcome_and_the_progress_tell_what_was_done(run, tiny_run):
    outcome = tiny_run.outcome
    assert (outcome.images, outcome.failed, outcome.missing, outcome.done_before) == (12, 0, 0, False)
    assert (outcome.scores, outcome.timings) == (len(run.scores), len(run.timings))
    assert outcome.path == str(tiny_run.folder)
    assert outcome.notes == ()
    stages = list(dict.fromkeys(stage for stage, _, _ in tiny_run.progress))
    assert stages == ["render", "score", "measure", "report"]
    for stage in stages:
        counts = [(done, total) for name, done, total in tiny_run.progress if name == stage]
        assert counts == sorted(counts)
        assert counts[-1][0] == counts[-1][1] > 0
