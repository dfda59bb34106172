"""A seeded part of ``nox -s fuzz``: whatever a file holds, its reader returns or says in a sentence what is wrong."""

from __future__ import annotations

import pytest
from fuzz.kinds import make_kinds
from fuzz.trial import bounded_memory, judge, try_one

from bench.errors import MOST_CHARACTERS, WeightsError

FAST, SLOW = 60, 5
"""Mutations of a kind."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The same files for all tests: each leaves them as they were."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("fuzz")
        patch.setenv("HOTART_WEIGHTS_LOCK", str(place / "weights.lock.json"))
        yield make_kinds(place)


def test_every_mutated_file_is_read_or_refused_in_a_sentence(kinds):
    with bounded_memory():
        problems = {
            f"{kind.name}:{number}": problem
            for kind in kinds.values()
            for number in range(SLOW if kind.slow else FAST)
            if (problem := try_one(kind, number))
        }
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems.items())


NAMED = {
    # the kind: (what is replaced in its file, by what, what the sentence names)
    "model-index": (b'"StableDiffusionXLPipeline"', b'["StableDiffusionXLPipeline"]', "_class_name: expected str"),
    "scheduler": (b'"prediction_type": "epsilon"', b'"prediction_type": {}', "prediction_type: expected str"),
    "unet-config": (b'"layers_per_block": 1', b'"layers_per_block": 1000000000', "layers_per_block: expected"),
    "vae-config": (b'"_class_name": "AutoencoderKL"', b'"_class_name": [1]', "_class_name: expected str"),
    "text_encoder-config": (b'"num_hidden_layers": 2', b'"num_hidden_layers": 1e9', "num_hidden_layers: expected int"),
    "lone-unet-config": (b'"UNet2DConditionModel"', b'{"a": []}', "_class_name: expected str"),
    "header": (b'"dtype":"F32"', b'"dtype":["F"]', "invalid type: sequence"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_value_of_another_type_or_size_is_named(name, kinds):
    old, new, words = NAMED[name]
    kind = kinds[name]
    assert old in kind.valid
    kind.path.write_bytes(kind.valid.replace(old, new, 1))
    try:
        assert judge(kind) == ""
        with pytest.raises(WeightsError, match=words) as refused:
            kind.read(kind.path)
    finally:
        kind.path.write_bytes(kind.valid)
    assert kind.path.parent.name in refused.value.message
    assert len(refused.value.message) <= MOST_CHARACTERS


def test_a_reader_that_crashes_hangs_or_says_a_novel_is_found(kinds, monkeypatch):
    kind = kinds["header"]

    def crash(path):
        raise KeyError("x")

    def hang(path):
        while True:
            pass

    def tell(path):
        error = WeightsError("short")
        error.message = "x" * (MOST_CHARACTERS + 1)
        raise error

    def leave(path):
        raise SystemExit(0)

    monkeypatch.setattr("fuzz.trial.MOST_SECONDS", 0.2)
    for read, words in ((crash, "KeyError"), (hang, "TooSlowError"), (tell, "a sentence of"), (leave, "SystemExit")):
        assert words in judge(kind._replace(read=read))
