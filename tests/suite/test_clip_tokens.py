import subprocess
import sys
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.suite import list_prompt_sets, prompts_folder, read_prompts
from bench.suite.tokens import CONTEXT, count_tokens


@lru_cache(maxsize=1)
def open_clip_tokenizer():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@pytest.mark.parametrize("name", list_prompt_sets())
def test_equals_open_clip_on_every_shipped_prompt(name):
    oracle = open_clip_tokenizer()
    for prompt in read_prompts(prompts_folder() / name):
        assert count_tokens(prompt.text) == len(oracle.encode(prompt.text)) + 2, prompt.text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_equals_open_clip_on_any_text(text):
    assert count_tokens(text) == len(open_clip_tokenizer().encode(text)) + 2


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 2),
        ("   ", 2),
        ("a photo of a cat", 7),
        ("A  PHOTO\tof a\ncat", 7),
        ("cat &amp;amp; dog", 5),
        ("it's", 4),
        ("2024", 6),
        ("<end_of_text>", 3),
    ],
)
def test_counts_start_and_end_and_cleans_as_clip_does(text, tokens):
    assert count_tokens(text) == tokens


def test_context_is_that_of_clip():
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH

    assert CONTEXT == DEFAULT_CONTEXT_LENGTH


def test_counting_imports_no_torch():
    code = "import sys, bench.suite.tokens as c; c.count_tokens('a'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b"False"
