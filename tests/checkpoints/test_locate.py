"""Where weights come from: every kind of name, and the Hub's cache and network behind stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from bench.checkpoints.fingerprint import weights_needed
from bench.checkpoints.locate import Place, fetch, find_checkpoint, find_lora, places
from bench.errors import WeightsError
from bench.mini import weights
from bench.records import SCHEMA, Lora, Settings, Suite, Variant


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """No network and an empty cache; call it to put a stand-in in the place of a function of the Hub."""

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("cannot find the requested files in the disk cache")

    def replace(**functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            monkeypatch.setattr(huggingface_hub, name, function)

    replace(snapshot_download=offline, hf_hub_download=offline, try_to_load_from_cache=lambda *_, **__: None)
    return replace


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


# --- checkpoints ---------------------------------------------------------------------------


def test_shipped_family_is_the_checked_folder() -> None:
    assert find_checkpoint("mini", None, None) == Place(what="mini", path=str(weights.pipeline_folder()))


def test_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merged").mkdir()
    assert find_checkpoint("merged", None, None).path == str(tmp_path / "merged")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "merged").mkdir()
    assert find_checkpoint("~/merged", None, None).path == str(tmp_path / "merged")


@pytest.mark.parametrize("name", ["single.safetensors", "merge.toml"])
def test_files_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    path = touch(tmp_path / name)
    assert find_checkpoint(str(path), None, None) == Place(what=str(path), path=str(path))


@pytest.mark.parametrize("family", ["sdxl", "sd15", "tiny"])
def test_random_weights_lie_in_their_configurations(family: str) -> None:
    place = find_checkpoint(f"random:{family}", None, None)
    assert Path(place.path or "", "unet", "config.json").is_file()
    assert fetch(place) is place


@pytest.mark.parametrize("name", ["model.ckpt", "gone/model.bin", "model.PT", "model.pth", "owner/name:model.ckpt"])
def test_pickles_are_refused_with_the_command_that_converts_them(name: str) -> None:
    with pytest.raises(WeightsError, match=r"is a pickle, which may run any code") as caught:
        find_checkpoint(name, None, None)
    assert caught.value.exit_code == 3
    assert "weights_only=True" in caught.value.hint
    assert caught.value.hint.endswith(f" {name} {name.rsplit('.', 1)[0]}.safetensors")


@pytest.mark.parametrize("name", ["gone.safetensors", "models/gone.safetensors", "models/gone.toml", "x" * 5000])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(WeightsError, match=r"no such folder or \.safetensors file"):
        find_checkpoint(name, None, None)


def test_a_file_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "models" / "checkpoint")
    with pytest.raises(WeightsError, match="no such folder"):
        find_checkpoint("models/checkpoint", None, None)


@pytest.mark.parametrize("name", ["a\0b", "", " "])
def test_a_name_that_no_file_can_have(name: str) -> None:
    for find in (lambda: find_checkpoint(name, None, None), lambda: find_lora(name, None)):
        with pytest.raises(WeightsError, match="is empty or holds a zero byte"):
            find()


def test_random_shapes_that_there_are_not() -> None:
    with pytest.raises(WeightsError, match=r"sdxl, sd15, tiny \(did you mean 'random:sdxl'\?\)"):
        find_checkpoint("random:sdlx", None, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", ("owner/name", "abc", None)),
        ("owner/name@v1.0", ("owner/name", "v1.0", None)),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3", None)),
        ("owner/name:sub/x.safetensors", ("owner/name", "abc", "sub/x.safetensors")),
        ("owner/name@v1.0:x.safetensors", ("owner/name", "v1.0", "x.safetensors")),
    ],
)
def test_names_of_the_hub(name: str, expected: tuple[str, str, str | None]) -> None:
    given = "abc" if expected[1] == "abc" else None
    place = find_checkpoint(name, given, None)
    assert (place.what, place.repository, place.revision, place.file) == (name, *expected)
    if place.file is not None:
        lora = find_lora(name, None)
        assert (lora.repository, lora.revision, lora.file) == (
            "owner/name",
            place.revision if given is None else None,
            place.file,
        )


def test_two_revisions_are_one_too_many() -> None:
    with pytest.raises(WeightsError, match=r"owner/name@a: is pinned to two revisions, a and b"):
        find_checkpoint("owner/name@a", "b", None)
    assert find_checkpoint("owner/name@a", "a", None).revision == "a"


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "a/../../x.safetensors", "/x.safetensors", "a\\..\\x.safetensors"]
)
def test_a_file_outside_its_repository(file: str, tmp_path: Path) -> None:
    touch(tmp_path / "x.safetensors")
    (tmp_path / "name").mkdir()
    for find in (
        lambda: find_checkpoint(f"owner/name:{file}", None, tmp_path),
        lambda: find_lora(f"owner/name:{file}", tmp_path),
    ):
        with pytest.raises(WeightsError, match=r"without '\.\.'"):
            find()


def test_misspelt_family_names_the_near_match() -> None:
    with pytest.raises(WeightsError, match=r"minni: no such folder.*did you mean 'mini'") as caught:
        find_checkpoint("minni", None, None)
    assert caught.value.hint.startswith("hotart-bench list")


def test_what_is_nothing_of_the_kind_gets_no_near_match() -> None:
    with pytest.raises(WeightsError) as caught:
        find_checkpoint("a/b/c", None, None)
    assert "did you mean" not in caught.value.message
    assert "mini" in caught.value.message


@pytest.mark.parametrize("layout", ["owner/name", "name"])
def test_weights_dir_is_searched_before_the_hub(tmp_path: Path, layout: str) -> None:
    (tmp_path / layout).mkdir(parents=True)
    place = find_checkpoint("owner/name", "abc", tmp_path)
    assert place == Place(
        what="owner/name", path=str(tmp_path / layout), repository="owner/name", revision="abc", file=None
    )


def test_owner_comes_before_the_bare_name_in_weights_dir(tmp_path: Path) -> None:
    for layout in ("owner/name", "name"):
        (tmp_path / layout).mkdir(parents=True)
    assert find_checkpoint("owner/name", None, tmp_path).path == str(tmp_path / "owner" / "name")


CACHED = {
    "model_index.json": (
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
    ),
    "config.json": ("diffusion_pytorch_model.safetensors",),
    "unet/config.json": ("unet/diffusion_pytorch_model.safetensors",),
}


@pytest.mark.parametrize("marker", list(CACHED))
@pytest.mark.parametrize("cut_short", [False, True])
def test_cached_repository_is_found_without_the_network(
    tmp_path: Path, hub: Callable[..., None], marker: str, cut_short: bool
) -> None:
    snapshot, asked = tmp_path / "snapshot", []
    touch(snapshot / marker).write_text('{"_class_name": "x", "unet": [], "vae": [], "scheduler": []}')
    for name in CACHED[marker][cut_short:]:
        touch(snapshot / name)

    def cached(repository: str, name: str, revision: str | None = None) -> str | None:
        asked.append((repository, revision))
        return str(snapshot / name) if name == marker else None

    hub(try_to_load_from_cache=cached)
    assert find_checkpoint("owner/name", "abc", None).path == (None if cut_short else str(snapshot))
    assert set(asked) == {("owner/name", "abc")}


@pytest.mark.parametrize("name", ["owner/a--b", "owner/name-", "owner/na..me", "owner/" + 95 * "n"])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(WeightsError):
        find_checkpoint(name, None, None)


def test_a_repository_nowhere_has_no_path_yet(tmp_path: Path) -> None:
    assert find_checkpoint("owner/name", None, tmp_path).path is None


# --- LoRAs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", weights.LORAS)
def test_shipped_lora(name: str) -> None:
    place = find_lora(f"mini:{name}", None)
    assert place == Place(what=f"mini:{name}", path=str(weights.FOLDER / "loras" / f"{name}.safetensors"))


def test_shipped_lora_of_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(WeightsError, match=r"mini:ppo.*dpo, spo"):
        find_lora("mini:ppo", None)


def test_lora_file(tmp_path: Path) -> None:
    path = touch(tmp_path / "own.safetensors")
    assert find_lora(str(path), None) == Place(what=str(path), path=str(path))


@pytest.mark.parametrize("name", ["pytorch_lora_weights", "adapter_model"])
def test_a_folder_with_one_lora_is_that_lora(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path / "training" / f"{name}.safetensors")
    assert find_lora(str(path.parent), None) == Place(what=str(path.parent), path=str(path))


@pytest.mark.parametrize("more", ["pytorch_lora_weights.safetensors", "model_index.json"])
def test_a_folder_that_may_mean_something_else_is_no_lora(tmp_path: Path, more: str) -> None:
    touch(tmp_path / "adapter_model.safetensors")
    touch(tmp_path / more)
    with pytest.raises(WeightsError, match=r"no such LoRA file; .* a folder with pytorch_lora_weights\.safetensors"):
        find_lora(str(tmp_path), None)


@pytest.mark.parametrize("layout", ["owner/name", "name"])
def test_lora_in_weights_dir(tmp_path: Path, layout: str) -> None:
    path = touch(tmp_path / layout / "deep" / "lora.safetensors")
    place = find_lora("owner/name:deep/lora.safetensors", tmp_path)
    assert (place.path, place.file, place.repository) == (str(path), "deep/lora.safetensors", "owner/name")


def test_lora_in_the_cache(tmp_path: Path, hub: Callable[..., None]) -> None:
    path = touch(tmp_path / "snapshot" / "lora.safetensors")
    hub(try_to_load_from_cache=lambda _, name, revision: str(path) if name == path.name else None)
    assert find_lora("owner/name:lora.safetensors", None).path == str(path)


@pytest.mark.parametrize("name", ["gone.safetensors", "owner/name", "mini:", "a:b:c"])
def test_no_lora_of_any_kind(name: str) -> None:
    with pytest.raises(WeightsError, match=r"no such LoRA file.*mini:dpo, mini:spo") as caught:
        find_lora(name, None)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["x.pt", "owner/name:lora.bin", "deep/x.ckpt"])
def test_pickled_loras_are_refused_with_the_command_that_converts_them(name: str) -> None:
    with pytest.raises(WeightsError, match="is a pickle") as caught:
        find_lora(name, None)
    assert "weights_only=True" in (caught.value.hint or "")


# --- the whole variant, and fetching -------------------------------------------------------


def test_places_of_a_variant_by_role(tmp_path: Path) -> None:
    lora = touch(tmp_path / "own.safetensors")
    variant = Variant(
        name="merged",
        checkpoint="mini",
        revision=None,
        unet="owner/unet",
        vae=str(tmp_path),
        loras=(Lora(path="mini:dpo"), Lora(path=str(lora), weight=0.5)),
    )
    found = places(variant, None)
    assert list(found) == ["checkpoint", "unet", "vae", "lora:0", "lora:1"]
    assert found["unet"].path is None
    assert found["vae"].path == str(tmp_path)
    assert found["lora:1"].path == str(lora)


def test_without_a_connection_what_is_missing_is_exit_3_and_nothing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, hub: Callable[..., None]
) -> None:
    hub(snapshot_download=lambda *_, **__: pytest.fail("asked"), hf_hub_download=lambda *_, **__: pytest.fail("asked"))
    why = "there is no connection to there (no route)"
    monkeypatch.setattr("bench.downloads._asked", lambda server, minute: why)
    for place in (find_checkpoint("owner/name", "abc", None), find_lora("owner/name:lora.safetensors", None)):
        with pytest.raises(WeightsError) as caught:
            fetch(place)
        assert caught.value.message == f"{place.what}: is not on this machine, and {why}."
        assert caught.value.exit_code == 3
        assert "--weights-dir" in caught.value.hint


def test_what_is_there_is_not_fetched(tmp_path: Path) -> None:
    place = Place(what="x", path=str(tmp_path))
    assert fetch(place) is place


def test_fetching_a_repository_asks_for_the_pinned_revision_and_no_pickles(
    tmp_path: Path, hub: Callable[..., None]
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        touch(tmp_path / "diffusion_pytorch_model.safetensors")
        asked.update(options, repository=repository)
        return str(tmp_path)

    hub(snapshot_download=download)
    place = fetch(Place(what="owner/name", path=None, repository="owner/name", revision="abc"))
    assert place.path == str(tmp_path)
    assert (asked["repository"], asked["revision"]) == ("owner/name", "abc")
    wanted = ["model_index.json", "tokenizer/merges.txt", "unet/diffusion_pytorch_model.safetensors"]
    unwanted = [
        "unet/diffusion_pytorch_model.bin",
        "sd_xl.ckpt",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/model.onnx",
    ]
    kept = list(
        huggingface_hub.utils.filter_repo_objects(
            wanted + unwanted, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
        )
    )
    assert kept == wanted


def test_half_precision_copies_are_fetched_where_there_is_nothing_else(
    tmp_path: Path, hub: Callable[..., None]
) -> None:
    there = ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/config.json"]
    asked: list[list[str]] = []

    def download(_: str, allow_patterns: list[str], ignore_patterns: list[str], **__: Any) -> str:
        kept = huggingface_hub.utils.filter_repo_objects(
            there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        asked.append(list(kept))
        for name in asked[-1]:
            touch(tmp_path / name)
        return str(tmp_path)

    hub(snapshot_download=download)
    fetch(Place(what="owner/name", path=None, repository="owner/name"))
    assert asked == [there[1:], there]


def test_fetching_a_lora_asks_for_one_file(tmp_path: Path, hub: Callable[..., None]) -> None:
    path = touch(tmp_path / "lora.safetensors")
    hub(hf_hub_download=lambda repository, file, revision: str(path) if file == path.name else "")
    assert fetch(find_lora("owner/name:lora.safetensors", None)).path == str(path)


def test_needs_of_a_suite_say_what_is_missing() -> None:
    suite = Suite(
        schema=SCHEMA,
        name="both",
        prompt_files=(),
        prompts=(),
        samples=1,
        seed=0,
        metrics=(),
        settings=Settings(width=64, height=64, steps=1, guidance_scale=1.0, sampler="ddim"),
        variants=(
            Variant(name="base", checkpoint="mini", loras=(Lora(path="mini:spo"),)),
            Variant(name="big", checkpoint="owner/name"),
            Variant(name="shape", checkpoint="random:sdxl"),
        ),
    )
    base, lora, big, shape = weights_needed(suite, None)
    assert [need.variant for need in (base, lora, big)] == ["base", "base", "big"]
    assert shape.present
    assert shape.size_bytes == 2 * (2_567_463_684 + 83_653_863 + 123_060_480 + 694_659_840)
    folder = weights.pipeline_folder()
    assert (base.present, base.path) == (True, str(folder))
    assert base.size_bytes == sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert lora.size_bytes == weights.lora_file("spo").stat().st_size
    assert (big.present, big.path, big.size_bytes) == (False, None, None)


# --- PEFT's two files ----------------------------------------------------------------------

PEFT = "owner/name:deep/adapter_model.safetensors"


def test_the_configuration_of_a_peft_file_is_fetched_with_it(tmp_path: Path, hub: Callable[..., None]) -> None:
    asked: list[str] = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append(file)
        return str(touch(tmp_path / file))

    hub(hf_hub_download=download)
    place = fetch(find_lora(PEFT, None))
    assert sorted(asked) == ["deep/adapter_config.json", "deep/adapter_model.safetensors"]
    assert place.path == str(tmp_path / "deep" / "adapter_model.safetensors")


def test_the_configuration_beside_a_single_file_is_fetched_with_it(tmp_path: Path, hub: Callable[..., None]) -> None:
    asked: list[str] = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append(file)
        return str(touch(tmp_path / file))

    hub(hf_hub_download=download)
    assert fetch(find_checkpoint("owner/name:deep/model.safetensors", None, None)).path
    assert asked == ["deep/model.yaml", "deep/model.safetensors"]


def test_a_repository_that_could_not_be_asked_for_it_is_no_repository_without_it(
    tmp_path: Path, hub: Callable[..., None]
) -> None:
    def download(repository: str, file: str, revision: str | None) -> str:
        if file.endswith(".yaml"):
            raise LocalEntryNotFoundError("no connection")
        return str(touch(tmp_path / file))

    hub(hf_hub_download=download)
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(find_checkpoint("owner/name:model.safetensors", None, None))


def test_a_repository_without_the_configuration_gives_the_file_alone(tmp_path: Path, hub: Callable[..., None]) -> None:
    def download(repository: str, file: str, revision: str | None) -> str:
        if file.endswith(".json"):
            raise EntryNotFoundError("404")
        return str(touch(tmp_path / file))

    hub(hf_hub_download=download)
    assert fetch(find_lora(PEFT, None)).path == str(tmp_path / "deep" / "adapter_model.safetensors")


@pytest.mark.parametrize(("config", "found"), [(None, False), ("there", True), (object(), True)])
def test_a_peft_file_is_in_the_cache_once_its_configuration_was_looked_up(
    tmp_path: Path, hub: Callable[..., None], config: object, found: bool
) -> None:
    path = touch(tmp_path / "adapter_model.safetensors")
    hub(try_to_load_from_cache=lambda _, name, revision: config if name.endswith(".json") else str(path))
    assert (find_lora(PEFT, None).path is not None) is found
