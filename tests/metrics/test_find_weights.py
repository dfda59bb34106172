"""From a name to checked files: the user's folder, the caches, the network, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RemoteEntryNotFoundError
from msgspec.structs import replace
from safetensors.torch import save, save_file

from bench.errors import UsageError, WeightsError
from bench.metrics.catalogue import CATALOGUE, find_entry
from bench.metrics.weights import find_weights, read_tensors
from bench.published_files import Entry, File, check_file, look_up
from bench.weights_lock import lock_path, read_lock

PINNED = b"pinned bytes"
PICKLE = b"\x80\x02"
"""How the older files of torch begin, which no sum tells whole from cut."""
HEAD = Entry(
    name="head",
    what="A head",
    host="github",
    repository="owner/repo",
    files=(File(name="head.pth", sha256=hashlib.sha256(PINNED).hexdigest(), size_bytes=len(PINNED)),),
)
LOOSE = Entry(
    name="loose", what="Unpinned", host="hub", repository="hub/loose", files=(File(name="w.pt", about_bytes=7),)
)
FOLDER = Entry(
    name="folder",
    what="A folder",
    host="hub",
    repository="hub/folder",
    files=(File(name="model.safetensors", instead="pytorch_model.bin"), File(name="config.json")),
    flat=False,
)


class Hub:
    """Stands for the Hub's client: the files that it has, and what it was asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.files, self.asked = cache, dict[str, bytes](), list[str]()
        self.error: Exception | None = None

    def download(self, repository: str, name: str, *, revision: str | None = None) -> str:
        self.asked.append(f"{repository}/{name}")
        if self.error is not None:
            raise self.error
        if f"{repository}/{name}" not in self.files:
            raise RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)
        path = self.cache / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.files[f"{repository}/{name}"])
        return str(path)

    def look(self, repository: str, name: str, *, revision: str | None = None) -> str | None:
        path = self.cache / repository / name
        return str(path) if path.is_file() else None


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", fake.look)
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for entry in (HEAD, LOOSE, FOLDER):
        monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return fake


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- the catalogue -------------------------------------------------------------------------


def test_the_catalogue_names_only_hashes_that_can_be_hashes() -> None:
    entries = CATALOGUE.values()
    files = [file for entry in entries for file in entry.files]
    assert {"openai-vit-l14", "aesthetic-v1", "aesthetic-v2", "pickscore", "hpsv2", "hpsv2.1", "imagereward"} <= set(
        CATALOGUE
    )
    for file in files:
        assert file.sha256 is None or (len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef"))
    of_no_size = {
        one.repository for one in entries if not all(file.size_bytes or file.about_bytes for file in one.files)
    }
    assert of_no_size == {"casiatao/LRM"}  # nobody tells the sizes of its files
    assert CATALOGUE["aesthetic-v2"].files[0].sha256.startswith("21dd590f3ccdc646")
    assert CATALOGUE["aesthetic-v2"].files[0].size_bytes == 3_714_759
    assert CATALOGUE["aesthetic-v1"].files[0].size_bytes == 4_071


def test_a_name_that_is_not_in_it_is_told_with_the_nearest(hub: Hub) -> None:
    with pytest.raises(UsageError, match="pickscore"):
        find_weights("pickscor")


# --- where files are found -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["owner/repo/head.pth", "repo/head.pth", "head.pth"])
def test_a_folder_of_weights_serves_in_each_layout(tmp_path: Path, hub: Hub, where: str) -> None:
    path = put(tmp_path / "w" / where, PINNED)
    assert find_weights("head", tmp_path / "w") == path


def test_files_with_common_names_are_not_taken_from_the_folder_itself(tmp_path: Path, hub: Hub) -> None:
    for name in ("model.safetensors", "config.json"):
        put(tmp_path / "w" / name, b"of something else")
    with pytest.raises(WeightsError, match=r"folder: model\.safetensors is not in"):
        find_weights("folder", tmp_path / "w")


def test_an_entry_of_several_files_is_their_folder_and_a_bin_stands_in(tmp_path: Path, hub: Hub) -> None:
    home = tmp_path / "w" / "hub" / "folder"
    put(home / "config.json", b"{}")
    put(home / "pytorch_model.bin", PICKLE + b"pickle")
    assert find_weights("folder", tmp_path / "w") == home
    assert set(read_lock().files) == {
        "hub/folder@unpinned/pytorch_model.bin",
        "hub/folder@unpinned/config.json",
    }


def test_files_of_an_entry_in_two_folders_are_refused(tmp_path: Path, hub: Hub) -> None:
    put(tmp_path / "w" / "hub" / "folder" / "config.json", b"{}")
    put(tmp_path / "w" / "folder" / "model.safetensors", save({"a": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="several folders"):
        find_weights("folder", tmp_path / "w")


def test_a_folder_of_weights_keeps_the_network_out_but_not_the_cache(tmp_path: Path, hub: Hub) -> None:
    hub.files["hub/loose/w.pt"] = PICKLE + b"weights"
    (tmp_path / "w").mkdir()
    with pytest.raises(WeightsError, match=r"w\.pt is not in .*, and with a folder of weights nothing is") as refused:
        find_weights("loose", tmp_path / "w")
    assert str(tmp_path / "w" / "hub" / "loose" / "w.pt") in refused.value.hint
    assert hub.asked == []
    find_weights("loose")
    assert find_weights("loose", tmp_path / "w").read_bytes() == PICKLE + b"weights"
    assert hub.asked == ["hub/loose/w.pt"]


def test_offline_and_missing_is_one_sentence_and_a_command(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("loose", "head"):
        with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set") as refused:
            find_weights(name)
        assert refused.value.exit_code == 3
        assert "hotart-bench fetch" in refused.value.hint
    assert hub.asked == []


def test_what_the_hub_has_not_and_what_fails_are_told(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"hub/folder has no file model\.safetensors or pytorch_model\.bin"):
        find_weights("folder")
    assert hub.asked == ["hub/folder/model.safetensors", "hub/folder/pytorch_model.bin"]
    hub.error = ConnectionError("no route")
    with pytest.raises(WeightsError, match=r"hub/loose/w\.pt: could not be downloaded: no route"):
        find_weights("loose")


def test_a_download_from_elsewhere_is_kept_for_the_next_time(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fake(url: str, target: Path) -> bool:
        asked.append(url)
        put(target, PINNED)
        return True

    monkeypatch.setattr("bench.published_files.download_url", fake)
    assert find_weights("head") == find_weights("head")
    assert asked == ["https://raw.githubusercontent.com/owner/repo/HEAD/head.pth"]


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PINNED[:5], "has 5 bytes, not 12"),
        (b"", "has 0 bytes, not 12"),
        (b"another file", "has sha256 [0-9a-f]{64}, not " + hashlib.sha256(PINNED).hexdigest()),
    ],
)
def test_a_pinned_file_of_other_bytes_is_refused_with_found_and_expected(
    tmp_path: Path, hub: Hub, data: bytes, words: str
) -> None:
    path = put(tmp_path / "w" / "head.pth", data)
    with pytest.raises(WeightsError, match=words) as refused:
        find_weights("head", tmp_path / "w")
    assert str(path) in refused.value.message


def test_an_unpinned_file_is_recorded_once_and_held_to_it(tmp_path: Path, hub: Hub) -> None:
    weights_dir = tmp_path / "w"
    path = put(tmp_path / "w" / "w.pt", PICKLE + b"first")
    assert look_up(find_entry("loose"), weights_dir)[0].trust == "unpinned"
    find_weights("loose", weights_dir)
    recorded = read_lock().files["hub/loose@unpinned/w.pt"]
    assert (recorded.sha256, recorded.size_bytes) == (hashlib.sha256(PICKLE + b"first").hexdigest(), 7)
    assert look_up(find_entry("loose"), weights_dir)[0].trust == "locked"
    path.write_bytes(PICKLE + b"other")
    with pytest.raises(WeightsError, match=r"as it was recorded in .*lock\.json on") as refused:
        find_weights("loose", weights_dir)
    assert hashlib.sha256(PICKLE + b"other").hexdigest() in refused.value.message
    assert recorded.sha256 in refused.value.message
    path.write_bytes(PICKLE + b"first")
    assert find_weights("loose", weights_dir) == path


def test_another_revision_is_another_file_to_the_lock(tmp_path: Path, hub: Hub) -> None:
    check_file(LOOSE, LOOSE.files[0], put(tmp_path / "w.pt", PICKLE + b"old"))
    newer = replace(LOOSE, revision="a" * 40)
    check_file(newer, newer.files[0], put(tmp_path / "w.pt", PICKLE + b"new weights"))
    with pytest.raises(WeightsError):
        check_file(LOOSE, LOOSE.files[0], tmp_path / "w.pt")


# --- what doctor and fetch say -------------------------------------------------------------


def test_looking_up_downloads_hashes_and_writes_nothing(tmp_path: Path, hub: Hub) -> None:
    hub.files["hub/loose/w.pt"] = PICKLE + b"weights"
    (missing,) = look_up(find_entry("loose"), None)
    assert (missing.path, missing.size_bytes, missing.trust) == (None, 7, "unpinned")
    put(tmp_path / "w" / "head.pth", b"wrong")
    (there,) = look_up(find_entry("head"), tmp_path / "w")
    assert (there.path, there.size_bytes, there.trust) == (str(tmp_path / "w" / "head.pth"), 5, "pinned")
    assert hub.asked == []
    assert not lock_path().exists()


def test_fetching_gets_what_is_missing_and_says_that_it_is_recorded(hub: Hub) -> None:
    hub.files["hub/loose/w.pt"] = PICKLE + b"weights"
    find_weights("loose")
    (stored,) = look_up(find_entry("loose"), None)
    assert (stored.trust, stored.size_bytes) == ("locked", 9)
    find_weights("loose")
    assert hub.asked == ["hub/loose/w.pt"]


# --- tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_tensors_are_read_in_each_format(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    path = tmp_path / name
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    assert torch.equal(read_tensors(path)["a"], tensors["a"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_tensors(path)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/nonexistent/harm"),))  # type: ignore[return-value]


def test_a_pickle_with_code_in_it_is_refused_unrun(tmp_path: Path) -> None:
    torch.save({"a": Harmful()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt: cannot be read as weights \(UnpicklingError"):
        read_tensors(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"weights are \.safetensors"):
        read_tensors(tmp_path / "w.ckpt")
