"""What Windows and macOS do otherwise, as far as it can be told on this system: paths, replacing, signals."""

from __future__ import annotations

import sys
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import documents
from bench.checkpoints.locate import HUB_NAME
from bench.documents import REPLACE_WAITS_S, put_in_place, refuse_url
from bench.formatting import is_good_name
from bench.pictures.parameters import _name
from bench.store.journal import image_name

PARTS = st.text("abcXYZ09 _.-()[]", min_size=1, max_size=12).filter(lambda text: text.strip(". ") == text)
WINDOWS_PATHS = st.builds(
    lambda drive, parts: str(PureWindowsPath(f"{drive}:\\", *parts)),
    st.sampled_from("CDZ"),
    st.lists(PARTS, min_size=1),
)


@given(WINDOWS_PATHS)
def test_a_path_of_windows_is_neither_a_url_nor_a_name_of_the_hub(path: str) -> None:
    for written in (path, PureWindowsPath(path).as_posix()):
        refuse_url(written)
        assert HUB_NAME.fullmatch(written) is None


@given(WINDOWS_PATHS)
def test_a_picture_names_the_file_and_not_where_it_lay(path: str) -> None:
    file = PureWindowsPath(path).with_name("hotArt v4.safetensors")
    assert _name(str(file)) == _name(file.as_posix()) == "hotArt v4"


@given(st.text(min_size=1, max_size=20))
def test_a_name_that_is_taken_is_a_file_name_of_windows_too(name: str) -> None:
    if is_good_name(name):
        path = PureWindowsPath(name)
        assert path.name == name
        assert not path.is_absolute()
        assert not path.drive
        assert not path.is_reserved()


def test_images_are_named_with_slashes_on_every_system() -> None:
    assert "\\" not in image_name("base", "p", 0)


class Blocked:
    """A file that another process has open for its first tries."""

    def __init__(self, tries: int) -> None:
        self.left, self.asked = tries, 0

    def replace(self, _: Path) -> None:
        self.asked += 1
        if self.asked <= self.left:
            raise PermissionError(13, "in use")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This system as Windows, where waiting takes no time; what was waited."""
    waits: list[float] = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(documents.time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize("tries", [0, 1, len(REPLACE_WAITS_S)])
def test_a_file_that_is_open_elsewhere_is_waited_for_on_windows(windows: list[float], tries: int) -> None:
    file = Blocked(tries)
    put_in_place(file, Path("x"))  # type: ignore[arg-type]
    assert file.asked == tries + 1
    assert windows == list(REPLACE_WAITS_S[:tries])


def test_a_file_that_stays_open_is_an_error_in_the_end(windows: list[float]) -> None:
    with pytest.raises(PermissionError):
        put_in_place(Blocked(99), Path("x"))  # type: ignore[arg-type]


def test_elsewhere_a_refusal_is_final_at_once() -> None:
    with pytest.raises(PermissionError):
        put_in_place(Blocked(1), Path("x"))  # type: ignore[arg-type]
