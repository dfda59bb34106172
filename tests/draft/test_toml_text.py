"""TOML of texts and tables, read back by Python's own reader."""

from __future__ import annotations

import tomllib
from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.draft.toml_text import field, inline, key, string
from bench.errors import UsageError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@given(text=TEXTS)
def test_any_text_comes_back(text):
    assert tomllib.loads(f"x = {string(text)}") == {"x": text}


@given(name=TEXTS, text=TEXTS)
def test_any_name_and_table_come_back(name, text):
    assert tomllib.loads(field(name, text)) == {name: text}
    assert tomllib.loads(f"x = [{inline({'path': text, 'weight': 0.8})}]") == {"x": [{"path": text, "weight": 0.8}]}


@given(texts=st.lists(TEXTS, max_size=8))
def test_a_list_comes_back_on_one_line_or_many(texts):
    assert tomllib.loads(field("x", texts)) == {"x": texts}


def test_paths_of_windows_are_literal_unless_they_hold_a_single_quote():
    assert string(str(PureWindowsPath(r"C:\models\new.safetensors"))) == r"'C:\models\new.safetensors'"
    assert string(r"C:\bob's\new.safetensors") == r'"C:\\bob' + r"'s\\new.safetensors" + '"'
    assert string("models/new.safetensors") == '"models/new.safetensors"'


def test_names_are_bare_where_they_may_be():
    assert (key("old-spo"), key("v9.5"), key("")) == ("old-spo", '"v9.5"', '""')
    assert field("x", True) == "x = true"


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(UsageError, match="not UTF-8"):
        string("x\udcff.safetensors")
