"""The page as a folder: ``index.html`` with its style, script, data and small pictures beside it, and the run's files.

It works from a disk without a server, so nothing is fetched: the data come by a script tag. The list shows small
copies, the large view the files as they are stored.
"""

from __future__ import annotations

from pathlib import Path

from bench import documents, formatting
from bench.compare import compare_run
from bench.errors import UsageError
from bench.records import Progress, Render, Run
from bench.report import draw_figures, environment, gate_of, page_css, page_script, shown_figures
from bench.report.copies import LISTED_PX, copy_name, names_of, remove_others, small_copy
from bench.report.page import Shown, View, build_view
from bench.report.pictures import AHEAD, Key, Picture, unreadable
from bench.score.images import image_bytes, stream
from bench.store.journal import PAGE, make_folder, write_whole

_POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'self' file: 'unsafe-inline'; script-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)
"""What lies beside the page and nothing else; a file's own origin is ``file:`` to some browsers, ``self`` to others."""


def write_folder(run: Run, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Writes the page of a run as a folder.

    Args:
        run: a run as it was read; its images lie on this machine.
        folder: where to; None for ``page`` within the run folder, whose images are then used where they are.
            Elsewhere they are copied, so that the folder is whole by itself.
        progress: told of the pictures.

    Returns:
        ``index.html``.

    Raises:
        UsageError: ``folder`` is that of the run.
        InvalidError: a timing of 0 or less.
        MachineError: the folder cannot be written.
    """
    home = Path(run.path)
    target = home / PAGE if folder is None else folder
    inside = target.absolute().parent == home.absolute() and target.name == PAGE
    if target.absolute() == home.absolute():
        raise UsageError(f"{target} is the run folder itself; name another folder for the page.")
    make_folder(target / "small")
    shown = small_pictures(run, target, copy=not inside, progress=progress)
    view = build_view(run, compare_run(run), gate_of(run), shown, "../" if inside else "")
    _, figures = draw_figures(view, (home if inside else target) / "plots")
    write_whole(target / "data.js", f"window.hotartBench = {formatting.script_json(view.data)};\n".encode())
    write_whole(target / "page.js", page_script().encode())
    write_whole(target / "page.css", page_css().encode())
    write_whole(target / "index.html", page(view, figures).encode())
    return target / "index.html"


def page(view: View, figures: dict[str, str]) -> str:
    """``index.html`` of a folder."""
    template = environment(autoescape=True).get_template("report.html.j2")
    return template.render(view=view, beside=True, policy=_POLICY, figures=shown_figures(figures))


def small_pictures(run: Run, target: Path, *, copy: bool, progress: Progress | None = None) -> Shown:
    """The small copies of a run's images in ``target/small``, made where they are not there yet, and what is broken.

    With ``copy`` the images themselves are put below ``target``.
    """
    pictures: dict[Key, Picture] = {}
    broken: dict[Key, str] = {}
    renders = [one for one in run.renders if one.image is not None]
    side_px = next(side for most, side in LISTED_PX.items() if len(run.info.suite.variants) <= most)

    def load(render: Render) -> Picture:
        return _small(Path(run.path), render, target, side_px, copy)

    for done, (render, found) in enumerate(stream(renders, load, AHEAD)):
        if progress is not None:
            progress("pictures", done, len(renders))
        key = (render.variant, render.prompt_id, render.sample)
        if isinstance(found, Picture):
            pictures[key] = found
        else:
            broken[key] = unreadable(render, found)
    if progress is not None:
        progress("pictures", len(renders), len(renders), f"{len(broken):,} left out" if broken else "")
    names = [copy_name(str(one.sha256), side_px) for one in renders] if copy else names_of(run)
    remove_others(target / "small", names)
    return pictures, broken


def _small(home: Path, render: Render, target: Path, side_px: int, copy: bool) -> Picture:
    """The small copy of an image; errors as ``image_bytes`` and ``small_copy``."""
    data = image_bytes(home, render)
    if copy:
        _put(data, target / str(render.image))
    _, width, height = small_copy(data, str(render.sha256), side_px, home, target / "small")
    return Picture(f"small/{copy_name(str(render.sha256), side_px)}", width, height, reduced=True)


def _put(data: bytes, path: Path) -> None:
    """The copy of an image, written where it is not there or another one."""
    if path.is_file() and documents.read_bytes(path, documents.IMAGE_BYTES) == data:
        return
    make_folder(path.parent)
    write_whole(path, data)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a page's folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
