"""What ``batch = "auto"`` asks of a run folder that was begun before: its batch, and to be begun again."""

from __future__ import annotations

from pathlib import Path

from bench.store.journal import writing
from bench.store.reading import INFO, folder_of, read_info, read_renders
from bench.store.remote import is_url


def batch_of(place: Path | str) -> int | None:
    """The batch size of the run in a folder or at a URL; None where there is none."""
    if is_url(place):
        from bench.store.mirror import is_run_at, run_url

        if not is_run_at(run_url(str(place))):
            return None
    folder = folder_of(place)
    return read_info(folder).suite.settings.batch if (folder / INFO).exists() else None


def forget_empty_run(place: Path | str) -> bool:
    """Take ``run.json`` out of a folder that holds no image yet; whether that was so."""
    if is_url(place):
        from bench.store.mirror import forget_empty

        return forget_empty(str(place))
    folder = Path(place)
    if read_renders(folder):
        return False
    with writing(folder):
        (folder / INFO).unlink(missing_ok=True)
    return True
