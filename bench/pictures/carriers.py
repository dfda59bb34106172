"""The bytes of an image file -> the texts that it carries beside its pixels. No pixel is decoded.

=======  ==========================================================================
PNG      chunks tEXt, zTXt, iTXt and eXIf, wherever they stand: also behind the pixels
JPEG     Exif of segment APP1; comments
WebP     Exif of chunk EXIF
=======  ==========================================================================

Of Exif: UserComment, wherever it stands, and ImageDescription, Make and Model of the first folder, where ComfyUI writes
its graphs. The bytes come from anywhere, so that every length is checked and all texts together are bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bench.score.images import ImageFileError, kind_of

MOST_BYTES = 10 * 2**20
"""Most bytes of text that are taken of one file, unpacked."""
USER_COMMENT = "UserComment"
"""What the text of a UserComment is called among the texts."""
EXIF_FOLDER = 0x8769
EXIF_TAGS = {0x9286: USER_COMMENT, 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model"}


@dataclass
class Carried:
    """What a file carries beside its pixels."""

    texts: dict[str, str] = field(default_factory=dict)
    """By keyword. Of two with one keyword the first counts, as Pillow takes it."""
    notes: list[str] = field(default_factory=list)
    left_bytes: int = MOST_BYTES

    def add(self, keyword: str, text: str) -> None:
        """Keep a text, unless there is one of its keyword."""
        self.texts.setdefault(keyword, text.removesuffix("\0"))


def read_carried(data: bytes) -> Carried:
    """The texts of a PNG, JPEG or WebP; of any other file none, with a note. It raises nothing."""
    found = Carried()
    try:
        kind = kind_of(data)
    except ImageFileError as error:
        found.notes.append(str(error))
        return found
    readers = {"PNG": _read_png, "JPEG": _read_jpeg, "WEBP": _read_webp}
    readers[kind](data, found)
    return found


# PNG.


def _read_png(data: bytes, found: Carried) -> None:
    for kind, body in _png_chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            _read_text_chunk(kind, body, found)
        elif kind == b"eXIf":
            _read_exif(body, found)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + size] if kind != b"IDAT" else b""
        at += 12 + size


def _read_text_chunk(kind: bytes, body: bytes, found: Carried) -> None:
    name, zero, rest = body.partition(b"\0")
    if not zero:
        return
    packed, is_utf8 = kind == b"zTXt", kind == b"iTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        if len(parts) != 3:
            return
        rest = parts[2]
    keyword = name.decode("latin-1")
    raw = _unpacked(rest, found.left_bytes) if packed else rest
    if raw is None or len(raw) > found.left_bytes:
        why = "its compressed text is damaged" if raw is None else f"more than {MOST_BYTES // 2**20} MiB of text"
        found.notes.append(f"the text {keyword!r} was not read: {why}")
        return
    found.left_bytes -= len(raw)
    found.add(keyword, _text_of(raw, is_utf8, keyword, found))


def _text_of(raw: bytes, is_utf8: bool, keyword: str, found: Carried) -> str:
    # tEXt is Latin-1 by the standard, but some programs write UTF-8, which Latin-1 text hardly ever is by chance.
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        if is_utf8:
            found.notes.append(f"the text {keyword!r} is not whole UTF-8; what is not was replaced")
            return raw.decode("utf-8", "replace")
        return raw.decode("latin-1")
    if not is_utf8 and not raw.isascii():
        found.notes.append(f"the text {keyword!r} is UTF-8, though its chunk is one of Latin-1")
    return text


def _unpacked(packed: bytes, most_bytes: int) -> bytes | None:
    """The unpacked bytes, at most one more than ``most_bytes``; None where they are damaged."""
    unpack = zlib.decompressobj()
    try:
        return unpack.decompress(packed, most_bytes + 1)
    except zlib.error:
        return None


# JPEG and WebP.


def _read_jpeg(data: bytes, found: Carried) -> None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xD9, 0xDA) or size < 2:  # the end, or the pixels
            return
        body = data[at + 4 : at + 2 + size]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            _read_exif(body, found)
        elif marker == 0xFE:
            found.add("Comment", body.decode("utf-8", "replace"))
        at += 2 + size


def _read_webp(data: bytes, found: Carried) -> None:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            _read_exif(data[at + 8 : at + 8 + size], found)
        at += 8 + size + size % 2


# Exif.


def _read_exif(data: bytes, found: Carried) -> None:
    if len(data) > found.left_bytes:
        found.notes.append(f"its Exif was not read: more than {MOST_BYTES // 2**20} MiB")
        return
    found.left_bytes -= len(data)
    tiff = data.removeprefix(b"Exif\0\0")
    sign = {b"MM": ">", b"II": "<"}.get(tiff[:2])
    if sign is None:
        found.notes.append("its Exif is damaged")
        return
    entries = list[tuple[int, bytes]]()
    try:
        for tag, body in _entries(tiff, sign, struct.unpack_from(f"{sign}I", tiff, 4)[0]):
            inner = tag == EXIF_FOLDER
            entries += _entries(tiff, sign, int.from_bytes(body, _ORDERS[sign])) if inner else [(tag, body)]
    except struct.error:
        found.notes.append("its Exif is damaged: it ends early")
    for name, body in ((EXIF_TAGS[tag], body) for tag, body in entries if tag in EXIF_TAGS):
        found.add(name, comment_text(body, sign == ">") if name == USER_COMMENT else _plain_text(body))


_ORDERS: dict[str, Literal["big", "little"]] = {">": "big", "<": "little"}


def _entries(tiff: bytes, sign: str, at: int) -> Iterator[tuple[int, bytes]]:
    """The wanted tags of a folder of TIFF, texts, bytes or a number of 32 bits, as bytes; of each the first."""
    seen = set[int]()
    (count,) = struct.unpack_from(f"{sign}H", tiff, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{sign}HHI", tiff, place)
        size = number * {1: 1, 2: 1, 4: 4, 7: 1}.get(kind, 0)
        start = place + 8 if size <= 4 else struct.unpack_from(f"{sign}I", tiff, place + 8)[0]
        if size and tag not in seen and (tag in EXIF_TAGS or tag == EXIF_FOLDER):
            seen.add(tag)
            yield tag, tiff[start : start + size]


def _plain_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def comment_text(value: bytes, big_endian: bool) -> str:
    """The text of a UserComment: eight bytes that name its encoding, then the text.

    UTF-16 is read by its byte order mark, else by where its zero bytes stand, since the standard leaves the order open
    and not all programs follow the order of the file; only where that does not tell, by that order.

    Args:
        value: what the tag holds.
        big_endian: the byte order of the Exif that it stands in.
    """
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        return text.decode(_order_of(text, big_endian), "replace").removeprefix("\ufeff")
    if code in (b"ASCII\0\0\0", bytes(8)):
        return text.decode("utf-8", "replace").rstrip("\0")
    return value.decode("utf-8", "replace").rstrip("\0")


def _order_of(text: bytes, big_endian: bool) -> str:
    if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return "utf-16"
    even, odd = text[::2].count(0), text[1::2].count(0)
    return "utf-16-be" if (even > odd or (even == odd and big_endian)) else "utf-16-le"
