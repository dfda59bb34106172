"""What a variant was trained on, as far as somebody says so."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.errors import SuiteError, UsageError
from bench.metrics import all_facts, training_of_metrics
from bench.metrics.training_data import overlap_with
from bench.records import Lora, TrainedOn, Variant
from bench.suite import load_suite
from bench.trained_on import check_suite, find_training

METRICS = training_of_metrics()


def found(variant: Variant) -> TrainedOn:
    return find_training(variant, None, METRICS)


def with_lora(path: str, trained_on: tuple[str, ...] | None = None) -> TrainedOn:
    return found(Variant(name="v", checkpoint="mini", loras=(Lora(path=path, trained_on=trained_on),)))


def file_of(path: Path, **metadata: str) -> str:
    save_file({"x": np.zeros(1, np.float32)}, path, {f"modelspec.{name}": text for name, text in metadata.items()})
    return str(path)


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", ()),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", ()),
        ("mhdang/dpo-sdxl-text2image-v1", ("pick-a-pic",)),
        ("mhdang/dpo-sd1.5-text2image-v1", ("pick-a-pic",)),
        ("mapo-t2i/mapo-beta", ("pick-a-pic",)),
        ("SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep", ("spo-step-aware-sdxl", "pickscore", "pick-a-pic")),
        ("SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep", ("spo-step-aware-sd15", "pickscore", "pick-a-pic")),
    ],
)
def test_published_weights_are_known_by_name_only(checkpoint: str, names: tuple[str, ...]) -> None:
    said = found(Variant(name="v", checkpoint=checkpoint))
    assert (said.names, said.unknown, [part.source for part in said.parts]) == (names, (), ["name"])


def test_lpo_learnt_from_pick_a_pic() -> None:
    assert "pick-a-pic" in found(Variant(name="v", checkpoint="casiatao/LPO")).names


def test_the_embedded_family_and_random_weights_are_known() -> None:
    assert with_lora("mini:dpo").names == ("mini-raters",)
    assert with_lora("mini:spo-seed1").names == ("mini-step-aware", "mini-preference", "mini-raters")
    assert found(Variant(name="v", checkpoint="random:sdxl")).names == ()
    assert found(Variant(name="v", checkpoint="random:sdxl")).unknown == ()


def test_a_file_by_a_published_name_and_one_by_another(tmp_path: Path) -> None:
    known = with_lora(file_of(tmp_path / "spo_sdxl_10ep_4k-data_lora_webui.safetensors"))
    assert ("spo-step-aware-sdxl" in known.names, known.unknown) == (True, ())
    other = with_lora(file_of(tmp_path / "mine.safetensors"))
    assert (other.names, other.unknown) == ((), ("mine.safetensors",))


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    assert with_lora(file_of(tmp_path / "a.safetensors", trained_on="hpsv2.1, pick-a-pic")).names == (
        "hpsv2.1",
        "hpd-v2",
        "pick-a-pic",
    )
    nothing = with_lora(file_of(tmp_path / "b.safetensors", trained_on="none"))
    assert (nothing.names, nothing.unknown) == ((), ())
    for number, empty in enumerate(("", " , ")):
        said = with_lora(file_of(tmp_path / f"empty-{number}.safetensors", trained_on=empty))
        assert said.unknown == (f"empty-{number}.safetensors",)
    odd = with_lora(file_of(tmp_path / "c.safetensors", trained_on="laion-x"))
    assert odd.unknown == ("c.safetensors",)
    assert "laion-x" in odd.notes[0]


def test_what_a_file_was_merged_from_proves_what_is_in_it_and_not_what_is_not(tmp_path: Path) -> None:
    titles = "sd_xl_base_1.0, dpo-sdxl-text2image-v1, My Model"
    merged = with_lora(file_of(tmp_path / "m.safetensors", merged_from=titles))
    assert (merged.names, merged.unknown) == (("pick-a-pic",), ("m.safetensors",))


def test_the_suite_counts_and_a_difference_is_said(tmp_path: Path) -> None:
    path = file_of(tmp_path / "spo_sdxl_10ep_4k-data_lora_webui.safetensors")
    said = with_lora(path, ("hpsv2",))
    assert (said.names, said.unknown) == (("hpsv2", "hpd-v2"), ())
    assert "spo-step-aware-sdxl too; the suite counts" in said.notes[0]
    whole = found(Variant(name="v", checkpoint="mini", loras=(Lora(path=path),), trained_on=()))
    assert (whole.names, whole.unknown, len(whole.notes)) == ((), (), 1)


def test_a_variant_speaks_of_all_its_parts_and_its_loras_add(tmp_path: Path) -> None:
    loras = (
        Lora(path=file_of(tmp_path / "a.safetensors")),
        Lora(path=file_of(tmp_path / "b.safetensors"), trained_on=("hpsv2",)),
    )
    said = found(Variant(name="v", checkpoint="mini", loras=loras, trained_on=("imagereward",)))
    assert (said.names, said.unknown) == (("imagereward", "imagereward-db", "hpsv2", "hpd-v2"), ())


def test_the_sources_and_loras_of_a_recipe_count(tmp_path: Path) -> None:
    file_of(tmp_path / "mine.safetensors")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'schema = 1\nmethod = "weighted_sum"\nalpha = 0.5\nmodels = ["mini", "mhdang/dpo-sdxl-text2image-v1"]\n'
        'loras = [{ path = "mini:spo" }, { path = "mine.safetensors" }]\n',
        encoding="utf-8",
    )
    said = found(Variant(name="v", checkpoint=str(recipe)))
    assert {"pick-a-pic", "mini-raters", "mini-preference"} <= set(said.names)
    assert said.unknown == ("mine.safetensors",)


SUITE = """
schema = 2
name = "s"
prompts = ["mini.jsonl"]
[settings]
width = 64
height = 64
steps = 2
guidance_scale = 3.0
sampler = "ddim"
[variants.base]
checkpoint = "mini"
[variants.spo]
checkpoint = "mini"
{line}
"""


def suite_of(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SUITE.format(line=line), encoding="utf-8")
    return path


def test_a_suite_says_what_its_variants_and_loras_were_trained_on(tmp_path: Path) -> None:
    line = 'trained_on = ["pickscore"]\nloras = [{ path = "mini:spo", trained_on = [] }]'
    suite = load_suite(str(suite_of(tmp_path, line)))
    check_suite(suite, METRICS)
    assert [one.trained_on for one in suite.variants] == [None, ("pickscore",)]
    assert suite.variants[1].loras[0].trained_on == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('trained_on = "pickscore"', r"variants\.spo\.trained_on is 'pickscore'; it is a list of names"),
        (
            'loras = [{ path = "mini:spo", trained_on = "x" }]',
            r"variants\.spo\.loras\[0\]\.trained_on is 'x'; it is a list of names",
        ),
        ("trained_on = [1]", "trained_on"),
        ('trained = ["pickscore"]', r"unknown field.*trained.*did you mean '?trained_on"),
    ],
)
def test_what_is_no_list_of_names_is_refused(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(str(suite_of(tmp_path, line)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('trained_on = ["pickscor"]', r"s\.toml: variants\.spo\.trained_on names 'pickscor'.*did you mean 'pickscore'"),
        ('trained_on = ["hpsv2", "hpsv2"]', "names 'hpsv2' twice"),
        ('loras = [{ path = "mini:spo", trained_on = ["hpd"] }]', r"variants\.spo\.loras\[0\]\.trained_on names 'hpd'"),
    ],
)
def test_names_that_nobody_knows_are_refused(line: str, message: str, tmp_path: Path) -> None:
    suite = load_suite(str(suite_of(tmp_path, line)))
    with pytest.raises(UsageError, match=message):
        check_suite(suite, METRICS)


def test_what_was_trained_on_a_metric_of_unknown_data_has_seen_what_nobody_says() -> None:
    learnt = {**training_of_metrics(), "private": None}
    variant = Variant(name="mine", checkpoint="mini", trained_on=("private",))
    trained = find_training(variant, None, learnt)
    assert trained.names == ("private",)
    assert trained.unknown == ("the data of private",)
    facts = {facts.name: facts for facts in all_facts()}
    assert overlap_with(facts["pickscore"], trained) == "unknown"
    assert overlap_with(msgspec.structs.replace(facts["pickscore"], name="private"), trained) == "same data"
