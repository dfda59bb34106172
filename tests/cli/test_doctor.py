import json
import re
import shutil
from collections import namedtuple

import pytest
from msgspec.structs import replace

import bench.cli.doctor
from bench.checkpoints.fingerprint import Needed
from bench.cli.doctor import estimate, time_words
from bench.plan.pilot import seconds_of_all_variants
from bench.records import Machine
from bench.store import load_run
from bench.suite.prompt_files import make_id


def needed(variant, what, size_bytes, *, present=True):
    path = f"w/{what}" if present else None
    return Needed(variant=variant, what=what, present=present, path=path, size_bytes=size_bytes)


HERE = Machine(
    os="Linux 6.8",
    cpu="A CPU",
    cores=2,
    memory_bytes=8 << 30,
    device="cuda:0",
    device_name="A GPU",
    device_memory_bytes=24 << 30,
)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def weights(monkeypatch, home):
    """Weights that a suite needs, and a machine of which torch is not needed."""
    found = [needed("base", "mini unet", 3 << 20), needed("base", "mini vae", 1 << 20)]
    found.append(needed("spo", "mini:spo", 1 << 20))
    monkeypatch.setattr(bench.cli.doctor, "weights_needed", lambda suite, folder: tuple(found))
    monkeypatch.setattr(bench.cli.doctor, "pick_device", lambda wish: "cuda:0")
    monkeypatch.setattr(bench.cli.doctor, "machine_facts", lambda device: HERE)
    return found


def test_a_machine_that_is_ready(cli, weights):
    answer = cli("doctor", "own.toml")
    assert answer.code == 0
    assert answer.err == "Ready: hotart-bench run own.toml\n"
    for fact in ("A GPU", "24.0 GiB", "8.00 GiB", "2 cores", "mini vae", "mini:spo", "8 of 64x64"):
        assert fact in answer.out


def test_how_variants_run_is_told_and_what_is_missing_for_it(cli, weights, home, monkeypatch):
    text = (home / "own.toml").read_text("utf-8")
    (home / "fast.toml").write_text(text + 'runtime = "torchao-int8"\n', "utf-8")
    monkeypatch.setattr("bench.suite.runtimes.package_version", lambda name: "0.18.0")
    ready = cli("doctor", "fast.toml")
    assert (ready.code, "runs by torchao-int8 (torchao 0.18.0)" in ready.out) == (0, True)
    monkeypatch.setattr("bench.suite.runtimes.package_version", lambda name: None)
    answer = cli("doctor", "fast.toml")
    assert answer.code == 6
    assert "torchao-int8: the package torchao is not installed" in answer.out
    assert 'next: pip install "hotart-bench[runtimes]"' in answer.err
    assert json.loads(cli("doctor", "fast.toml", "--json").out)["runtimes"] == {
        "spo": "torchao-int8: the package torchao is not installed"
    }


def test_json_has_the_same_facts(cli, weights):
    found = json.loads(cli("doctor", "own.toml", "-o", "there", "--json").out)
    assert found["machine"]["device"] == "cuda:0"
    assert found["images_bytes"] == 2 * 2 * 2 * 64 * 64 * 3
    assert found["weights_bytes"] == 4 << 20
    assert found["folder"] == "there"
    assert [row["what"] for row in found["weights"]] == ["mini unet", "mini vae", "mini:spo"]


def test_missing_weights_end_with_3_and_the_command_that_gets_them(cli, weights):
    weights.append(needed("spo", "org/spo-lora", None, present=False))
    weights.append(needed("spo", SDXL, None, present=False))
    answer = cli("doctor", "own.toml")
    assert answer.code == 3
    assert f"org/spo-lora, {SDXL}." in answer.err
    assert "next: hotart-bench fetch own.toml" in answer.err
    assert "missing" in answer.out
    assert "about 12.9 GiB" in answer.out
    assert "unknown until" in answer.out


@pytest.mark.parametrize("family", ["sdxl", "sd15", "tiny"])
def test_random_weights_are_ready_and_their_memory_is_counted_from_their_shapes(cli, home, monkeypatch, family):
    monkeypatch.setattr(bench.cli.doctor, "pick_device", lambda wish: "cuda:0")
    monkeypatch.setattr(bench.cli.doctor, "machine_facts", lambda device: HERE)
    text = (home / "own.toml").read_text(encoding="utf-8").partition("[variants.spo]")[0]
    (home / "own.toml").write_text(text.replace('"mini"', f'"random:{family}"'), encoding="utf-8")
    answer = cli("doctor", "own.toml")
    assert answer.code == 0, answer.err
    assert f"random:{family}" in answer.out
    assert "at the peak" in answer.out
    assert "which fits" in answer.out


def test_weights_that_variants_share_are_listed_once(cli, weights):
    weights.append(needed("spo", "mini unet", 3 << 20))
    (row,) = (line for line in cli("doctor", "own.toml").out.splitlines() if line.startswith("mini unet"))
    assert "base, spo" in row


def test_a_disk_that_is_too_small_ends_with_6(cli, weights, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 1, 99))
    answer = cli("doctor", "own.toml")
    assert answer.code == 6
    assert "99.0 B free" in answer.err


def test_without_torch_it_says_so_and_ends_with_6(cli, weights, monkeypatch):
    def no_torch(wish):
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(bench.cli.doctor, "pick_device", no_torch)
    answer = cli("doctor", "own.toml")
    assert answer.code == 6
    assert "torch cannot be imported" in answer.out
    assert "next: pip install torch" in answer.err


def test_nothing_is_written(cli, weights, home):
    before = sorted(home.rglob("*"))
    cli("doctor", "own.toml", "-o", "deep/below/there")
    assert sorted(home.rglob("*")) == before


def test_in_20_columns(cli, weights, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert "device\n" in cli("doctor", "own.toml").out


# --- what is estimated ----------------------------------------------------------------------

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
FULL = {"width = 64": "width = 1024", "height = 64": "height = 1024", 'sampler = "ddim"': 'sampler = "ddim"\nbatch = 4'}


def write_full(home, dtype, lora=False):
    """The suite at SDXL's size; without its LoRA, unless target, beside which the base's weights are kept."""
    text = (home / "own.toml").read_text(encoding="utf-8").replace('"mini"', f'"{SDXL}"')
    for old, new in (FULL | {"guidance_scale = 3.0": f'guidance_scale = 3.0\ndtype = "{dtype}"'}).items():
        assert old in text
        text = text.replace(old, new)
    if not lora:
        text = text.replace('loras = [{ path = "mini:spo", weight = 0.5 }]', "")
    (home / "full.toml").write_text(text, encoding="utf-8")


def test_memory_that_fits_is_estimated_with_what_it_rests_on(cli, weights, home):
    write_full(home, "bfloat16")
    answer = cli("doctor", "full.toml")
    assert answer.code == 0
    assert "about 14.4 GiB at the peak (decoding, base)" in answer.out
    assert "16.3 GiB of 24.0 GiB, which fits" in answer.out
    assert "Counted: the weights of the model of that name and the activations" in answer.out


def test_weights_that_are_kept_beside_a_lora_are_estimated(cli, weights, home):
    write_full(home, "bfloat16", lora=True)
    answer = cli("doctor", "full.toml")
    assert "about 23.4 GiB at the peak (decoding, spo)" in answer.out
    assert "are kept as they were: 9.04 GiB" in answer.out


def test_memory_that_does_not_fit_names_the_settings_that_would(cli, weights, home):
    write_full(home, "float16")
    answer = cli("doctor", "full.toml")
    assert answer.code == 6
    assert "Suite own is not expected to fit into memory: it needs about" in answer.err
    assert "next: In [settings], batch = 3 would take" in answer.err
    assert "Ready" not in answer.err
    assert "which does NOT fit" in answer.out
    sliced = "vae_slicing = true would take 12.8 GiB"
    assert f'batch = 3 would take 21.1 GiB; or {sliced}; or dtype = "bfloat16" would take 16.3 GiB' in answer.out
    found = json.loads(cli("doctor", "full.toml", "--json").out)["memory"]
    assert (found["fits"], len(found["advice"])) == (False, 3)


def test_time_is_that_of_the_folders_own_timings(cli, weights, run_folder):
    run = load_run(run_folder)
    suite_of_run = replace(run.info.suite, source="own.toml")
    found = estimate(suite_of_run, run.info.machine, (), run_folder)[1]
    assert found.render_s == pytest.approx(8 * suite_of_run.samples * seconds_of_all_variants(suite_of_run, run))
    assert time_words(found).startswith("about ")


def test_time_that_cannot_be_told_names_the_command_that_tells_it(cli, weights):
    answer = cli("doctor", "own.toml")
    assert "not known" in answer.out
    assert "hotart-bench measure own.toml" in answer.out


JUDGES = """
[judges.own]
command = ["python-that-is-not-here", "judge.py"]

[judges.unasked]
vlm = "nobody/nothing"
"""


def asked_by(home, name):
    """Lets the suite of the folder be scored by the answers of one judge, about one of its prompts."""
    suite = home / "own.toml"
    text = re.sub(r"(?m)^metrics = .*$", f'metrics = ["soft-tifa-am-{name}"]', suite.read_text("utf-8"))
    suite.write_text(re.sub(r"(?ms)^\[limits\].*?(?=^\[|\Z)", "", text) + JUDGES, encoding="utf-8")
    question = {"id": make_id("a red boat"), "question": "Is there a boat?"}
    (home / "two.questions.jsonl").write_text(json.dumps(question) + "\n", encoding="utf-8")


def test_it_says_who_is_to_answer_questions_and_that_a_program_is_missing(cli, weights, home):
    asked_by(home, "own")
    answer = cli("doctor", "own.toml")
    assert answer.code == 6
    assert "1 about 1 prompt of 2" in answer.out
    assert "python-that-is-not-here is not a program here" in answer.out
    assert "nobody/nothing" not in answer.out
    assert "The judge 'own' cannot be asked" in answer.err


def test_missing_weights_of_a_judge_end_with_3_and_the_command_that_gets_them(cli, weights, home):
    asked_by(home, "unasked")
    answer = cli("doctor", "own.toml")
    assert answer.code == 3
    assert "nobody/nothing." in answer.err
    assert "next: hotart-bench fetch own.toml" in answer.err


def test_what_is_said_of_settings_stands_under_their_name(cli, weights, home):
    text = (home / "own.toml").read_text(encoding="utf-8")
    changed = re.sub(r"guidance_scale = .*", "guidance_scale = 1.0\nguidance_rescale = 0.5", text)
    assert changed != text
    (home / "own.toml").write_text(changed, encoding="utf-8")
    (row,) = (line for line in cli("doctor", "own.toml").out.splitlines() if "guidance_rescale" in line)
    assert row.startswith("settings")
