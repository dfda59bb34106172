"""Runtimes as suite files write them: what is read, what cannot be, and what this machine lacks for them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import MachineError, SuiteError, UsageError
from bench.records import Lora, Settings, Variant
from bench.suite import load_suite, protocol_digest, runtimes
from bench.suite.attribution import attribution_suite
from bench.suite.runtimes import (
    QUANTIZED,
    Runtime,
    missing_of,
    parse_runtime,
    problems_of_runtime,
    refuse_runtimes,
    told_runtime,
)

SETTINGS = Settings(width=64, height=64, steps=20, guidance_scale=3.0, sampler="ddim")


def fast(runtime: str, **fields: object) -> Variant:
    return msgspec.structs.replace(Variant(name="fast", checkpoint="mini", runtime=runtime), **fields)


# --- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("torchao-int8", Runtime("torchao-int8")),
        ("deepcache:3", Runtime(interval=3)),
        ("compile", Runtime(compiled=True)),
        ("compile+torchao-fp8", Runtime("torchao-fp8", compiled=True)),
        ("deepcache:2+torchao-int8-weights", Runtime("torchao-int8-weights", 2)),
    ],
)
def test_each_part_is_read_alone_and_joined_in_any_order(text: str, found: Runtime) -> None:
    assert parse_runtime(text) == found


@given(st.sampled_from(("", *QUANTIZED)), st.none() | st.integers(1, 999), st.booleans())
def test_what_a_runtime_is_called_is_read_as_that_runtime(quantized: str, interval: int | None, compiled: bool) -> None:
    runtime = Runtime(quantized, interval, compiled and interval is None)
    if runtime.text:
        assert parse_runtime(runtime.text) == runtime


@given(st.text(alphabet="torchaoindepkmulf83-:+ ²", max_size=24))
def test_any_other_text_is_refused_in_a_sentence(text: str) -> None:
    try:
        found = parse_runtime(text).text
    except UsageError as error:
        found = error.message
    assert found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "torchao-int4",
            "'torchao-int4' is no runtime (did you mean 'torchao-int8'?); there are compile, deepc",
        ),
        ("deepcahe:3", "(did you mean 'deepcache'?)"),
        ("", "'' is no runtime; there are"),
        ("compile+", "'' is no runtime"),
        ("deepcache", "in how many steps the whole UNet is computed once, as in deepcache:3"),
        ("deepcache:0", "as in deepcache:3"),
        ("deepcache:2.5", "as in deepcache:3"),
        ("deepcache:1000", "as in deepcache:3"),
        ("deepcache:2+deepcache:3", "two parts of one kind"),
        ("torchao-int8+torchao-fp8", "two parts of one kind"),
        ("compile+compile", "two parts of one kind"),
        ("compile+deepcache:3", "which one compiled graph cannot; take one of the two"),
    ],
)
def test_what_is_no_runtime_is_refused_with_the_nearest(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_runtime(text)
    assert sentence in error.value.message


# --- in a suite ----------------------------------------------------------------------------


def write(folder: Path, runtime: str) -> str:
    return str(tiny.write_tiny(folder, "weight = 0.5 }]\n", f'weight = 0.5 }}]\nruntime = "{runtime}"\n'))


def test_a_runtime_belongs_to_its_variant_and_changes_no_protocol(tmp_path: Path) -> None:
    plain = load_suite(str(tiny.write_tiny(tmp_path / "plain")))
    suite = load_suite(write(tmp_path / "fast", "deepcache:2"))
    assert [one.runtime for one in suite.variants] == [None, "deepcache:2"]
    assert protocol_digest(suite) == protocol_digest(plain)


def test_a_suite_names_the_file_the_variant_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"tiny\.toml: variants\.spo\.runtime: 'deepcach:2' is no runtime \(did you m"):
        load_suite(write(tmp_path, "deepcach:2"))
    with pytest.raises(SuiteError, match=r"variants\.spo\.runtime: with 3 steps, deepcache:3 .*an interval of 2 to 2"):
        load_suite(write(tmp_path, "deepcache:3"))


BY_STEP = (Lora(path="a.safetensors", step_factors=((0.0, 1.0), (0.5, 0.0))),)
PLAIN = (Lora(path="a.safetensors"),)


@pytest.mark.parametrize(
    ("variant", "settings", "problem"),
    [
        (fast("torchao-int8", loras=BY_STEP), {}, "weights that change by step cannot be quantised"),
        (fast("torchao-int8", unet_steps=((0.0, "b"),)), {}, "weights that change by step cannot be quantised"),
        (fast("deepcache:2", loras=BY_STEP), {}, ""),
        (fast("deepcache:20"), {}, "an interval of 2 to 19"),
        (fast("deepcache:19"), {}, ""),
        (fast("deepcache:2"), {"steps": 2}, "3 steps or more"),
        (fast("deepcache:2"), {"sampler": "heun"}, "heun asks the UNet twice in a step"),
        (fast("compile"), {"compile": True}, "settings.compile compiles every variant already"),
        (fast("deepcache:2"), {"compile": "whole"}, 'which settings.compile = "whole" cannot'),
        (fast("deepcache:2"), {"compile": True}, ""),
        (fast("torchao-int8"), {"compile": True}, ""),
        (fast("compile", loras=PLAIN, fuse=False), {}, "leave out fuse = false"),
        (fast("torchao-int8", loras=PLAIN, fuse=False), {}, ""),
    ],
)
def test_what_makes_no_sense_together_is_told(variant: Variant, settings: dict[str, object], problem: str) -> None:
    found = list(problems_of_runtime(variant, msgspec.structs.replace(SETTINGS, **settings)))
    assert len(found) == bool(problem)
    assert all(one.startswith("variants.fast.runtime") and problem in one for one in found)


def test_a_variant_with_a_runtime_is_not_attributed_to_steps() -> None:
    suite = load_suite("mini")
    faster = msgspec.structs.replace(suite.variants[2], runtime="deepcache:3")
    suite = msgspec.structs.replace(suite, variants=(suite.variants[0], faster))
    with pytest.raises(UsageError, match="spo has the runtime deepcache:3, which takes no notice of weights by step"):
        attribution_suite(suite, "spo", 5, lambda _: False)


# --- on this machine -----------------------------------------------------------------------


def test_the_packages_of_a_runtime_are_told_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "package_version", {"torchao": "0.18.0", "DeepCache": "0.1.1"}.get)
    assert told_runtime(fast("deepcache:3+torchao-int8")) == (
        "torchao-int8+deepcache:3 (torchao 0.18.0, DeepCache 0.1.1)"
    )
    assert told_runtime(fast("compile")) == "compile"
    assert told_runtime(Variant(name="base", checkpoint="mini")) == ""


@pytest.mark.parametrize(("runtime", "package"), [("torchao-int8", "torchao"), ("deepcache:2", "DeepCache")])
def test_a_package_that_is_missing_is_named_with_the_extra(
    runtime: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "package_version", lambda _: None)
    with pytest.raises(MachineError) as error:
        refuse_runtimes([Variant(name="base", checkpoint="mini"), fast(runtime)])
    assert error.value.message == (f"Variant fast has the runtime {runtime}: the package {package} is not installed.")
    assert error.value.hint == 'pip install "hotart-bench[runtimes]"'


CARDS = {
    "H100": (SimpleNamespace(name="H100", major=9, minor=0), None, True),
    "L4": (SimpleNamespace(name="L4", major=8, minor=9), None, True),
    "A100": (SimpleNamespace(name="A100", major=8, minor=0), None, False),
    "MI300X": (SimpleNamespace(name="MI300X", major=9, minor=4, gcnArchName="gfx942:sramecc+"), "6.4", True),
    "MI250": (SimpleNamespace(name="MI250", major=9, minor=0, gcnArchName="gfx90a"), "6.4", False),
}


@pytest.mark.parametrize("card", CARDS)
def test_8_bit_floats_are_drawn_where_the_card_multiplies_them(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    properties, hip, able = CARDS[card]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.version, "hip", hip)
    found = list(missing_of(fast("torchao-fp8"), "cuda:0"))
    assert not found if able else card in found[0][0]


@pytest.mark.parametrize(("runtime", "device"), list(product(QUANTIZED, ("cpu", "mps", None))))
def test_a_device_without_a_kind_of_product_is_told_before_anything_is_drawn(runtime: str, device: str | None) -> None:
    able = device is None or (runtime, device) in {("torchao-int8", "cpu")} or runtime == "torchao-int8-weights"
    assert (not list(missing_of(fast(runtime), device))) is able
