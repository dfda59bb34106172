"""The shipped prompt sets and suites keep the rules of prompts/README.md."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from open_clip.tokenizer import SimpleTokenizer

from bench.records import Prompt
from bench.suite import list_prompt_sets, load_suite, read_prompts
from bench.suite.sampling import few_steps_of

PROMPTS = Path(__file__).parents[2] / "prompts"
README = (PROMPTS / "README.md").read_text(encoding="utf-8")
SPO_HASHES = PROMPTS / "spo-4k-normalised.sha256"

# set file -> (its own tag, how many prompts); a published set is never edited, so the counts are exact.
SETS = {
    "portraits.jsonl": ("portrait", 41),
    "landscapes.jsonl": ("landscape", 41),
    "lighting.jsonl": ("lighting", 36),
    "people.jsonl": ("people", 36),
    "binding.jsonl": ("binding", 46),
    "styles.jsonl": ("style", 40),
    "long.jsonl": ("over-77-tokens", 20),
    "short.jsonl": ("short", 22),
}
PROMPTS_OF: dict[str, tuple[Prompt, ...]] = {name: read_prompts(PROMPTS / name) for name in SETS}
ALL = [prompt for prompts in PROMPTS_OF.values() for prompt in prompts]
CLIP_CONTEXT = 77

# The most alike pair of the sets as published has a token Jaccard of 0.28 and a 4-gram Jaccard of 0.14; a
# prompt with one noun exchanged has about 0.8.
MOST_TOKEN_JACCARD = 0.35
MOST_4GRAM_JACCARD = 0.20


def normalise(prompt: str) -> str:
    """NFKC, casefolded, letters and digits only."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", prompt).casefold() if letter.isalnum())


def short_hash(prompt: str) -> str:
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()[:16]


def words(prompt: str) -> list[str]:
    return re.findall(r"\w+", prompt.casefold())


def four_grams(prompt: str) -> set[str]:
    text = " ".join(words(prompt))
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def near_duplicates(prompts: list[str]) -> list[tuple[str, str]]:
    sides = [(prompt, set(words(prompt)), four_grams(prompt)) for prompt in prompts]
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(sides, 2)
        if jaccard(a[1], b[1]) > MOST_TOKEN_JACCARD or jaccard(a[2], b[2]) > MOST_4GRAM_JACCARD
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return SimpleTokenizer()


@pytest.mark.parametrize("name", SETS)
def test_each_line_has_only_the_documented_fields_in_their_order(name: str) -> None:
    for line in (PROMPTS / name).read_text(encoding="utf-8").splitlines():
        fields = [key for key, _ in json.loads(line, object_pairs_hook=list)]
        assert fields in (["id", "prompt", "tags", "probes"], ["id", "prompt", "negative", "tags", "probes"])


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_as_many_prompts_as_published_and_as_documented(name: str) -> None:
    assert len(PROMPTS_OF[name]) == SETS[name][1]
    assert f"| `{name}` | {SETS[name][1]} |" in README


def test_the_sets_together_are_at_least_240() -> None:
    assert len(ALL) == sum(count for _, count in SETS.values()) >= 240
    assert f"{len(ALL)} prompts without `mini`" in README


def test_ids_are_unique_over_all_sets_and_well_formed() -> None:
    files = [PROMPTS / name for name in list_prompt_sets()]
    ids = [prompt.id for path in files for prompt in read_prompts(path)]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    assert [prompt.id for prompt in ALL if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", prompt.id)] == []


def test_tags_are_the_documented_vocabulary_and_each_is_used_three_times() -> None:
    kinds = "set|subject|light|medium|test"
    documented = re.findall(rf"^\| `([a-z0-9-]+)` \| (?:{kinds}) \|", README, re.MULTILINE)
    used = Counter(tag for prompt in ALL for tag in prompt.tags)
    assert sorted(used) == sorted(documented)
    assert {tag: count for tag, count in used.items() if count < 3} == {}


def test_a_prompt_begins_with_its_sets_own_tag_and_has_two_to_six_different_ones() -> None:
    own_tags = {tag for tag, _ in SETS.values()}
    for name, prompts in PROMPTS_OF.items():
        for prompt in prompts:
            assert prompt.tags[0] == SETS[name][0], prompt.id
            assert own_tags.isdisjoint(prompt.tags[1:]), prompt.id
            assert 2 <= len(prompt.tags) == len(set(prompt.tags)) <= 6, prompt.id


def test_every_prompt_says_what_it_probes_and_no_two_say_the_same() -> None:
    assert [prompt.id for prompt in ALL if len(words(prompt.probes)) < 3] == []
    counts = Counter(normalise(prompt.probes) for prompt in ALL)
    assert [probe for probe, count in counts.items() if count > 1] == []


def test_prompts_are_clean_text() -> None:
    for prompt in ALL:
        for text in (prompt.text, prompt.negative, prompt.probes):
            assert text == " ".join(text.split()), prompt.id
            assert text == unicodedata.normalize("NFC", text), prompt.id


def test_no_prompt_carries_quality_words() -> None:
    tuning = {"masterpiece", "8k", "4k", "hd", "uhd", "hdr", "trending", "hyperrealistic", "award"}
    assert [prompt.id for prompt in ALL if tuning.intersection(words(prompt.text))] == []


def test_only_the_long_set_goes_over_77_clip_tokens(tokenizer: Any) -> None:
    for name, prompts in PROMPTS_OF.items():
        for prompt in prompts:
            tokens = len(tokenizer.encode(prompt.text)) + 2  # start and end
            assert (tokens > CLIP_CONTEXT) == (name == "long.jsonl"), (prompt.id, tokens)


def test_the_late_detail_of_a_long_prompt_is_quoted_and_starts_after_token_77(tokenizer: Any) -> None:
    controls = 0
    for prompt in PROMPTS_OF["long.jsonl"]:
        quoted = re.fullmatch(r'.* after token 77: "([^"]+)"', prompt.probes)
        if quoted is None:
            assert prompt.probes.startswith("control: "), prompt.id
            controls += 1
            continue
        before, found, _ = prompt.text.partition(quoted[1])
        assert found, prompt.id
        position = 1 + len(tokenizer.encode(before)) + 1  # the start token is number 1
        assert position > CLIP_CONTEXT, (prompt.id, position)
    assert controls == 2


def test_short_prompts_have_one_to_four_words() -> None:
    assert [prompt.id for prompt in PROMPTS_OF["short.jsonl"] if not 1 <= len(words(prompt.text)) <= 4] == []


def test_no_two_prompts_begin_with_the_same_five_words() -> None:
    counts = Counter(tuple(words(prompt.text)[:5]) for prompt in ALL)
    assert [start for start, count in counts.items() if count > 1] == []


def test_no_two_prompts_are_near_duplicates() -> None:
    assert near_duplicates([prompt.text for prompt in ALL]) == []


def test_an_exchanged_noun_is_seen_as_a_near_duplicate() -> None:
    prompt = ALL[0].text
    variation = prompt.replace(words(prompt)[-1], "lantern")
    assert near_duplicates([prompt, variation]) == [(prompt, variation)]


def test_no_prompt_is_one_that_spo_was_trained_on() -> None:
    trained_on = set(spo_hashes())
    assert [prompt.id for prompt in ALL if short_hash(prompt.text) in trained_on] == []


def test_the_list_of_spo_prompts_is_whole_and_matches_whatever_case_and_punctuation() -> None:
    hashes = spo_hashes()
    assert len(hashes) == 3982  # of 4,000: some differ only in case or punctuation, one is an emoji alone
    assert hashes == sorted(set(hashes))
    assert all(re.fullmatch(r"[0-9a-f]{16}", line) for line in hashes)
    # The one-word prompt "hand" is among them.
    assert short_hash("  HAND! ") in hashes
    assert short_hash("hand lantern") not in hashes


def spo_hashes() -> list[str]:
    lines = SPO_HASHES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_the_shipped_suites_are_these_and_documented() -> None:
    names = sorted(path.name for path in PROMPTS.glob("*.toml"))
    assert names == ["mini.toml", "sd15.toml", "sdxl-fast.toml", "sdxl-paper.toml", "sdxl-vpred.toml", "sdxl.toml"]
    assert all(f"| `{name}` |" in README for name in names)


@pytest.mark.parametrize(
    ("name", "width", "sampler", "steps", "guidance_scale", "dtype"),
    [
        ("sdxl", 1024, "euler", 30, 7.0, "float16"),
        ("sdxl-paper", 1024, "ddim", 20, 5.0, "float16"),
        ("sdxl-fast", 1024, "euler", 4, 0.0, "float16"),
        ("sdxl-vpred", 1024, "euler", 28, 5.0, "float16"),
        ("sd15", 512, "dpmpp_2m", 30, 7.5, "float16"),
    ],
)
def test_a_full_size_suite_holds_all_sets_and_its_settings(
    name: str, width: int, sampler: str, steps: int, guidance_scale: float, dtype: str
) -> None:
    suite = load_suite(name)
    got = suite.settings
    assert (got.width, got.height) == (width, width)
    assert (got.sampler, got.steps, got.guidance_scale, got.dtype) == (sampler, steps, guidance_scale, dtype)
    assert suite.prompt_files == tuple(SETS)
    assert len(suite.prompts) == len(ALL)


@pytest.mark.parametrize("name", ["sdxl", "sdxl-paper", "sd15"])
def test_full_size_variants_share_one_pinned_checkpoint_and_vae_and_differ_as_named(name: str) -> None:
    base, dpo, spo = load_suite(name).variants
    assert (base.name, dpo.name, spo.name) == ("base", "dpo", "spo")
    assert len({(variant.checkpoint, variant.revision, variant.vae) for variant in (base, dpo, spo)}) == 1
    assert re.fullmatch(r"[0-9a-f]{40}", base.revision or "")
    assert (base.unet, base.loras) == (None, ())
    assert dpo.unet is not None
    assert dpo.loras == ()
    assert spo.unet is None
    assert [lora.weight for lora in spo.loras] == [1.0]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+:[\w.-]+\.safetensors", spo.loras[0].path)


def test_few_step_variants_are_drawn_as_their_cards_say() -> None:
    suite = load_suite("sdxl-fast")
    assert suite.settings.schedule == "simple"
    assert len({(variant.checkpoint, variant.revision, variant.vae) for variant in suite.variants}) == 1
    assert all(few_steps_of(variant) is not None for variant in suite.variants)
    assert suite.metrics == load_suite("sdxl").metrics == load_suite("sdxl-vpred").metrics
    assert [note for note in suite.notes if "negative prompt" not in note] == []


def test_the_suite_of_v_prediction_rescales_its_guidance() -> None:
    settings = load_suite("sdxl-vpred").settings
    assert (settings.schedule, settings.guidance_rescale) == ("simple", 0.5)


def test_the_mini_suite_is_24_prompts_times_2_samples_of_three_variants() -> None:
    suite = load_suite("mini")
    assert (len(suite.prompts), suite.samples, suite.seed) == (24, 2, 0)
    assert [variant.name for variant in suite.variants] == ["base", "dpo", "spo"]
    assert {variant.checkpoint for variant in suite.variants} == {"mini"}
    loras = [[lora.path for lora in variant.loras] for variant in suite.variants]
    assert loras == [[], ["mini:dpo"], ["mini:spo"]]
    assert (suite.measure.rounds, suite.measure.images, suite.measure.warmups) == (2, 5, 1)
