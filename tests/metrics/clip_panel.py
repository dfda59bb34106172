"""Drawn pictures, telling prompts, and the panel's scores of them by the engine and by the two CLIP libraries."""

from __future__ import annotations

import functools
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import open_clip
import pytest
import torch
from fake_metrics import put_image
from fakes import make_run, write_run
from official_layouts import to_transformers, transformers_config
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from bench.metrics import Registry
from bench.metrics.encoders import ClipShape
from bench.records import Dtype, Score
from bench.score import score
from bench.store import RunFolder

CASES = (
    (512, 512, "RGB", "a cat with two horns on its head"),
    (832, 1216, "RGB", "cafÃ© in a narrow street, the sign says â€œopenâ€\x9d"),  # mojibake: ftfy repairs it
    (1216, 832, "RGB", "salt &amp;amp; pepper &lt;on a table&gt;"),
    (513, 385, "RGB", "e\u0301clair and ﬁg, ｆｕｌｌ ｗｉｄｔｈ, ½ eaten"),
    (385, 513, "RGBA", "an astronaut 👩‍🚀 waves 🎉"),
    (513, 385, "P", "قطة تنام على كرسي"),
    (832, 1216, "L", "don't   blink\t— it's\n2024"),
    (700, 300, "LA", "control \x07 and \u200b characters \u202e here"),
    (300, 700, "RGBA", ""),
    (640, 480, "P", "a cat, " * 200),
    (480, 640, "RGB", "cat " * 75),  # 77 tokens with start and end: whole
    (225, 1000, "RGB", "cat " * 76),  # one more: cut
    (97, 61, "RGB", "A RED CIRCLE ON A STRIPED WALL"),
    (1024, 1024, "CMYK", "猫が椅子で眠っている"),
)
"""Width, height and mode of a picture, and its prompt."""
LONG = (9, 11)
"""Which of them are cut."""


@functools.cache
def draw(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A gradient with waves, a disc, and stripes as fine as writing; see-through to the left, where the mode can.

    All callers share it: nobody changes it.
    """
    y, x = np.mgrid[:height, :width]
    levels = [255 * x / width, 255 * y / height, 127 + 127 * np.sin(x / 7) * np.cos(y / 11)]
    image = Image.fromarray(np.stack(levels, -1).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse([width * 0.1, height * 0.15, width * 0.6, height * 0.5], fill=(250, 40, 10))
    for line in range(0, height, 9):
        pen.line([width * 0.5, line, width * 0.95, line], fill=(0, 0, 0), width=2)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray((255 * x / width).astype(np.uint8)))
        return image
    return image.quantize(32) if mode == "P" else image.convert(mode)


def encoded(image: Image.Image) -> bytes:
    """The bytes of a file that keeps every pixel as it is, but for CMYK, which is read from JPEG files alone."""
    file = io.BytesIO()
    image.save(file, **({"format": "JPEG", "quality": 100} if image.mode == "CMYK" else {"format": "PNG"}))
    return file.getvalue()


def seen(width: int, height: int, mode: str) -> Image.Image:
    """The picture as a viewer shows its file: what is see-through on white."""
    image = draw(width, height, mode)
    if mode in ("RGBA", "LA"):
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return Image.open(io.BytesIO(encoded(image))) if mode == "CMYK" else image


def judged(
    place: Path,
    pairs: Sequence[tuple[bytes, str]],
    metrics: Sequence[str],
    registry: Registry,
    weights_dir: Path | None = None,
    dtype: Dtype | None = None,
) -> dict[str, list[Score]]:
    """The engine's scores of pictures with their prompts, in that order, by metric."""
    run = make_run(place, prompts=len(pairs), samples=1, variants=("base",))
    prompts = tuple(
        msgspec.structs.replace(prompt, text=text)
        for prompt, (_, text) in zip(run.info.suite.prompts, pairs, strict=True)
    )
    suite = msgspec.structs.replace(run.info.suite, prompts=prompts, metrics=tuple(metrics))
    info = msgspec.structs.replace(run.info, suite=suite, metrics=())
    write_run(msgspec.structs.replace(run, info=info, scores=()), place)
    with RunFolder.reopen(place) as folder:
        for prompt, (image, _) in zip(prompts, pairs, strict=True):
            put_image(folder, ("base", prompt.id, 0), image)
        with pytest.MonkeyPatch.context() as patch:  # a fixture of a module may call, before conftest's patch holds
            patch.setenv("HOTART_WEIGHTS_LOCK", str(place.with_suffix(".lock.json")))
            score(folder, metrics=metrics, registry=registry, weights_dir=weights_dir, metric_dtype=dtype)
        found = {(item.metric, item.prompt_id): item for item in folder.scores()}
    return {name: [found[name, prompt.id] for prompt in prompts] for name in metrics}


@functools.cache
def all_pairs() -> tuple[tuple[bytes, str], ...]:
    """Every case as the engine takes it."""
    return tuple((encoded(draw(*size, mode)), prompt) for *size, mode, prompt in CASES)


def transformers_clip(state: dict[str, Tensor], shape: ClipShape) -> CLIPModel:
    """transformers' CLIP with weights in open_clip's layout."""
    model = CLIPModel(CLIPConfig.from_dict(transformers_config(shape)))
    model.load_state_dict(to_transformers(state), strict=True)
    return model.eval()


def open_clip_clip(state: dict[str, Tensor], shape: ClipShape) -> open_clip.CLIP:
    """open_clip's CLIP."""
    model = open_clip.CLIP(
        shape.embed_dim,
        {
            "image_size": shape.side_px,
            "patch_size": shape.patch_px,
            "width": shape.vision_width,
            "layers": shape.vision_layers,
            "head_width": shape.head_width,
        },
        {"width": shape.text_width, "heads": shape.text_heads, "layers": shape.text_layers},
        quick_gelu=shape.quick_gelu,
    )
    model.load_state_dict(state)
    return model.eval()


@torch.inference_mode()
def transformers_features(model: CLIPModel, pixels: Tensor, ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit features of one picture and of one prompt, float64."""
    image = model.get_image_features(pixel_values=pixels[None]).pooler_output
    text = model.get_text_features(input_ids=ids).pooler_output
    return _unit(image), _unit(text)


@torch.inference_mode()
def open_clip_features(model: open_clip.CLIP, pixels: Tensor, ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit features of one picture and of one prompt, float64."""
    return _unit(model.encode_image(pixels[None])), _unit(model.encode_text(ids))


@functools.cache
def plain_tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    """open_clip's byte pairs without ftfy and HTML: NFC, white space, lower case."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    tokenizer.clean_fn = lambda text: re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    return tokenizer


def plain_ids(prompt: str) -> Tensor:
    """The 77 tokens of a prompt that is cleaned no further, padded with the end."""
    tokenizer = plain_tokenizer()
    pieces = tokenizer.encode(prompt)[:75]
    ids = [tokenizer.sot_token_id, *pieces, tokenizer.eot_token_id]
    return torch.tensor([ids + [tokenizer.eot_token_id] * (77 - len(ids))])


def _unit(features: Tensor) -> np.ndarray:
    row = features[0].double().numpy()
    return row / np.linalg.norm(row)
