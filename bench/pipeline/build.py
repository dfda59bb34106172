"""Builds a diffusers pipeline of a checkpoint's tensors, wherever these come from."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.diffusers_folder import EMPTY_IS_ZERO
from bench.checkpoints.families import TOKENIZERS, is_provenance, read_pipeline_class
from bench.checkpoints.meta_model import CLASSES, empty_model, left_out, own_names
from bench.checkpoints.safetensors_files import first_line
from bench.checkpoints.scheduler import refuse_settings
from bench.errors import WeightsError
from bench.formatting import listed
from bench.machine import spare_imports
from bench.pipeline.compiling import compile_blocks, compile_whole
from bench.pipeline.copying import pipeline_class
from bench.pipeline.schedulers import make_scheduler
from bench.records import Component, Settings
from bench.records.weights import Family
from bench.suite.tokens import CONTEXT, byte_alphabet, merges

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, struct.error)
START, END = "<|startoftext|>", "<|endoftext|>"


def build_pipeline(checkpoint: Checkpoint, settings: Settings, device: str, into: Any = None) -> Any:
    """A pipeline on a device, with the suite's sampler and dtype, that shows no progress bar.

    Models are made without memory first, and each tensor is put in as it is read, so that the peak is one copy.

    Args:
        checkpoint: whose tensors. SD 1.5 has none of a second text encoder.
        settings: of the suite.
        device: torch device string.
        into: a pipeline with the same settings on the device whose networks are taken over and filled anew, where
            they are of the same configuration: no memory for two, and what is compiled stays so. It is of no use
            afterwards.

    Raises:
        WeightsError: a tensor is missing, superfluous, damaged or of another shape; or as
            ``refuse_settings`` and ``make_scheduler``.
    """
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    name, config = read_pipeline_class(checkpoint.config), checkpoint.config
    kind = pipeline_class(name)
    spare_imports()
    refuse_settings(checkpoint.what, checkpoint.facts, settings)
    sampling = settings.sampler, settings.schedule, settings.timesteps
    scheduler = make_scheduler(checkpoint.what, checkpoint.facts, *sampling)
    found = {tensor.partition(".")[0] for tensor in checkpoint.tensors}
    try:
        parts: dict[str, Any] = {
            part: _component(part, checkpoint, settings, device, into) for part in CLASSES if part in found
        }
        # The configurations that come with the package have no tokenizers. Nothing else of a folder is loaded.
        is_bare = not (config / "tokenizer").is_dir()
        parts |= tokenizers(checkpoint.facts.family) if is_bare else own_tokenizers(config, checkpoint.facts.family)
        parts |= {"image_encoder": None, "feature_extractor": None}
        if name == "StableDiffusionPipeline":
            parts |= {"safety_checker": None, "requires_safety_checker": False}
        if checkpoint.facts.family == "sdxl":
            parts[EMPTY_IS_ZERO] = True
        pipe = kind.from_pretrained(config, local_files_only=True, scheduler=scheduler, **parts)
    except DAMAGED as error:
        raise WeightsError(f"{checkpoint.what}: could not be loaded as {name}: {first_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    if settings.vae_tiling:
        pipe.vae.enable_tiling()
    if settings.vae_slicing:
        pipe.vae.enable_slicing()
    if settings.compile == "whole":
        compile_whole(pipe)
    elif settings.compile:
        compile_blocks(pipe.unet)
    return pipe


def tokenizers(family: Family) -> dict[str, Any]:
    """The tokenizers of a family's pipelines, by the names that diffusers gives them; single files bring none.

    transformers' ``CLIPTokenizer`` with OpenAI's vocabulary of 49408 entries, 77 tokens at most. SDXL's second one
    fills up with ``!`` (0), the others with the end token (49407). As in the folder that SDXL was released in, a ``!``
    of the prompt itself becomes that same 0 in the second one, where OpenCLIP has 256.

    Raises:
        MachineError: the installed ``open_clip`` lacks its vocabulary file.
    """
    made = {"tokenizer": _tokenizer(END)}
    return made if family == "sd15" else made | {"tokenizer_2": _tokenizer("!")}


def own_tokenizers(folder: Path, family: Family) -> dict[str, Any]:
    """The tokenizers of a diffusers folder, by their names in it.

    Raises:
        WeightsError: transformers cannot read one.
    """
    made = {}
    for name in TOKENIZERS[family]:
        try:
            made[name] = transformers.CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
        except Exception as error:  # transformers, tokenizers and json each have errors of their own
            raise WeightsError(
                f"{folder / name}: is not a tokenizer of CLIP: {first_line(error)}.",
                "save the whole pipeline again, or take its original files",
            ) from error
    return made


@cache
def _tokenizer(pad: str) -> Any:
    """One for all pipelines of the process, which change nothing of it; making one takes a while."""
    letters = list(byte_alphabet().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges()), START, END]
    return transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=list(merges()),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=pad,
        model_max_length=CONTEXT,
    )


# The network of one component.


def _component(part: Component, checkpoint: Checkpoint, settings: Settings, device: str, into: Any) -> torch.nn.Module:
    module = empty_model(part, checkpoint.other_configs.get(part, checkpoint.config / part))
    names = own_names(module, part)
    _refuse_other_names(checkpoint, part, names)
    dtype = getattr(torch, settings.dtype)
    old = getattr(into, part, None)
    if old is not None:
        setattr(into, part, None)
        if _is_same_network(module, old):
            there = old.state_dict()
            for name, own in names.items():
                there[own].copy_(checkpoint.read(name).to(device, dtype))
            reused: torch.nn.Module = old
            return reused
    del old  # let go of first, or two would need memory at once
    state = {own: checkpoint.read(name).to(device, dtype) for name, own in names.items()}
    module.load_state_dict(state, strict=True, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            # The one buffer that no checkpoint holds is the numbers of the tokens' places.
            owner, _, last = name.rpartition(".")
            if last != "position_ids":
                raise KeyError(f"{name} is in no file of the checkpoint")
            places = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer("position_ids", places, persistent=False)
    return module.eval().requires_grad_(False)


def _refuse_other_names(checkpoint: Checkpoint, part: Component, names: dict[str, str]) -> None:
    """Refuse a component whose tensors are not just those of its model.

    Raises:
        WeightsError: naming the first that are missing or superfluous.
    """
    there = {name for name in checkpoint.tensors if name.startswith(f"{part}.")}
    for what, odd in (("are missing", names.keys() - there), ("belong to no part of it", there - names.keys())):
        if odd:
            raise WeightsError(
                f"{checkpoint.what}: {len(odd)} tensors of {part} {what}: {listed(sorted(odd), 3)}.",
                "check that the weights and the configuration are of one model",
            )


def _is_same_network(one: Any, other: Any) -> bool:
    """Whether two models compute the same of the same weights, by their configurations."""

    def facts(model: Any) -> dict[str, Any]:
        config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
        return {key: value for key, value in config.items() if not is_provenance(key)}

    return type(one) is type(other) and facts(one) == facts(other)


# Names in a checkpoint, and in a pipeline's networks.


def named_parameters(pipe: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a pipeline's networks, by its name in a checkpoint."""
    for part in CLASSES:
        module = getattr(pipe, part, None)
        if module is not None:
            state = module.state_dict()
            yield from ((name, state[own]) for name, own in own_names(module, part).items())


def module_of(pipe: Any, tensor: str) -> torch.nn.Module:
    """The module whose weight a tensor is."""
    part, _, path = tensor.removesuffix(".weight").partition(".")
    component: torch.nn.Module = getattr(pipe, part)
    return component.get_submodule(path.removeprefix(left_out(component, part)))
