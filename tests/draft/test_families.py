"""Which family a checkpoint is of, told from files that are here; what has to be assumed is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file
from tiny_checkpoints import tiny_state, write_lora

from bench.checkpoints.families import family_tensors
from bench.checkpoints.ldm_layout import ldm_tensors
from bench.draft.families import Known, find_family, look_at, look_at_lora
from bench.errors import UsageError, WeightsError
from bench.merge.write import header, ordered, size_of
from bench.records import Lora

V_PREDICTION = {"modelspec.prediction_type": "v"}


def hollow(path: Path, family: str, metadata: dict[str, str] | None = None) -> Path:
    """A single file of a family's full size, all zeros, that takes no room on the disk."""
    entries = ordered(ldm_tensors(family_tensors(family)))
    head = header(entries, metadata or {})
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(map(size_of, entries)))
    return path


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_the_family_is_told_from_the_header(family, tmp_path):
    found = look_at(str(hollow(tmp_path / "merge.safetensors", family)), None)
    assert (found.family, found.notes, found.lost) == (family, (), False)


def test_a_v_prediction_model_has_a_hint(tmp_path):
    found = look_at(str(hollow(tmp_path / "noob.safetensors", "sdxl", V_PREDICTION)), None)
    assert found.family == "sdxl"
    assert "predicts v" in found.notes[0]
    assert "guidance_rescale = 0.7" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "has_hint"),
    [
        ("dreamshaperXL_turbo", True),
        ("sdxl_lightning_4step", True),
        ("my-LCM", True),
        ("DMD2_merge", True),
        ("admdraw", False),
        ("realistic", False),
    ],
)
def test_a_name_of_few_steps_has_a_hint(name, has_hint, tmp_path):
    notes = look_at(str(hollow(tmp_path / f"{name}.safetensors", "sdxl")), None).notes
    assert [("few steps" in note) for note in notes] == [True] * has_hint


@pytest.mark.parametrize("source", ["mini", "random:tiny"])
def test_the_embedded_family_has_its_own_settings(source):
    assert look_at(source, None).family == "mini"


def test_a_copy_of_the_embedded_family_is_told_by_its_size(mini_copy):
    assert look_at(str(mini_copy), None).family == "mini"


def test_random_weights_have_the_family_of_their_shape():
    assert [look_at(f"random:{family}", None).family for family in ("sdxl", "sd15")] == ["sdxl", "sd15"]


def test_a_file_that_is_not_here_is_said_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hollow(tmp_path / "merge.safetensors", "sd15")
    found = look_at("marge.safetensors", None)
    assert (found.family, found.lost) == (None, True)
    assert found.notes == ("marge.safetensors: there is no such file here (did you mean 'merge.safetensors'?).",)
    assert look_at(r"C:\models\x.safetensors", None).lost


def test_what_the_hub_may_have_is_not_lost():
    found = look_at("owner/name", None)
    assert (found.family, found.lost) == (None, False)
    assert "fetch" in found.notes[0]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    write_lora(tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match="looks like a LoRA"):
        look_at(str(tmp_path / "lora.safetensors"), None)
    with pytest.raises(WeightsError, match="is a pickle"):
        look_at("old.ckpt", None)
    state = tiny_state(0)
    save_file({name: state[name] for name in list(state)[:5]}, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError):
        look_at(str(tmp_path / "cut.safetensors"), None)


def test_families_do_not_mix_and_the_unknown_are_taken_for_the_others():
    known = [Known("a", "sd15"), Known("b", None)]
    assert find_family(known) == ("sd15", ("b: taken for SD 1.5, as the others are.",))
    assert find_family([Known("b", None), Known("c", None)]) == ("sdxl", ("b and c: taken for SDXL.",))
    assert find_family([Known("a", "sdxl")]) == ("sdxl", ())
    with pytest.raises(UsageError, match=r"a is SD 1\.5 and c is SDXL"):
        find_family([*known, Known("c", "sdxl")])


def test_a_lora_that_does_not_fit_is_said(tmp_path):
    write_lora(tmp_path / "tiny.safetensors")
    fits, foreign = Lora(str(tmp_path / "tiny.safetensors")), Lora("mini:spo")
    tiny = Known("random:tiny", "mini")
    assert look_at_lora(fits, tiny, None) is None
    assert "random:sd15" not in (look_at_lora(fits, Known("gone.safetensors", None), None) or "")
    said = look_at_lora(foreign, Known("random:sd15", "sd15"), None)
    assert said is not None
    assert "mini:spo" in said or "spo" in said
    assert "no such LoRA file" in (look_at_lora(Lora("gone.safetensors"), tiny, None) or "")
    assert look_at_lora(Lora("owner/name:x.safetensors"), tiny, None) is None
