"""What ``--checkpoint`` and ``--lora`` name: weights after the last colon, names of variants, where a file is."""

from __future__ import annotations

import ntpath
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.draft import sources
from bench.draft.sources import from_folder, is_file_name, make_variants, read_checkpoint, read_lora, stem_of
from bench.errors import UsageError
from bench.formatting import is_good_name
from bench.records import Lora

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        (r"C:\x.safetensors:0.8", r"C:\x.safetensors", 0.8),
        (r"C:\x.safetensors", r"C:\x.safetensors", None),
        ("C:/models/x.safetensors", "C:/models/x.safetensors", None),
        (r"\\server\share\x.safetensors:1.25", r"\\server\share\x.safetensors", 1.25),
        ("mini:spo", "mini:spo", None),
        ("mini:spo:0.5", "mini:spo", 0.5),
        ("owner/name:file.safetensors", "owner/name:file.safetensors", None),
        ("owner/name@9f2c1ab:sub/file.safetensors:-1", "owner/name@9f2c1ab:sub/file.safetensors", -1.0),
        ("lora.safetensors:1", "lora.safetensors", 1.0),
        ("lora.safetensors:.5", "lora.safetensors", 0.5),
        ("lora.safetensors:5e-1", "lora.safetensors", 0.5),
        ("folder/of/lora", "folder/of/lora", None),
    ],
)
def test_only_a_number_after_the_last_colon_is_a_weight(text, path, weight):
    lora, said = read_lora(text)
    assert (lora.path, lora.weight, said) == (path, 1.0 if weight is None else weight, weight is not None)


@given(folder=st.lists(NAMES, max_size=4), name=NAMES, weight=st.floats(-1000, 1000))
def test_a_path_of_either_system_keeps_its_colons_and_gives_its_weight(folder, name, weight):
    for system in (PureWindowsPath("C:\\", *folder), PurePosixPath("/", *folder)):
        path = str(system / f"{name}.safetensors")
        assert read_lora(path) == (Lora(path=path), False)
        assert read_lora(f"{path}:{weight!r}") == (Lora(path=path, weight=weight), True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x.safetensors:", "'' after the last colon is no weight"),
        ("x.safetensors:nan", "'nan' after the last colon is no weight"),
        ("x.safetensors:0,8", "write it as in x.safetensors:0.8"),
        ("x.safetensors:strong", "'strong' after the last colon is no weight"),
        ("x.safetensors:1e9", "beyond 1000"),
        ("", "names nothing"),
        (":0.8", "names nothing"),
        ("C:\temp.safetensors", "control character"),
        ("x\0.safetensors", "control character"),
    ],
)
def test_what_is_no_weight_and_no_name_is_refused(text, said):
    with pytest.raises(UsageError, match=r"--lora") as caught:
        read_lora(text)
    assert said in str(caught.value)


def test_a_checkpoint_has_no_weight():
    assert read_checkpoint(r"C:\old.safetensors") == r"C:\old.safetensors"
    with pytest.raises(UsageError, match="only a LoRA has") as caught:
        read_checkpoint("old.safetensors:0.8")
    assert caught.value.hint == "--lora old.safetensors:0.8"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("models/old.safetensors", "old"),
        (r"C:\models\juggernautXL_v9.5.safetensors", "juggernautXL_v9.5"),
        ("my model (final)!.safetensors", "my-model-final"),
        ("café.safetensors", "cafe"),
        ("模型.safetensors", "checkpoint"),
        ("con.safetensors", "checkpoint-con"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-xl-base-1.0"),
        ("owner/name@9f2c1ab", "name"),
        ("owner/name:spo_10ep.safetensors", "spo_10ep"),
        ("loras/glow/pytorch_lora_weights.safetensors", "glow"),
        ("mini:spo", "spo"),
        ("a..b.safetensors", "a.b"),
        ("models/dir/", "dir"),
        ("x" * 300 + ".safetensors", "x" * 40),
        ("merge.TOML", "merge"),
    ],
)
def test_a_variant_is_called_as_its_file(source, name):
    assert stem_of(source, "checkpoint") == name


@given(source=st.text(max_size=60))
def test_any_source_gives_a_good_name(source):
    assert is_good_name(stem_of(source, "checkpoint"))


def test_each_checkpoint_is_a_variant_and_each_once_more_with_each_lora():
    found = make_variants(["old.safetensors", "new.safetensors"], [Lora("spo.safetensors", 0.8), Lora("mini:dpo")])
    assert [(one.name, one.checkpoint, [(lora.path, lora.weight) for lora in one.loras]) for one in found] == [
        ("old", "old.safetensors", []),
        ("new", "new.safetensors", []),
        ("old-spo-0.8", "old.safetensors", [("spo.safetensors", 0.8)]),
        ("old-dpo", "old.safetensors", [("mini:dpo", 1.0)]),
        ("new-spo-0.8", "new.safetensors", [("spo.safetensors", 0.8)]),
        ("new-dpo", "new.safetensors", [("mini:dpo", 1.0)]),
    ]


@given(checkpoints=st.lists(NAMES, min_size=1, max_size=4, unique=True), loras=st.lists(NAMES, max_size=3, unique=True))
@hypothesis_settings(deadline=None)
def test_names_are_good_and_differ_in_more_than_case(checkpoints, loras):
    found = [one.name for one in make_variants(checkpoints, [Lora(path) for path in loras])]
    assert len({name.casefold() for name in found}) == len(found) == len(checkpoints) * (1 + len(loras))
    assert all(map(is_good_name, found))


def test_files_of_one_name_are_numbered_and_the_same_twice_is_refused():
    found = make_variants(["a/Model.safetensors", "b/model.safetensors"], [])
    assert [one.name for one in found] == ["Model", "model-2"]
    for given_twice in ((["a", "a"], []), (["a"], [Lora("l"), Lora("l")])):
        with pytest.raises(UsageError, match="is given twice"):
            make_variants(*given_twice)
    assert len(make_variants(["a"], [Lora("l"), Lora("l", 0.5)])) == 3
    with pytest.raises(UsageError, match="There is no checkpoint"):
        make_variants([], [])


# Where a file is.


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("mini", False),
        ("mini:spo", False),
        ("random:sdxl", False),
        ("owner/name", False),
        ("owner/name:x.safetensors", False),
        ("models/x.safetensors", True),
        (r"models\x.safetensors", True),
        (r"C:\x.safetensors", True),
        ("./mini", True),
        ("x.safetensors", True),
    ],
)
def test_what_can_only_be_a_file_is_told_from_names(source, is_one):
    assert is_file_name(source) is is_one


def test_relative_paths_start_from_the_suites_folder_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    suites = Path("suites")
    assert from_folder("x.safetensors", suites) == "../x.safetensors"
    assert from_folder("suites/x.safetensors", suites) == "x.safetensors"
    assert from_folder("owner/name", suites) == "../owner/name"  # a folder that is there
    assert from_folder("owner/name", Path()) == "./owner/name"
    assert from_folder("./mini", Path()) == "./mini"
    for name in ("mini", "mini:spo", "other/name", "/x.safetensors", "~/x.safetensors", r"C:\x.safetensors", "C:x"):
        assert from_folder(name, suites) == name


def test_on_windows_a_file_of_another_drive_becomes_absolute(monkeypatch):
    monkeypatch.setattr(sources.os.path, "relpath", lambda path, start: ntpath.relpath("D:\\x", "C:\\suites"))
    assert from_folder("x.safetensors", Path("suites")) == str(Path("x.safetensors").absolute())
