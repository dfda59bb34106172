"""Image and text encoders of the CLIP kind: official preprocessing, tokens, and models filled strictly."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from bench.errors import WeightsError
from bench.metrics.declare import NoScoreError, Place
from bench.metrics.weights import FETCH_AGAIN
from bench.records import Dtype
from bench.suite.tokens import CONTEXT, merges, vocabulary

# From a picture to the pixels that an encoder sees: the official preprocessings.

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of each channel, by which every CLIP normalises; source: A. Radford et al., arXiv 2103.00020, and its code."""
MAX_RESIZED_PIXELS = 2**26
"""Most pixels that a picture may have once its short side is the encoder's, as many as are decoded at most."""
Preprocessing = Callable[[Image.Image, int], Tensor]
"""A picture of any 8-bit mode and the encoder's side in pixels -> normalised float32 (3, side, side)."""


def torchvision_crop(image: Image.Image, side_px: int) -> Tensor:
    """The middle square as openai's and LAION's code takes it: resized in the picture's own mode, then RGB.

    Short side to ``side_px`` by PIL's bicubic filter (a palette picture by its nearest colour, as PIL does), the
    crop's margin rounded to the nearest, halves to even. Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that it would not fit in memory.
    """
    resized = _resize_short_side(image, side_px)
    left, top = (round((size - side_px) / 2) for size in resized.size)
    return normalise(_crop(resized, left, top, side_px).convert("RGB"))


def transformers_crop(image: Image.Image, side_px: int) -> Tensor:
    """The middle square as transformers' CLIP processor takes it: RGB first, then as above, the margin rounded down.

    Short side to ``side_px`` by PIL's bicubic filter. Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that it would not fit in memory.
    """
    resized = _resize_short_side(image if image.mode == "RGB" else image.convert("RGB"), side_px)
    left, top = ((size - side_px) // 2 for size in resized.size)
    return normalise(_crop(resized, left, top, side_px))


def whole_on_black(image: Image.Image, side_px: int) -> Tensor:
    """The whole picture on black as HPSv2's code takes it: RGB, longest side to ``side_px``, padded in the middle.

    Resized as a float32 tensor by torch's bicubic filter with antialiasing, without clamping its overshoot.
    Normalised float32 (3, side_px, side_px).

    Raises:
        NoScoreError: the picture is so long that its short side would vanish.
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float().div(255.0)
    height, width = pixels.shape[1:]
    if max(height, width) != side_px:
        scale = side_px / float(max(height, width))
        height, width = round(height * scale), round(width * scale)
        if min(height, width) == 0:
            raise NoScoreError(
                f"the image is {image.width} x {image.height} pixels; its short side vanishes at {side_px} pixels"
            )
        pixels = functional.interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]
    left, top = (side_px - width) // 2, (side_px - height) // 2
    return _normalised(functional.pad(pixels, (left, side_px - width - left, top, side_px - height - top)))


def normalise(image: Image.Image) -> Tensor:
    """An RGB picture as (level / 255 - mean) / std of each channel, float32 (3, height, width)."""
    levels = np.asarray(image)
    pixels = np.empty((3, image.height, image.width), np.float32)
    for channel, values in enumerate(_OF_LEVEL):
        np.take(values, levels[:, :, channel], out=pixels[channel], mode="clip")
    return torch.from_numpy(pixels)


class _Last(threading.local):
    """What this thread resized last: of two preprocessings of one picture, the second finds it here."""

    picture: Callable[[], Image.Image | None] = staticmethod(lambda: None)
    side_px = 0
    resized: Image.Image


_LAST = _Last()


def _resize_short_side(image: Image.Image, side_px: int) -> Image.Image:
    if _LAST.picture() is not image or _LAST.side_px != side_px:
        _LAST.resized = image.resize(_short_side_at(side_px, image), Image.Resampling.BICUBIC)
        _LAST.picture, _LAST.side_px = weakref.ref(image), side_px
    return _LAST.resized


def _short_side_at(side_px: int, image: Image.Image) -> tuple[int, int]:
    short, long = sorted(image.size)
    long_px = side_px * long // short
    if side_px * long_px > MAX_RESIZED_PIXELS:
        raise NoScoreError(
            f"the image is {image.width} x {image.height} pixels; "
            f"with a short side of {side_px} its long side would have {long_px:,}"
        )
    return (side_px, long_px) if image.width <= image.height else (long_px, side_px)


def _crop(image: Image.Image, left: int, top: int, side_px: int) -> Image.Image:
    return image.crop((left, top, left + side_px, top + side_px))


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std).contiguous()


# Looked up, since torch would start threads of its own in each thread that loads pictures.
_OF_LEVEL = _normalised(torch.arange(256.0).div(255.0).expand(3, 1, 256))[:, 0].numpy()
"""(3, 256) float32: what each level of a channel becomes."""


# From a prompt to the tokens that a CLIP text encoder reads, start and end left out: the two official tokenizers.

START, END = 49406, 49407
"""What every CLIP puts before and after a prompt's tokens."""
Tokenize = Callable[[str], list[int]]


def openai_tokens() -> Tokenize:
    """openai's tokenizer as open_clip has it: ftfy, HTML entities resolved, white space collapsed, lower case."""
    tokenize: Tokenize = SimpleTokenizer().encode
    return tokenize


def transformers_tokens() -> Tokenize:
    """transformers' CLIP tokenizer: Unicode composed (NFC), white space collapsed, lower case, and nothing else.

    Built from the byte pairs that open_clip ships, which are those of every CLIP, so that it needs no download.
    """
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    words = {names.get(word, word): number for word, number in vocabulary().items()}
    tokenizer = CLIPTokenizer(vocab=words, merges=list(merges()))
    return lambda prompt: list(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)


def token_ids(tokenize: Tokenize, prompts: Sequence[str], padding: int = 0) -> Tensor:
    """Start, tokens, end and padding, int64 (n, 77); of a longer prompt the last tokens go, never the end."""
    ids = torch.full((len(prompts), CONTEXT), padding, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = [START, *tokenize(prompt)[: CONTEXT - 2], END]
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


# A CLIP in memory, as an encoder: its model, its tokenizer and its preprocessings, and how models are filled strictly.

BATCH = 16
"""Images and prompts of one forward: enough to keep a CPU or GPU busy, and always the same."""
NAMED_KEYS = 3
"""Most keys that an error names."""
TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(eq=False)
class ClipEncoder:
    """A ``LoadedEncoder``: a CLIP with the preprocessing and the tokenizer of the metrics on it."""

    encode_image: Callable[[Tensor], Tensor]
    """(batch, 3, side, side) in ``dtype`` -> features (batch, d) of any length."""
    encode_text: Callable[[Tensor], Tensor]
    """Token ids (batch, 77) -> features (batch, d) of any length."""
    tokenize: Tokenize
    preprocessings: Mapping[str, Preprocessing]
    """By the name that a metric has for it."""
    side_px: int
    logit_scale: float
    device: str
    dtype: torch.dtype
    batch: int = BATCH

    def preprocess(self, image: Image.Image, preprocessing: str) -> Tensor:
        """The picture in one of the encoder's preprocessings, float32 (3, side, side) on the CPU."""
        return self.preprocessings[preprocessing](image, self.side_px)

    @torch.inference_mode()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(batch, 3, side, side) -> unit vectors, float32 (batch, d); the length is taken in float32."""
        return functional.normalize(self.encode_image(pixels.to(self.device, self.dtype)).float(), dim=1)

    @torch.inference_mode()
    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """``batch`` prompts, each as 77 tokens -> unit vectors, float32 (batch, d)."""
        ids = token_ids(self.tokenize, prompts).to(self.device)
        return functional.normalize(self.encode_text(ids).float(), dim=1)

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Of each prompt, whether it has more than 77 tokens, start and end counted."""
        return [len(self.tokenize(prompt)) > CONTEXT - 2 for prompt in prompts]


def fill_model(model: nn.Module, state: MutableMapping[str, Tensor], place: Place, file: Path, what: str) -> float:
    """Give a CLIP built on the device "meta" its weights in the place's dtype, frozen; its exp(logit_scale).

    The scale is taken in float32 whatever the dtype: bfloat16 would make 98.9 of 100, and every score with it.
    Each tensor is cast and let go of in turn, so that a file in half precision needs no second copy in memory.

    Raises:
        WeightsError: a key is missing, unknown or of another shape; ``file`` and ``what`` it should be are named.
    """
    check_keys(state, model.state_dict(), file, what)
    dtype, logit_scale = TORCH_DTYPES[place.dtype], float(state["logit_scale"].float().exp())
    ready = {key: state.pop(key).to(place.device, dtype) for key in list(state)}
    model.load_state_dict(ready, assign=True)
    model.requires_grad_(False).eval()
    return logit_scale


def check_keys(state: Any, wanted: Mapping[str, Tensor], file: Path, what: str) -> None:
    """Refuse weights that are not exactly those wanted, key by key and shape by shape.

    Raises:
        WeightsError: with how many keys are missing, unknown or of another shape, and the first of each.
    """
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        raise WeightsError(f"{file}: not the weights of {what}: it holds a {kind}, not tensors by name.", FETCH_AGAIN)
    misshapen = [
        f"{key} {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = {
        "missing": [key for key in wanted if key not in state],
        "unknown": [key for key in state if key not in wanted],
        "of another shape": misshapen,
    }
    if found := [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys]:
        raise WeightsError(f"{file}: not the weights of {what}: of its keys, {'; '.join(found)}.", FETCH_AGAIN)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NAMED_KEYS]) + (", ..." if len(keys) > NAMED_KEYS else "")


# CLIPs in open_clip's layout: openai's ViT-L/14 and the ViT-H/14 of HPSv2.


@dataclass(frozen=True)
class ClipShape:
    """Sizes of a CLIP, and its activation."""

    embed_dim: int
    vision_width: int
    vision_layers: int
    head_width: int
    text_width: int
    text_heads: int
    text_layers: int
    quick_gelu: bool
    """x sigmoid(1.702 x), which openai trained with, instead of the exact GELU: it moves aesthetic scores by 0.6."""
    patch_px: int = 14
    side_px: int = 224


VIT_L14 = ClipShape(768, 1024, 24, 64, 768, 12, 12, quick_gelu=True)
VIT_H14 = ClipShape(1024, 1280, 32, 80, 1024, 16, 24, quick_gelu=False)


def load_open_clip(
    state: MutableMapping[str, Tensor],
    place: Place,
    file: Path,
    *,
    what: str,
    shape: ClipShape,
    preprocessings: Mapping[str, Preprocessing],
    tokenize: Tokenize | None = None,
) -> ClipEncoder:
    """A CLIP of the given shape with the weights of a published file, at the place.

    Args:
        state: tensors by open_clip's names, in any dtype; emptied while they are taken over.
        place: device and dtype.
        file: where they were read, for errors.
        what: the model that they should be, for errors.
        shape: its sizes.
        preprocessings: by the names that its metrics have for them.
        tokenize: its tokenizer, openai's by default.

    Raises:
        WeightsError: a key is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = CLIP(
            embed_dim=shape.embed_dim,
            vision_cfg=CLIPVisionCfg(
                image_size=shape.side_px,
                patch_size=shape.patch_px,
                width=shape.vision_width,
                layers=shape.vision_layers,
                head_width=shape.head_width,
            ),
            text_cfg=CLIPTextCfg(width=shape.text_width, heads=shape.text_heads, layers=shape.text_layers),
            quick_gelu=shape.quick_gelu,
        )
    logit_scale = fill_model(model, state, place, file, what)
    # No key of the file fills this buffer, and on the device "meta" it holds nothing: no token sees a later one.
    size = model.context_length
    model.attn_mask = torch.full((size, size), float("-inf"), device=place.device).triu(1)
    return ClipEncoder(
        encode_image=model.encode_image,
        encode_text=model.encode_text,
        tokenize=openai_tokens() if tokenize is None else tokenize,
        preprocessings=preprocessings,
        side_px=shape.side_px,
        logit_scale=logit_scale,
        device=place.device,
        dtype=TORCH_DTYPES[place.dtype],
    )
