"""Small pictures with the texts that programs write into theirs, byte by byte, so that no library decides how."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

USER_COMMENT, EXIF_FOLDER, MAKE, MODEL = 0x9286, 0x8769, 0x010F, 0x0110


def drawn(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A gradient with noise: neither black, uniform nor equal to another one."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    ramp = np.linspace(0, 160, size[0])[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8))


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = (48, 48), **options: object) -> bytes:
    buffer = io.BytesIO()
    drawn(seed, size).save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


# PNG.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def text_chunk(keyword: str, text: str, kind: str = "tEXt") -> bytes:
    name = keyword.encode("latin-1") + b"\0"
    bodies = {
        "tEXt": lambda: name + text.encode("latin-1"),
        "tEXt-utf8": lambda: name + text.encode(),
        "zTXt": lambda: name + b"\0" + zlib.compress(text.encode("latin-1")),
        "iTXt": lambda: name + b"\0\0\0\0" + text.encode(),
        "iTXt-packed": lambda: name + b"\1\0\0\0" + zlib.compress(text.encode()),
    }
    return chunk(kind.split("-")[0].encode(), bodies[kind]())


def png(texts: Mapping[str, str], kind: str = "tEXt", *, seed: int = 0, behind: bool = False, **options: Any) -> bytes:
    """A PNG with a chunk for each text, ahead of the pixels or behind them."""
    data = encoded(seed, "PNG", **options)
    place = len(data) - 12 if behind else 33
    chunks = b"".join(text_chunk(name, text, kind) for name, text in texts.items())
    return data[:place] + chunks + data[place:]


def a1111(seed: int, text: str, **options: Any) -> bytes:
    return png({"parameters": text}, "iTXt", seed=seed, **options)


# Exif.


def comment(text: str, code: str = "UNICODE", order: str = "utf-16-be") -> bytes:
    return code.encode().ljust(8, b"\0") + text.encode(order)


def exif(user_comment: bytes | None = None, *, big: bool = True, first: Mapping[int, bytes] = {}) -> bytes:
    """Exif with a UserComment in its own folder, and texts in the first folder, in either byte order."""
    sign = ">" if big else "<"
    entries: list[tuple[int, int, bytes]] = [
        (tag, 7 if tag == USER_COMMENT else 2, body) for tag, body in first.items()
    ]
    count = len(entries) + (user_comment is not None)
    at = 8 + 2 + 12 * count + 4
    table, bodies = b"", b""
    for tag, kind, body in sorted(entries):
        table += struct.pack(f"{sign}HHII", tag, kind, len(body), at + len(bodies))
        bodies += body + b"\0" * (len(body) % 2)
    if user_comment is not None:
        inner = at + len(bodies)
        table += struct.pack(f"{sign}HHII", EXIF_FOLDER, 4, 1, inner)
        place = inner + 2 + 12 + 4
        bodies += struct.pack(f"{sign}H", 1)
        bodies += struct.pack(f"{sign}HHII", USER_COMMENT, 7, len(user_comment), place) + bytes(4) + user_comment
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{sign}IH", 8, count)
    return b"Exif\0\0" + head + table + bytes(4) + bodies


def jpeg(block: bytes, seed: int = 0) -> bytes:
    data = encoded(seed, "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def webp(block: bytes, seed: int = 0, *, marked: bool = True) -> bytes:
    """A WebP with a chunk of Exif, which some programs begin with ``Exif`` as JPEG has it, and others do not."""
    body = block if marked else block.removeprefix(b"Exif\0\0")
    inner = encoded(seed, "WEBP", lossless=True)[12:]
    extended = struct.pack("<4sII", b"VP8X", 10, 0x08) + b"\x2f\0\0\x2f\0\0"
    inner = extended + inner + struct.pack("<4sI", b"EXIF", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner


# What programs write.


def infotext(prompt: str, negative: str = "blurry", model: str = "alphaMix", **settings: object) -> str:
    """A1111's text of version 1.6, in its order."""
    said: dict[str, object] = {
        "Steps": 20, "Sampler": "DPM++ 2M Karras", "CFG scale": 7, "Seed": 1, "Size": "48x48",
        "Model hash": model.encode().hex()[:10].ljust(10, "0"), "Model": model, "Version": "v1.6.0",
    }  # fmt: skip
    said |= {name.replace("_", " "): value for name, value in settings.items()}
    line = ", ".join(f"{name}: {value}" for name, value in said.items() if value is not None)
    return f"{prompt}\n" + (f"Negative prompt: {negative}\n" if negative else "") + line


Graph = dict[str, dict[str, Any]]


def graph(**changes: Mapping[str, Any]) -> Graph:
    """ComfyUI's graph of one KSampler; ``changes`` of the inputs of sampler, model, latent, positive, negative."""
    nodes = {
        "sampler": ("KSampler", {
            "seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
            "latent_image": ["latent", 0],
        }),
        "model": ("CheckpointLoaderSimple", {"ckpt_name": "sub/one.safetensors"}),
        "latent": ("EmptyLatentImage", {"width": 48, "height": 48, "batch_size": 1}),
        "positive": ("CLIPTextEncode", {"text": "a fox", "clip": ["model", 1]}),
        "negative": ("CLIPTextEncode", {"text": "blurry", "clip": ["model", 1]}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]}),
        "save": ("SaveImage", {"filename_prefix": "x", "images": ["decode", 0]}),
    }  # fmt: skip
    return {
        name: {"class_type": kind, "inputs": {**inputs, **changes.get(name, {})}}
        for name, (kind, inputs) in nodes.items()
    }


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def comfy(found: Graph, **options: Any) -> bytes:
    return png({"prompt": json.dumps(found)}, **options)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
