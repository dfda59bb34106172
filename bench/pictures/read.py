"""A picture's bytes -> what it says of how it was made, whichever program wrote it.

Each program has one reader; ``read_texts`` asks them in turn. Whatever the bytes are, nothing is raised: what cannot
be told is None in the record, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench import documents
from bench.documents import IMAGE_BYTES, read_bytes
from bench.pictures import comfyui, fooocus, infotext, invokeai, novelai, swarmui
from bench.pictures.carriers import USER_COMMENT, read_carried
from bench.pictures.values import FIELDS, facts
from bench.records import PictureFacts
from bench.suite.sampler_names import Read, read_a1111, read_sampler, read_schedule

INFOTEXT = ("parameters", USER_COMMENT, "Comment", "ImageDescription")
"""Where A1111's text and JSON of its kind may stand, in the order in which they are looked at."""
JSON = (invokeai.NAME, invokeai.OLD_NAME, "prompt", "Model", *INFOTEXT)
"""Where a program may have written JSON; Exif of ComfyUI has the graph in its ``Model``."""
AFTERWARDS = ("postprocessing", "extras")
"""Texts of A1111's tab Extras: the picture was upscaled or restored after it was drawn."""
NOTHING = "the picture carries no text of a program that is known"
UNKNOWN = "unknown"


def read_file(path: Path) -> PictureFacts:
    """What the picture in a file says.

    Raises:
        OSError: the file cannot be read.
    """
    return read_picture(read_bytes(path, IMAGE_BYTES))


def read_picture(data: bytes) -> PictureFacts:
    """What a PNG, JPEG or WebP says; of any other bytes nothing can be told."""
    carried = read_carried(data)
    found = read_texts(carried.texts)
    edited = next((f"its text {name!r} says so" for name in AFTERWARDS if name in carried.texts), None)
    return msgspec.structs.replace(found, notes=(*found.notes, *carried.notes), edited=edited)


def read_texts(texts: Mapping[str, str]) -> PictureFacts:
    """What the texts of a picture say, by their keywords."""
    for found in (_by_name(texts), _by_content(texts)):
        if found is not None:
            return found
    broken = next((f"its text {name!r} is no JSON that can be read" for name in JSON if _is_broken(texts, name)), None)
    if "workflow" in texts or texts.get("Make", "").startswith("workflow:"):
        why = broken or "only the editor's workflow is there, which holds values by position alone"
        return facts("ComfyUI", dict.fromkeys(FIELDS, why))
    return facts(UNKNOWN, dict.fromkeys(FIELDS, broken or NOTHING))


def _is_broken(texts: Mapping[str, str], name: str) -> bool:
    """Whether a text begins as JSON does, and is none, or is nested too deeply."""
    text = texts.get(name, "").removeprefix("prompt:").lstrip()
    if not text.startswith("{"):
        return False
    try:
        documents.loads(text, finite=False)
    except ValueError:
        return True
    return False


def _by_name(texts: Mapping[str, str]) -> PictureFacts | None:
    """Programs whose texts have names of their own."""
    for name, read in ((invokeai.NAME, invokeai.read_invoke), (invokeai.OLD_NAME, invokeai.read_old_invoke)):
        table = _table(texts.get(name))
        if table is not None:
            return read(table)
    if texts.get("Software") == "NovelAI":
        return novelai.read_novel(texts.get("Description"), texts.get("Source"), _table(texts.get("Comment")) or {})
    return None


def _by_content(texts: Mapping[str, str]) -> PictureFacts | None:
    """Programs that share A1111's keywords, and graphs."""
    for name in INFOTEXT:
        text = texts.get(name)
        found = None if text is None else read_text(text, texts.get(fooocus.SCHEME))
        if found is not None:
            return found
    make = texts.get("Model", "")
    graph = texts.get("prompt") or (make.removeprefix("prompt:") if make.startswith("prompt:") else None)
    return None if graph is None else comfyui.read_graph(graph)


def read_text(text: str, scheme: str | None = None) -> PictureFacts | None:
    """What one text says: A1111's, or JSON of SwarmUI or Fooocus, or a graph; None where it is none of them.

    Args:
        text: of a picture, or of the ``.txt`` beside it.
        scheme: what Fooocus calls its scheme, where the picture names one.
    """
    table = _table(text)
    if table is not None:
        return swarmui.read_swarm(table) or fooocus.read_fooocus(table) or comfyui.read_graph(text)
    found = infotext.read_infotext(text)
    if found is not None and (scheme == "a1111" or found.program == "Fooocus"):
        return fooocus.read_fooocus_text(infotext.split_infotext(text))
    return found


def _table(text: str | None) -> dict[str, Any] | None:
    if text is None or not text.lstrip().startswith("{"):
        return None
    try:
        value = documents.loads(text, finite=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def our_names(found: PictureFacts) -> Read:
    """Sampler and schedule of a picture by our names; None where nothing is told, or nothing that is known."""
    if found.sampler is None:
        return Read(None, None)
    if found.program in infotext.DEFAULTS:
        automatic = found.schedule in (None, "Automatic")
        schedule = None if automatic else found.schedule
        return read_a1111(found.sampler, schedule, a1111_version(found))
    read = read_sampler(found.sampler)
    return read if found.schedule is None else read._replace(schedule=read_schedule(found.schedule))


def a1111_version(found: PictureFacts) -> tuple[int, ...] | None:
    """Of A1111 or of the one that Forge is made of, such as (1, 10, 1); None where it is not told."""
    text = (found.version or "").rpartition("v")[2].split("-")[0]
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        return None
    return tuple(map(int, parts))
