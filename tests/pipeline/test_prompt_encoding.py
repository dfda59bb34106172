"""Weighted and long prompts against a second implementation of each program's formula, on seeded encoders.

``by_a1111`` and ``by_comfyui`` below are that second implementation: they are given pieces and weights by hand, and
go token by token.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.documents import sha256_of
from bench.errors import SuiteError, UsageError, WeightsError
from bench.pipeline import denoise as stages
from bench.pipeline.build import tokenizers
from bench.pipeline.prompt_encoding import chunks_of, encode_text
from bench.records import Embedding, Settings

BOS, EOS, COMMA = 49406, 49407, 267
WIDTHS = (16, 24)
Pieces = list[tuple[str, float]]


def encoder(kind: Any, width: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=4,
        num_attention_heads=2,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    model = kind(config).eval()
    # Fresh encoders have states of mean 0, which no trained one has: A1111's mean would be of nothing.
    for layer in (*(one.layer_norm1 for one in model.modules() if hasattr(one, "layer_norm1")),):
        torch.nn.init.normal_(layer.weight, 1.0, 0.3)
    model.get_input_embeddings().weight.data.add_(0.05)
    getattr(model, "text_model", model).final_layer_norm.bias.data.add_(0.4)
    return model


@pytest.fixture(scope="module")
def sdxl() -> Any:
    """SDXL's two text encoders in miniature, with its true vocabulary, lengths and padding."""
    return SimpleNamespace(
        text_encoder=encoder(CLIPTextModel, WIDTHS[0], 1),
        text_encoder_2=encoder(CLIPTextModelWithProjection, WIDTHS[1], 2),
        **tokenizers("sdxl"),
        config=SimpleNamespace(force_zeros_for_empty_prompt=True),
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def sd15() -> Any:
    return SimpleNamespace(text_encoder=encoder(CLIPTextModel, WIDTHS[0], 3), **tokenizers("sd15"))


def made(settings: Settings, **changes: Any) -> Settings:
    return msgspec.structs.replace(settings, **changes)


# --- the second implementation -------------------------------------------------------------


def ids_of(pipe: Any, text: str) -> list[int]:
    return list(pipe.tokenizer(text, add_special_tokens=False).input_ids)


def states(model: Any, ids: list[int], skip: int, *, is_sdxl: bool) -> Tensor:
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
        if is_sdxl:
            return out.hidden_states[-max(skip, 2)][0]
        inner = getattr(model, "text_model", model)
        return out.last_hidden_state[0] if skip == 1 else inner.final_layer_norm(out.hidden_states[-skip])[0]


def models_of(pipe: Any) -> list[tuple[Any, int]]:
    """Each text encoder with the number that fills its chunks up."""
    second = getattr(pipe, "text_encoder_2", None)
    return [(pipe.text_encoder, EOS), *([] if second is None else [(second, 0)])]


def framed(tokens: list[int], pad: int) -> list[int]:
    return [BOS, *tokens, EOS] + [pad] * (75 - len(tokens))


def by_a1111(pipe: Any, chunks: list[Pieces], skip: int = 1) -> Tensor:
    """z = w e, times mean(e) / mean(z), for each chunk and encoder."""
    columns = []
    for model, pad in models_of(pipe):
        rows = []
        for pieces in chunks:
            tokens = [(token, weight) for text, weight in pieces for token in ids_of(pipe, text)]
            e = states(model, framed([token for token, _ in tokens], pad), skip, is_sdxl=len(models_of(pipe)) == 2)
            z = e.clone()
            for place, (_, weight) in enumerate(tokens, start=1):
                z[place] = e[place] * weight
            rows.append(z * (e.sum() / z.sum()))
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=1)


def by_comfyui(pipe: Any, chunks: list[Pieces], skip: int = 1) -> Tensor:
    """z = o + w (e - o), with o of the empty prompt."""
    columns = []
    for model, pad in models_of(pipe):
        sdxl = len(models_of(pipe)) == 2
        o = states(model, framed([], pad), skip, is_sdxl=sdxl)
        rows = []
        for pieces in chunks:
            tokens = [(token, weight) for text, weight in pieces for token in ids_of(pipe, text)]
            z = states(model, framed([token for token, _ in tokens], pad), skip, is_sdxl=sdxl).clone()
            for place, (_, weight) in enumerate(tokens, start=1):
                z[place] = o[place] + weight * (z[place] - o[place])
            rows.append(z)
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=1)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# --- weights and chunks --------------------------------------------------------------------

WEIGHTED = "a (red:1.3) tent, [fog] and (((sea)))"
BY_A1111: list[Pieces] = [
    [("a ", 1), ("red", 1.3), (" tent, ", 1), ("fog", 1 / 1.1), (" and ", 1), ("sea", 1.1**3)],
]
BY_COMFYUI: list[Pieces] = [[("a ", 1), ("red", 1.3), (" tent, [fog] and ", 1), ("sea", 1.1**3)]]
LONG = ", ".join(["a quiet kite over the lake"] * 30)


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
@pytest.mark.parametrize("skip", [None, 1, 2, 3])
def test_weights_are_a1111s(family: str, skip: int | None, settings: Settings, request: Any) -> None:
    pipe = request.getfixturevalue(family)
    found = stages.encode(pipe, [WEIGHTED], [""], made(settings, prompt_syntax="a1111", clip_skip=skip))
    assert_close(found.prompt[0], by_a1111(pipe, BY_A1111, skip or 1))


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
@pytest.mark.parametrize("skip", [None, 2])
def test_weights_are_comfyuis(family: str, skip: int | None, settings: Settings, request: Any) -> None:
    pipe = request.getfixturevalue(family)
    found = stages.encode(pipe, [WEIGHTED], [""], made(settings, prompt_syntax="comfyui", clip_skip=skip))
    assert_close(found.prompt[0], by_comfyui(pipe, BY_COMFYUI, skip or 1))


def test_a_long_prompt_is_encoded_in_chunks_that_end_at_commas(sdxl: Any, settings: Settings) -> None:
    found = stages.encode(sdxl, [f"{LONG}, (end:1.4)"], [""], made(settings, prompt_syntax="a1111"))
    # 7 tokens a phrase with its comma: 10 phrases of 70 tokens, then 10, then 10 with the end.
    ten = ", ".join(["a quiet kite over the lake"] * 10) + ","
    assert_close(found.prompt[0], by_a1111(sdxl, [[(ten, 1)], [(ten, 1)], [(ten, 1), ("end", 1.4)]]))


def test_break_begins_a_chunk_in_a1111_and_is_a_word_in_comfyui(sdxl: Any, settings: Settings) -> None:
    found = stages.encode(sdxl, ["a kite BREAK a (lake:1.2)"], [""], made(settings, prompt_syntax="a1111"))
    assert_close(found.prompt[0], by_a1111(sdxl, [[("a kite", 1)], [("a ", 1), ("lake", 1.2)]]))
    found = stages.encode(sdxl, ["a kite BREAK a (lake:1.2)"], [""], made(settings, prompt_syntax="comfyui"))
    assert_close(found.prompt[0], by_comfyui(sdxl, [[("a kite BREAK a ", 1), ("lake", 1.2)]]))


def test_the_pooled_vector_is_of_the_first_chunk_and_no_weight_reaches_it(sdxl: Any, settings: Settings) -> None:
    for syntax in ("a1111", "comfyui"):
        found = stages.encode(sdxl, [f"(a kite:1.5){LONG}", "a kite"], ["", ""], made(settings, prompt_syntax=syntax))
        first = chunks_of(sdxl, f"(a kite:1.5){LONG}", made(settings, prompt_syntax=syntax), {})[0]
        ids = framed([int(token) for token in first.tokens], 0)  # type: ignore[arg-type]
        with torch.no_grad():
            pooled = sdxl.text_encoder_2(torch.tensor([ids])).text_embeds
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled[:1], pooled)
        torch.testing.assert_close(found.pooled[1:], encode_text(sdxl, "a kite", settings).pooled)


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_a_short_prompt_without_weights_is_that_of_plain(family: str, settings: Settings, request: Any) -> None:
    pipe = request.getfixturevalue(family)
    plain = encode_text(pipe, "a red tent by the sea", settings)
    for syntax in ("a1111", "comfyui"):
        found = encode_text(pipe, "a red tent by the sea", made(settings, prompt_syntax=syntax))
        assert torch.equal(found.states, plain.states)


def test_an_exclamation_mark_is_no_padding_to_the_second_encoder(sdxl: Any, settings: Settings) -> None:
    found = stages.encode(sdxl, ["a kite!"], [""], made(settings, prompt_syntax="a1111"))
    assert_close(found.prompt[0], by_a1111(sdxl, [[("a kite!", 1)]]))


def test_a_mean_next_to_zero_is_refused_by_name(sd15: Any, settings: Settings) -> None:
    ids = framed(ids_of(sd15, "kite"), EOS)
    e = states(sd15.text_encoder, ids, 1, is_sdxl=False)
    weight = 1 - e.sum().item() / e[1].sum().item()  # then the weighted states have the mean 0
    with pytest.raises(SuiteError, match=r"The weights of .* next to zero"):
        stages.encode(sd15, [f"(kite:{weight:.6f})"], [""], made(settings, prompt_syntax="a1111"))


# --- the negative prompt, and lengths ------------------------------------------------------


def test_an_empty_negative_is_zeros_for_sdxl_but_not_in_comfyui(sdxl: Any, sd15: Any, settings: Settings) -> None:
    empty, blank = (
        stages.encode(sdxl, ["a kite"], [text], made(settings, prompt_syntax="a1111")) for text in ("", " ")
    )
    assert empty.negative is not None
    assert empty.negative_pooled is not None
    assert not empty.negative.any()
    assert not empty.negative_pooled.any()
    assert blank.negative is not None
    assert blank.negative.any()
    found = stages.encode(sdxl, ["a kite"], [""], made(settings, prompt_syntax="comfyui"))
    assert found.negative is not None
    assert_close(found.negative[0], by_comfyui(sdxl, [[]]))
    for syntax in ("a1111", "comfyui"):
        found = stages.encode(sd15, ["a kite"], [""], made(settings, prompt_syntax=syntax))
        assert found.negative is not None
        assert_close(found.negative[0], by_comfyui(sd15, [[]]))


def test_unequal_prompts_are_repeated_to_one_length(sdxl: Any, settings: Settings) -> None:
    wanted = made(settings, prompt_syntax="a1111")
    found = stages.encode(sdxl, ["a BREAK b BREAK c"], ["d BREAK e"], wanted)
    assert found.negative is not None
    assert found.prompt.shape[1] == found.negative.shape[1] == 6 * 77
    assert torch.equal(found.prompt[0, :231], found.prompt[0, 231:])
    assert_close(found.negative[0, :154], by_a1111(sdxl, [[("d", 1)], [("e", 1)]]))
    both = stages.encode(sdxl, ["a BREAK b BREAK c", "f"], ["d BREAK e", ""], wanted)
    assert torch.equal(both.prompt[:1], found.prompt)


def test_attention_does_not_tell_repeated_states_from_single_ones() -> None:
    torch.manual_seed(0)
    query, states = torch.randn(1, 2, 9, 8), torch.randn(1, 2, 77, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    many = states.repeat(1, 1, 3, 1)
    torch.testing.assert_close(attend(query, many, many), attend(query, states, states))


def test_lengths_without_a_common_one_that_can_be_drawn_are_refused(sdxl: Any, settings: Settings) -> None:
    prompt, negative = " BREAK ".join("a" * 19), " BREAK ".join("b" * 17)
    with pytest.raises(SuiteError, match=r"1,463 and 1,309 tokens .* 24,871"):
        stages.encode(sdxl, [prompt], [negative], made(settings, prompt_syntax="a1111"))


def test_10000_tokens_are_encoded_in_134_chunks(sd15: Any, settings: Settings) -> None:
    found = stages.encode(sd15, ["kite " * 10_000], [""], made(settings, prompt_syntax="comfyui"))
    assert found.prompt.shape[1] == math.ceil(10_000 / 75) * 77


def test_without_guidance_nothing_is_encoded_for_it(sdxl: Any, settings: Settings) -> None:
    found = stages.encode(sdxl, ["(a:1.2)"], ["b"], made(settings, prompt_syntax="a1111", guidance_scale=1.0))
    assert found.negative is None
    assert found.negative_pooled is None


# --- clip skip with plain prompts ----------------------------------------------------------


def test_plain_prompts_are_what_they_are_without_clip_skip(mini_pipe: Any, settings: Settings) -> None:
    usual = stages.encode(mini_pipe, ["a red tent (by:1.3) the sea", "x"], ["", "blurry"], settings)
    for skip in (1, 2):
        found = stages.encode(
            mini_pipe, ["a red tent (by:1.3) the sea", "x"], ["", "blurry"], made(settings, clip_skip=skip)
        )
        for one, other in zip(found, usual, strict=True):
            assert torch.equal(one, other)


def test_clip_skip_of_sdxl_is_two_more_than_diffusers(mini_pipe: Any, sdxl: Any, settings: Settings) -> None:
    found = stages.encode(sdxl, ["a kite"], ["fog"], made(settings, clip_skip=4))
    assert found.negative is not None
    assert_close(found.prompt[0], by_a1111(sdxl, [[("a kite", 1)]], 4))
    assert_close(found.negative[0], by_a1111(sdxl, [[("fog", 1)]], 4))


def test_clip_skip_2_of_sd15_is_the_last_but_one_layer_normed(sd15: Any, settings: Settings) -> None:
    found = stages.encode(sd15, ["a kite"], [""], made(settings, clip_skip=2))
    assert found.negative is not None
    assert_close(found.prompt[0], by_a1111(sd15, [[("a kite", 1)]], 2))
    assert_close(found.negative[0], by_a1111(sd15, [[]], 2))


def test_more_layers_than_there_are_cannot_be_skipped(sd15: Any, settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"clip_skip is 5, .* 4 layers"):
        stages.encode(sd15, ["a"], [""], made(settings, clip_skip=5))


# --- embeddings ----------------------------------------------------------------------------


def saved(path: Path, tensors: dict[str, Tensor] | Any) -> Embedding:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return Embedding(name=path.stem, path=str(path), sha256=sha256_of(path))


def word_rows(pipe: Any, text: str) -> list[Tensor]:
    """What each text encoder has for the tokens of a text."""
    ids = ids_of(pipe, text)
    return [model.get_input_embeddings().weight.data[ids].clone() for model, _ in models_of(pipe)]


def layouts(tmp_path: Path, rows: Tensor) -> list[Embedding]:
    return [
        saved(tmp_path / "one.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "x"}),
        saved(tmp_path / "two.safetensors", {"emb_params": rows}),
        saved(tmp_path / "three.bin", {"<three>": rows}),
    ]


def test_an_embedding_of_a_words_own_rows_is_that_word(
    sd15: Any, sdxl: Any, settings: Settings, tmp_path: Path
) -> None:
    rows = word_rows(sd15, "purple whale")
    for embedding in layouts(tmp_path, rows[0]):
        for syntax, text in (
            ("a1111", f"a ({embedding.name}:1.3) lake"),
            ("comfyui", f"a (embedding:{embedding.name}:1.3) lake"),
        ):
            wanted = made(settings, prompt_syntax=syntax)
            found = encode_text(sd15, text, made(wanted, embeddings=(embedding,)))
            assert_close(found.states, encode_text(sd15, "a (purple whale:1.3) lake", wanted).states)
    left, right = word_rows(sdxl, "purple whale")
    embedding = saved(tmp_path / "both.safetensors", {"clip_l": left, "clip_g": right})
    found = encode_text(sdxl, "a both lake", made(settings, prompt_syntax="a1111", embeddings=(embedding,)))
    words = encode_text(sdxl, "a purple whale lake", made(settings, prompt_syntax="a1111"))
    assert_close(found.states, words.states)
    assert found.pooled is not None
    assert_close(found.pooled, words.pooled)  # type: ignore[arg-type]


def test_an_embedding_of_one_row_is_one_token(sd15: Any, settings: Settings, tmp_path: Path) -> None:
    embedding = saved(tmp_path / "dot.bin", {"<dot>": word_rows(sd15, "kite")[0][0]})
    wanted = made(settings, prompt_syntax="a1111")
    found = encode_text(sd15, "a DOT", made(wanted, embeddings=(embedding,)))
    assert_close(found.states, encode_text(sd15, "a kite", wanted).states)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"x": torch.ones(2, 24)},
            "has one tensor of 24, and the text encoders of this checkpoint take one tensor of 16",
        ),
        ({"clip_l": torch.ones(2, 16), "clip_g": torch.ones(2, 24)}, "has clip_g of 24, clip_l of 16"),
        ({"x": torch.full((2, 16), torch.nan)}, "holds NaN"),
        ({"x": torch.ones(2, 16), "y": torch.ones(2, 16)}, "is no textual-inversion embedding: it holds x, y"),
        ({"x": torch.ones(2, 2, 16)}, "a tensor of shape (2, 2, 16)"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused(
    tensors: dict[str, Tensor], said: str, sd15: Any, settings: Settings, tmp_path: Path
) -> None:
    embedding = saved(tmp_path / "dot.safetensors", tensors)
    with pytest.raises(WeightsError) as caught:
        encode_text(sd15, "a dot", made(settings, prompt_syntax="a1111", embeddings=(embedding,)))
    assert said in str(caught.value)


def test_an_embedding_that_changed_or_runs_code_is_refused(sd15: Any, settings: Settings, tmp_path: Path) -> None:
    embedding = saved(tmp_path / "dot.pt", {"string_to_param": {"*": torch.ones(1, 16)}})
    wanted = made(settings, prompt_syntax="a1111", embeddings=(embedding,))
    (tmp_path / "dot.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match="has changed since the suite was read"):
        encode_text(sd15, "a dot", wanted)
    torch.save({"string_to_param": {"*": Path("x")}}, tmp_path / "code.pt")
    code = Embedding(name="code", path=str(tmp_path / "code.pt"), sha256=sha256_of(tmp_path / "code.pt"))
    with pytest.raises(WeightsError, match=r"code\.pt: cannot be read as an embedding: it is not a file of tensors\."):
        encode_text(sd15, "a code", made(wanted, embeddings=(code,)))


def test_no_advice_of_torch_is_printed_for_a_junk_embedding(sd15: Any, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    junk = Embedding(name="junk", path=str(tmp_path / "junk.pt"), sha256=sha256_of(tmp_path / "junk.pt"))
    with pytest.raises(WeightsError) as caught:
        encode_text(sd15, "a junk", made(settings, prompt_syntax="a1111", embeddings=(junk,)))
    assert "weights_only" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint == "take the .safetensors version"


def test_an_embedding_of_more_rows_than_a_chunk_is_refused(sd15: Any, settings: Settings, tmp_path: Path) -> None:
    embedding = saved(tmp_path / "dot.safetensors", {"x": torch.ones(76, 16)})
    with pytest.raises(SuiteError, match="has 76 rows; a chunk has 75 places"):
        encode_text(sd15, "a dot", made(settings, prompt_syntax="a1111", embeddings=(embedding,)))


# --- once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["plain", "a1111", "comfyui"])
def test_each_distinct_text_is_encoded_once_and_as_it_is_alone(
    syntax: str, sdxl: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = made(settings, prompt_syntax=syntax)
    pairs = [("a kite", "blur"), ("a lake", "blur"), ("a kite", "grey"), ("blur", "")]
    alone = [stages.encode(sdxl, [prompt], [negative], wanted) for prompt, negative in pairs]
    texts: list[str] = []

    def noted(pipe: Any, text: str, settings: Settings) -> Any:
        texts.append(text)
        return encode_text(pipe, text, settings)

    monkeypatch.setattr("bench.pipeline.prompt_encoding.encode_text", noted)
    found = stages.encode_each(sdxl, *map(list, zip(*pairs, strict=True)), wanted)
    assert texts == ["a kite", "blur", "a lake", "grey"] + ([""] if syntax == "comfyui" else [])
    for one, other in zip(found, alone, strict=True):
        assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))
