"""Prompts with weights and of any length, encoded by the arithmetic of the program that they are written for.

A prompt is encoded alone and chunk by chunk, so that neither its neighbours in a batch nor the number of its chunks
change a state. With e_i the state of token i of a chunk, w_i its weight (1 for start, end and padding):

    a1111    z_i = w_i e_i, then all of them times mean(e) / mean(z), over the chunk's 77 tokens and all channels
    comfyui  z_i = o_i + w_i (e_i - o_i), with o_i the state of the empty prompt at the same place

SDXL's two encoders are each treated so, and the pooled vector is that of the first chunk, which no weight reaches.
Facts: stable-diffusion-webui 1.8 ("Original" emphasis), Forge, ComfyUI's ``sd1_clip``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.errors import SuiteError, UsageError
from bench.formatting import quoted
from bench.pipeline.embeddings import embedding_rows
from bench.records import Settings
from bench.suite.prompt_chunks import Chunk, Vector, a1111_chunks, comfyui_chunks
from bench.suite.prompt_syntax import bare_text, read_segments

MOST_RESTORED = 10.0
"""Largest factor that A1111's mean may be restored by: beyond, the weighted mean is next to zero."""
MOST_TOKENS = 256 * 77
"""That the UNet is given for an image: 256 of CLIP's chunks."""


class EncodedText(NamedTuple):
    """One text as the UNet takes it: states (1, tokens, width), and SDXL's pooled vector (1, width)."""

    states: Tensor
    pooled: Tensor | None


class _Encoder(NamedTuple):
    """A text encoder with what its input is made of."""

    model: Any
    tokenizer: Any
    layer: int
    """Of ``hidden_states``, counted from the end."""
    normed: bool
    """Whether the final layer norm is applied."""


def encode_pair(
    pipe: Any, prompt: str, negative: str | None, settings: Settings, known: dict[str, EncodedText]
) -> tuple[EncodedText, EncodedText | None]:
    """A prompt and its negative prompt, None without guidance, repeated to one length.

    What is in ``known`` is not encoded again, and what is encoded goes into it. Attention to states that are all
    repeated equally often is attention to them once, so unequal prompts are not changed by it. SDXL's empty negative
    prompt is zeros, but for ``comfyui``, which encodes it.

    Raises:
        SuiteError: a weighted mean next to zero, or too many chunks.
        UsageError: fewer layers than ``clip_skip``.
        WeightsError: an embedding that does not fit.
    """
    positive = _known(pipe, prompt, settings, known)
    if negative is None:
        return positive, None
    if _is_zero(pipe, bare_text(negative, settings), settings):
        pooled = None if positive.pooled is None else torch.zeros_like(positive.pooled)
        other = EncodedText(torch.zeros_like(positive.states[:, : _places(pipe) + 2]), pooled)
    else:
        other = _known(pipe, negative, settings, known)
    tokens = common_tokens([positive.states.shape[1], other.states.shape[1]])
    return _longer(positive, tokens), _longer(other, tokens)


def _known(pipe: Any, text: str, settings: Settings, known: dict[str, EncodedText]) -> EncodedText:
    if text not in known:
        known[text] = encode_text(pipe, text, settings)
    return known[text]


def _is_zero(pipe: Any, negative: str, settings: Settings) -> bool:
    """Whether a negative prompt is SDXL's zeros; a blank is none, as in A1111."""
    if negative or getattr(pipe, "text_encoder_2", None) is None:
        return False
    zeros = {"plain": bool(pipe.config.force_zeros_for_empty_prompt), "a1111": True, "comfyui": False}
    return zeros[settings.prompt_syntax]


def encode_text(pipe: Any, text: str, settings: Settings) -> EncodedText:
    """One text with its weights; errors as ``encode_pair``."""
    encoders = _encoders(pipe, settings)
    if settings.prompt_syntax == "plain":
        read = [_read(encoder, _cut_ids(encoder, text), []) for encoder in encoders]
        return EncodedText(torch.cat([states for states, _ in read], dim=-1), read[-1][1])
    widths = [encoder.model.get_input_embeddings().weight.shape[1] for encoder in encoders]
    rows = {one.name: embedding_rows(one, widths) for one in settings.embeddings}
    chunks = chunks_of(pipe, text, settings, {name: len(found[0]) for name, found in rows.items()})
    states, pooled = [], None
    for number, encoder in enumerate(encoders):
        own = {name: found[number] for name, found in rows.items()}
        weighted, pooled = _weighted(encoder, chunks, own, settings, text)
        states.append(weighted)
    return EncodedText(torch.cat(states, dim=-1), pooled)


def chunks_of(pipe: Any, text: str, settings: Settings, vectors: Mapping[str, int]) -> tuple[Chunk, ...]:
    """The chunks of a prompt by the pipeline's first tokenizer, whose vocabulary is the second one's too.

    Raises:
        SuiteError: an embedding has more rows than a chunk has places.
    """
    tokenizer, size = pipe.tokenizer, _places(pipe)
    for name, count in vectors.items():
        if count > size:
            raise SuiteError(f"The embedding {name} has {count} rows; a chunk has {size} places.")

    def tokenize(part: str) -> list[int]:
        ids: list[int] = tokenizer(part, add_special_tokens=False, verbose=False).input_ids
        return ids

    segments = read_segments(text, settings)
    if settings.prompt_syntax == "comfyui":
        return comfyui_chunks(segments, tokenize, vectors, size=size)
    comma = tokenizer.get_vocab().get(",</w>")
    return a1111_chunks(segments, tokenize, vectors, size=size, comma=comma)


def _places(pipe: Any) -> int:
    """What stands between start and end token: 75."""
    return int(pipe.text_encoder.config.max_position_embeddings) - 2


# Lengths.


def common_tokens(lengths: Sequence[int]) -> int:
    """The length that all of these can be repeated to.

    Raises:
        SuiteError: it is over ``MOST_TOKENS``.
    """
    tokens = math.lcm(*lengths)
    if tokens > MOST_TOKENS:
        counts = " and ".join(f"{length:,}" for length in dict.fromkeys(lengths))
        raise SuiteError(
            f"Prompts and negative prompts of {counts} tokens in one batch would be repeated to {tokens:,} tokens; at "
            f"most {MOST_TOKENS:,} are drawn.",
            "shorten the longest, or set batch = 1 in [settings]",
        )
    return tokens


def repeated(states: Tensor, tokens: int) -> Tensor:
    """States (n, t, width) repeated to (n, tokens, width)."""
    return states if states.shape[1] == tokens else states.repeat(1, tokens // states.shape[1], 1)


def _longer(text: EncodedText, tokens: int) -> EncodedText:
    return text._replace(states=repeated(text.states, tokens))


# One encoder.


def _encoders(pipe: Any, settings: Settings) -> list[_Encoder]:
    """SD 1.5 takes the last layer or, with ``clip_skip``, an earlier one, normed; SDXL the last but one or deeper."""
    second = getattr(pipe, "text_encoder_2", None)
    skip = settings.clip_skip or 1
    if second is None:
        found = [_Encoder(pipe.text_encoder, pipe.tokenizer, skip, True)]
    else:
        pairs = ((pipe.text_encoder, pipe.tokenizer), (second, pipe.tokenizer_2))
        found = [_Encoder(*pair, max(skip, 2), False) for pair in pairs]
    layers = min(encoder.model.config.num_hidden_layers for encoder in found)
    if skip > layers:
        raise UsageError(
            f"settings.clip_skip is {skip}, and a text encoder of this checkpoint has {layers} layers.",
            f"set clip_skip to {layers} or less, or leave it out",
        )
    return found


def _cut_ids(encoder: _Encoder, text: str) -> list[int]:
    tokenizer = encoder.tokenizer
    cut = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    ids: list[int] = cut.input_ids
    return ids


def _read(encoder: _Encoder, ids: Sequence[int], vectors: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor | None]:
    """States (1, tokens, width) of one chunk, and the pooled vector (1, width) of an encoder that projects."""
    model = encoder.model
    with _in_place(model, vectors):
        found = model(torch.tensor([list(ids)], device=model.device), output_hidden_states=True)
    pooled = getattr(found, "text_embeds", None)
    if not encoder.normed:
        return found.hidden_states[-encoder.layer], pooled
    if encoder.layer == 1:
        return found.last_hidden_state, pooled
    norm = getattr(model, "text_model", model).final_layer_norm
    return norm(found.hidden_states[-encoder.layer]), pooled


@contextmanager
def _in_place(model: Any, vectors: Sequence[tuple[int, Tensor]]) -> Iterator[None]:
    """Within the context rows of embeddings stand in the places of tokens."""
    if not vectors:
        yield
        return

    def put(_: Any, __: Any, embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        for place, row in vectors:
            embedded[0, place] = row.to(embedded)
        return embedded

    handle = model.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _weighted(
    encoder: _Encoder, chunks: Sequence[Chunk], rows: Mapping[str, Tensor], settings: Settings, text: str
) -> tuple[Tensor, Tensor | None]:
    """The weighted states of all chunks one after the other, and the pooled vector of the first."""
    read = [_read(encoder, *_input(encoder, chunk, rows)) for chunk in chunks]
    states = [states for states, _ in read]
    if any(weight != 1 for chunk in chunks for weight in chunk.weights):
        weigh = _interpolated(encoder) if settings.prompt_syntax == "comfyui" else _mean_restored(text)
        states = [weigh(one, _weights(one, chunk)) for one, chunk in zip(states, chunks, strict=True)]
    return torch.cat(states, dim=1), read[0][1]


def _input(encoder: _Encoder, chunk: Chunk, rows: Mapping[str, Tensor]) -> tuple[list[int], list[tuple[int, Tensor]]]:
    """Numbers of tokens with start, end and padding, and what takes the place of some."""
    tokenizer = encoder.tokenizer
    ids = [0 if isinstance(token, Vector) else token for token in chunk.tokens]
    vectors = [
        (place, rows[token.name][token.row])
        for place, token in enumerate(chunk.tokens, start=1)
        if isinstance(token, Vector)
    ]
    full = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return full + [tokenizer.pad_token_id] * (encoder.model.config.max_position_embeddings - len(full)), vectors


def _weights(states: Tensor, chunk: Chunk) -> Tensor:
    """(1, tokens, 1) float32."""
    weights = torch.ones(states.shape[1])
    weights[1 : 1 + len(chunk.weights)] = torch.tensor(chunk.weights)
    return weights.to(states.device).view(1, -1, 1)


_Weigh = Callable[[Tensor, Tensor], Tensor]


def _mean_restored(text: str) -> _Weigh:
    """A1111's "Original" emphasis on one chunk; refuses a mean next to zero, which would blow all states up."""

    def weigh(states: Tensor, weights: Tensor) -> Tensor:
        plain = states.float()
        weighted = plain * weights
        factor = (plain.mean() / weighted.mean()).item()
        if not abs(factor) <= MOST_RESTORED:
            raise SuiteError(
                f"The weights of {quoted(text)} bring the mean of a text encoder's states next to zero: A1111 restores "
                f"it, which would multiply all states by {factor:.3g}.",
                'use weights nearer to 1, or prompt_syntax = "comfyui"',
            )
        return (weighted * factor).to(states.dtype)

    return weigh


def _interpolated(encoder: _Encoder) -> _Weigh:
    """ComfyUI's weights, away from the empty prompt or towards it."""
    empty = _read(encoder, *_input(encoder, Chunk((), ()), {}))[0].float()

    def weigh(states: Tensor, weights: Tensor) -> Tensor:
        return torch.where(weights == 1, states, ((states.float() - empty) * weights + empty).to(states.dtype))

    return weigh
