import json
import re
import statistics

import pytest
from suites import write_suite

from bench.metrics import all_facts, installed
from bench.suite import list_prompt_sets, list_suites, load_suite, prompts_folder, read_prompts
from bench.suite.tokens import count_tokens


def test_suites(cli):
    answer = cli("list", "suites", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = {row["suite"]: row for row in json.loads(answer.out)}
    assert tuple(found) == list_suites()
    mini = load_suite("mini")
    assert found["mini"]["images"] == len(mini.prompts) * mini.samples * len(mini.variants)
    table = cli("list", "suites")
    assert all(f"\n{name} " in table.out for name in list_suites())


def test_variants_of_one_suite_and_of_all(cli):
    one = json.loads(cli("list", "variants", "mini", "--json").out)
    assert [row["variant"] for row in one] == [variant.name for variant in load_suite("mini").variants]
    every = json.loads(cli("list", "variants", "--json").out)
    assert {row["suite"] for row in every} == set(list_suites())
    assert "mini:spo × 1" in cli("list", "variants", "mini").out


def test_variants_of_a_suite_file(cli, home):
    out = cli("list", "variants", "own.toml").out
    assert "mini:spo × 0.5" in out
    write_suite(home, "weight = 0.5", 'unet = 0, blocks = { M00 = 0.2 }, leave_out = ["bundle_emb"]')
    out = cli("list", "variants", "own.toml").out
    assert "mini:spo × 1 (UNet × 0, M00 × 0.2, without bundle_emb)" in " ".join(out.split())


def test_a_runtime_is_listed_with_its_variant(cli, home):
    text = (home / "own.toml").read_text("utf-8")
    (home / "fast.toml").write_text(text + 'runtime = "deepcache:2"\n', "utf-8")
    assert "mini, by deepcache:2" in cli("list", "variants", "fast.toml").out
    assert [one["runtime"] for one in json.loads(cli("list", "variants", "fast.toml", "--json").out)] == [
        None,
        "deepcache:2",
    ]


def test_metrics(cli):
    answer = cli("list", "metrics", "--json")
    known = [*all_facts(), *(one.facts for one in installed().step_metrics.values())]
    assert [row["name"] for row in json.loads(answer.out)] == [facts.name for facts in known]
    table = cli("list", "metrics").out
    assert all(facts.name in table and facts.summary in table for facts in known)
    assert re.search(r"^mini-step-aware +at a step", table, re.MULTILINE)


@pytest.mark.parametrize("name", ["pickscore", "aesthetic-v2", "saturation"])
def test_one_metric_says_all_of_itself(name, cli):
    answer = cli("list", "metrics", name)
    assert (answer.code, answer.err) == (0, "")
    (facts,) = [facts for facts in all_facts() if facts.name == name]
    told = " ".join(answer.out.split())
    for fact in (
        facts.version,
        facts.unit,
        facts.encoder or "none",
        ", ".join(facts.trained_on) or "nothing",
        facts.training_data,
        facts.licence,
    ):
        assert fact in told
    assert facts.reference in told
    assert [row["name"] for row in json.loads(cli("list", "metrics", name, "--json").out)] == [name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pickscore", ["yuvalkirstain/PickScore_v1/model.safetensors: trusted at first sight, then locked"]),
        ("imagereward", ["ImageReward.pt: sha256 known", "vocab.txt: sha256 known", "med_config.json: trusted at"]),
        ("aesthetic-v1", ["sa_0_4_vit_l_14_linear.pth: trusted at first sight, then locked, commit 7e37768a02b0"]),
    ],
)
def test_a_metric_says_of_each_weight_file_how_it_is_known(name, said, cli):
    out = " ".join(cli("list", "metrics", name).out.split())
    for words in said:
        assert words in out


def test_the_overlap_with_each_variant_of_a_suite(cli):
    rows = json.loads(cli("list", "metrics", "--for", "sdxl", "--json").out)
    labels = {row["name"]: row["training_overlap"] for row in rows}
    assert labels["pickscore"] == {"base": "none", "dpo": "same data", "spo": "same data"}
    assert labels["hpsv2.1"] == {"base": "none", "dpo": "related data", "spo": "related data"}
    assert re.search(
        r"^pickscore +preference +higher +none +same data +same data", cli("list", "metrics", "--for", "sdxl").out, re.M
    )


def test_what_the_variants_of_a_suite_were_trained_on(cli):
    told = cli("list", "variants", "sd15").out
    assert "mhdang/dpo-sd1.5-text2image-v1: trained on pick-a-pic (known by name only)" in told


def test_a_metric_that_is_not_there_is_told_with_the_nearest(cli):
    answer = cli("list", "metrics", "pickscor")
    assert answer.code == 2
    assert "did you mean 'pickscore'?" in answer.err


@pytest.mark.parametrize("what", ["suites", "variants", "metrics", "prompts"])
def test_lists_fit_80_columns(what, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, cli("list", what).out.splitlines())) <= 80


def test_prompt_sets(cli):
    rows = json.loads(cli("list", "prompts", "--json").out)
    assert len(rows) == len(list_prompt_sets())
    for row in rows:
        prompts = read_prompts(prompts_folder() / f"{row['set']}.jsonl")
        tokens = [count_tokens(prompt.text) for prompt in prompts]
        assert row["prompts"] == len(prompts)
        assert row["tokens_median"] == statistics.median(tokens)
        assert (row["tokens_min"], row["tokens_max"]) == (min(tokens), max(tokens))
        assert row["over_77"] == sum(count > 77 for count in tokens)
        assert sum(row["tags"].values()) == sum(len(prompt.tags) for prompt in prompts)


def test_the_set_of_long_prompts_is_over_77_tokens(cli):
    (row,) = json.loads(cli("list", "prompts", "long", "--json").out)
    assert row["over_77"] == row["prompts"]


@pytest.mark.parametrize("name", ["people", "people.jsonl"])
def test_one_set_by_name_with_all_its_tags(name, cli):
    out = cli("list", "prompts", name).out
    tags = {tag for prompt in read_prompts(prompts_folder() / "people.jsonl") for tag in prompt.tags}
    assert tags <= {line.split()[0] for line in out.splitlines() if line}


def test_what_is_not_taken_of_a_prompt_file_is_said(cli, home):
    (home / "two.txt").write_text('--prompt "a red boat" --steps 30\n(kite:1.2)\n', encoding="utf-8")
    said = ["two.txt: fields that are not taken: steps.", "two.txt: 1 prompt holds syntax of other programs"]
    for words in (("list", "prompts", "two.txt"), ("doctor", "own.toml", "--device", "cpu")):
        out = " ".join(cli(*words).out.split())
        for sentence in said:
            assert sentence in out, words
    (row,) = json.loads(cli("list", "prompts", "two.txt", "--json").out)
    assert [note.startswith(part) for note, part in zip(row["notes"], said, strict=True)] == [True, True]


def test_a_folder_of_prompts(cli, home):
    (home / "dpg").mkdir()
    (home / "dpg" / "7.txt").write_text("a boat", encoding="utf-8")
    (row,) = json.loads(cli("list", "prompts", "dpg", "--json").out)
    assert (row["set"], row["prompts"]) == ("dpg", 1)


def test_a_prompt_file_of_ones_own(cli, home):
    (row,) = json.loads(cli("list", "prompts", "two.txt", "--json").out)
    assert row == {
        "set": "two",
        "prompts": 2,
        "questions": 0,
        "tags": {},
        "tokens_min": 5,
        "tokens_median": 5,
        "tokens_max": 5,
        "over_77": 0,
        "negative": 0,
        "spo_training_prompts": [],
        "notes": [],
    }


JUDGED = """
schema = 2
name = "j"
prompts = ["mini.jsonl"]
metrics = ["mini-clip", "soft-tifa-gm-toy"]
[settings]
width = 64
height = 64
steps = 2
guidance_scale = 3.0
sampler = "ddim"
[judges.toy]
command = ["toy"]
[limits]
soft-tifa-gm-toy = "0.05"
[variants.base]
checkpoint = "mini"
[variants.dpo]
checkpoint = "mini"
loras = [{ path = "mini:dpo" }]
[variants.spo]
checkpoint = "mini"
trained_on = ["soft-tifa-gm-toy"]
"""


def test_the_metrics_of_a_suites_judge_are_metrics_and_may_be_trained_on(cli, home):
    (home / "j.toml").write_text(JUDGED, encoding="utf-8")
    rows = {row["name"]: row for row in json.loads(cli("list", "metrics", "--for", "j.toml", "--json").out)}
    assert rows["soft-tifa-gm-toy"]["training_overlap"] == {"base": "none", "dpo": "unknown", "spo": "same data"}
    assert "a judge of the suite; not said" in cli("list", "metrics", "soft-tifa-gm-toy", "--for", "j.toml").out
    assert "trained on soft-tifa-gm-toy (as the suite says)" in cli("list", "variants", "j.toml").out
    (home / "j.toml").write_text(JUDGED.replace('"0.05"', '"+0.05"'), encoding="utf-8")
    refused = cli("run", "j.toml", "-o", "out")
    assert refused.code == 2
    assert "limits.soft-tifa-gm-toy" in refused.err
