"""ComfyUI's graphs: what the walk from the saved picture tells, and what it must not guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drawn_pictures import comfy, comment, exif, graph, jpeg, node, png
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.pictures.comfyui import read_graph
from bench.pictures.read import read_picture
from bench.records import Hires, PictureFacts, PictureLora


def read(found: object) -> PictureFacts:
    facts = read_graph(json.dumps(found))
    assert facts is not None
    return facts


def test_a_plain_graph_is_told_whole() -> None:
    found = read_picture(comfy(graph()))
    assert (found.prompt, found.negative, found.seed, found.steps) == ("a fox", "blurry", 5, 20)
    assert (found.sampler, found.schedule, found.cfg, found.size) == ("euler", "normal", 7.0, (48, 48))
    assert (found.model, found.loras, found.model_hash) == ("sub/one.safetensors", (), None)


def test_a_seed_from_a_node_that_computes_it_is_hidden() -> None:
    hidden = graph(sampler={"seed": ["dice", 0]}) | {"dice": node("Random Number", minimum=0, maximum=9)}
    found = read(hidden)
    assert found.seed is None
    assert "'Random Number', whose result is not stored" in found.unknown["seed"]
    assert found.prompt == "a fox"


def test_a_text_from_a_node_that_is_not_known_is_hidden() -> None:
    hidden = graph(positive={"text": ["llm", 0]}) | {"llm": node("LLM", text="write me a prompt")}
    found = read(hidden)
    assert found.prompt is None
    assert "'LLM'" in found.unknown["prompt"]


def test_constants_are_read_through_links_and_a_loop_of_links_ends() -> None:
    linked = graph(sampler={"seed": ["a", 0]}) | {
        "a": node("PrimitiveInt", value=["b", 0]),
        "b": node("INTConstant", value=9),
    }
    assert read(linked).seed == 9
    loop = graph(sampler={"seed": ["a", 0]}) | {"a": node("PrimitiveInt", value=["a", 0])}
    assert read(loop).seed is None


def test_two_samplers_that_end_in_pictures_tell_only_what_they_share() -> None:
    two = graph()
    two |= {f"{name}2": json.loads(json.dumps(two[name])) for name in ("sampler", "decode", "save")}
    two["decode2"]["inputs"]["samples"], two["save2"]["inputs"]["images"] = ["sampler2", 0], ["decode2", 0]
    two["sampler2"]["inputs"]["seed"] = 6
    found = read(two)
    assert (found.prompt, found.steps, found.seed) == ("a fox", 20, None)
    assert "2 samplers" in found.unknown["seed"]


def test_a_second_pass_is_no_second_picture() -> None:
    hires = graph(decode={"samples": ["second", 0]})
    hires["larger"] = node("LatentUpscaleBy", samples=["sampler", 0], upscale_method="bicubic", scale_by=1.5)
    inputs = {**hires["sampler"]["inputs"], "seed": 99, "steps": 8, "denoise": 0.5, "latent_image": ["larger", 0]}
    hires["second"] = node("KSampler", **inputs)
    found = read(hires)
    assert (found.seed, found.steps, found.size) == (5, 20, (48, 48))
    assert found.hires == Hires(steps=8, denoise=0.5)


def test_base_and_refiner_of_advanced_samplers() -> None:
    chain = graph(decode={"samples": ["second", 0]})
    inputs = {
        **chain["sampler"]["inputs"],
        "noise_seed": 5,
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 16,
    }
    del inputs["seed"]
    chain["sampler"] = node("KSamplerAdvanced", **inputs)
    later = {**inputs, "noise_seed": 0, "add_noise": "disable", "latent_image": ["sampler", 0], "model": ["refiner", 0]}
    chain["second"] = node("KSamplerAdvanced", **later)
    chain["refiner"] = node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors")
    found = read(chain)
    assert (found.seed, found.model) == (5, "sub/one.safetensors")


def test_a_custom_sampler_has_its_parts_in_nodes() -> None:
    custom = graph()
    custom |= {
        "noise": node("RandomNoise", noise_seed=7),
        "guider": node("CFGGuider", cfg=4.5, model=["model", 0], positive=["positive", 0], negative=["negative", 0]),
        "select": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "sigmas": node("BasicScheduler", scheduler="karras", steps=12, denoise=1.0, model=["model", 0]),
        "sampler": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["select", 0],
            sigmas=["sigmas", 0], latent_image=["latent", 0],
        ),
    }  # fmt: skip
    found = read(custom)
    assert (found.seed, found.cfg, found.sampler, found.schedule, found.steps) == (7, 4.5, "dpmpp_2m", "karras", 12)
    custom["sigmas"] = node("ManualSigmas", sigmas="1, 2")
    assert (read(custom).schedule, read(custom).steps) == (None, None)


def test_loras_stand_in_the_order_in_which_they_are_applied() -> None:
    loaded = graph(sampler={"model": ["b", 0]}, positive={"clip": ["b", 1]})
    loaded["a"] = node(
        "LoraLoader",
        lora_name="a.safetensors",
        strength_model=0.5,
        strength_clip=0.25,
        model=["model", 0],
        clip=["model", 1],
    )
    loaded["b"] = node("LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=1.0, model=["a", 0])
    found = read(loaded)
    assert found.loras == (
        PictureLora(name="a.safetensors", text_weight=0.25, unet_weight=0.5),
        PictureLora(name="b.safetensors", text_weight=0.0, unet_weight=1.0),
    )


def test_a_node_that_is_not_known_leaves_the_checkpoint_and_hides_the_loras() -> None:
    odd = graph(sampler={"model": ["odd", 0]}) | {"odd": node("Magic LoRA Stack", model=["model", 0])}
    found = read(odd)
    assert (found.model, found.loras) == ("sub/one.safetensors", None)
    assert "'Magic LoRA Stack'" in found.unknown["loras"]


def test_a_merge_within_the_graph_is_no_file() -> None:
    merged = graph(sampler={"model": ["mix", 0]})
    merged["mix"] = node("ModelMergeSimple", model1=["model", 0], model2=["model", 0], ratio=0.5)
    assert read(merged).model is None
    assert "merges models" in read(merged).unknown["model"]


def test_several_texts_are_not_one() -> None:
    both = graph(sampler={"positive": ["both", 0]})
    both["both"] = node("ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["negative", 0])
    assert "several texts" in read(both).unknown["prompt"]


def test_a_zeroed_negative_is_an_empty_one() -> None:
    zero = graph(sampler={"negative": ["zero", 0]}) | {
        "zero": node("ConditioningZeroOut", conditioning=["negative", 0])
    }
    assert read(zero).negative == ""


def test_a_picture_drawn_from_a_picture_has_no_size_asked_for() -> None:
    image = graph(sampler={"latent_image": ["encode", 0], "denoise": 0.5})
    image |= {
        "encode": node("VAEEncode", pixels=["load", 0], vae=["model", 2]),
        "load": node("LoadImage", image="x.png"),
    }
    found = read(image)
    assert found.size is None
    assert "VAEEncode" in found.unknown["size"]


def test_nan_in_a_graph_is_no_number() -> None:
    text = json.dumps(graph(sampler={"cfg": float("nan")}))
    assert "NaN" in text
    found = read_picture(png({"prompt": text}))
    assert (found.cfg, found.seed) == (None, 5)


def test_a_graph_may_stand_in_a_user_comment() -> None:
    assert read_picture(jpeg(exif(comment(json.dumps(graph()))))).prompt == "a fox"


def test_the_workflow_alone_tells_nothing() -> None:
    found = read_picture(png({"workflow": '{"nodes": [{"type": "KSampler", "widgets_values": [5, 20]}]}'}))
    assert (found.program, found.seed) == ("ComfyUI", None)
    assert "by position" in found.unknown["seed"]


def digest_of(found: dict[str, Any]) -> str:
    return read(found).other["graph"]


def test_the_digest_of_a_graph_is_that_of_what_the_picture_rests_on_but_model_and_loras() -> None:
    plain = graph()
    renamed = json.loads(json.dumps(plain).replace('"sampler"', '"3"').replace('"positive"', '"6"'))
    renamed["3"]["inputs"]["positive"] = renamed["3"]["inputs"].pop("6")
    unused = {**plain, "note": node("CLIPTextEncode", text="unused", clip=["model", 1])}
    other_model = graph(model={"ckpt_name": "two.safetensors"}, save={"filename_prefix": "y"})
    with_lora = graph(sampler={"model": ["l", 0]}, positive={"clip": ["l", 1]})
    with_lora["l"] = node(
        "LoraLoader", lora_name="a", strength_model=1.0, strength_clip=1.0, model=["model", 0], clip=["model", 1]
    )
    typed = graph(sampler={"seed": ["s", 0]}) | {"s": node("PrimitiveInt", value=5)}
    for one in (renamed, unused, other_model, with_lora, typed):
        assert digest_of(one) == digest_of(plain)
    freeu = graph(sampler={"model": ["f", 0]}) | {"f": node("FreeU", model=["model", 0], b1=1.1)}
    for one in (freeu, graph(sampler={"steps": 21}), graph(latent={"width": 56})):
        assert digest_of(one) != digest_of(plain)


LINKS = st.lists(st.one_of(st.text(max_size=3), st.integers(-2, 9)), max_size=3)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), LINKS, st.just(["sampler", 0])
)


@given(st.dictionaries(st.sampled_from(sorted(graph()["sampler"]["inputs"])), VALUES), st.sampled_from(sorted(graph())))
@settings(max_examples=200, deadline=None)
def test_no_inputs_whatever_bring_the_walk_down(inputs: dict[str, Any], name: str) -> None:
    found = graph()
    found[name]["inputs"] |= inputs
    facts = read_graph(json.dumps(found))
    assert facts is None or facts.program == "ComfyUI"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", '{"1": 2}', '{"1": {"class_type": "SaveImage", "inputs": {}}}', "[" * 9999]
)
def test_what_is_no_graph_of_a_picture(text: str) -> None:
    found = read_graph(text)
    assert found is None or found.prompt is None
