"""Where a run folder lies: a path of this machine, or the URL of one on an object store."""

from __future__ import annotations

from pathlib import Path


def as_place(text: str) -> Path | str:
    """What a flag or argument names: a path, or a URL as it was given."""
    from bench.store.remote import is_url

    return text if is_url(text) else Path(text)


def is_run(place: str) -> bool:
    """Whether there is a run at a path or URL."""
    from bench.store.remote import is_url
    from bench.suite.text_files import exists

    if not is_url(place):
        return exists(Path(place) / "run.json")
    from bench.store.mirror import is_run_at

    return is_run_at(place)


def at_hand(place: str | Path) -> Path:
    """The run folder as a path of this machine; of a run on an object store, a copy that is brought here just now."""
    from bench.store.reading import folder_of
    from bench.store.remote import is_url

    return folder_of(place) if is_url(place) else Path(place)


def disk_for(place: str | Path) -> Path:
    """The folder of this machine that fills up while a run is made at a path or URL."""
    from bench.store.remote import is_url

    if not is_url(place):
        return Path(place)
    from bench.store.mirror import run_url, working_folder

    return working_folder(run_url(str(place)), "run")
