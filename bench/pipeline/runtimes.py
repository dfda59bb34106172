"""Runs a loaded pipeline faster than it is written: weights quantised, features cached, networks compiled.

Each lets a library do it, and is taken away to the last bit by ``remove``. Weights are quantised as they are when it
begins, so LoRAs are fused first.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.errors import SuiteError, WeightsError
from bench.pipeline.compiling import compile_whole
from bench.records import QuantizedLayers, Settings, Variant
from bench.suite.runtimes import Runtime, refuse_runtimes, runtime_of

SHALLOWEST = 0
"""DeepCache's ``cache_branch_id``: in between, only the last layer of the last block up is computed."""


def import_libraries(runtime: Runtime) -> None:
    """Import what a runtime needs, which takes seconds and would count as loading."""
    if runtime.quantized:
        import torchao.quantization  # noqa: F401
    if runtime.interval is not None:
        import DeepCache  # noqa: F401


def start_runtime(pipe: Any, variant: Variant, settings: Settings) -> tuple[list[Any], QuantizedLayers | None]:
    """Let a pipeline with a variant's weights run as the variant says.

    Args:
        pipe: as it is written, the variant's LoRAs applied.
        variant: checked (``bench.suite.runtimes.problems_of_runtime``).
        settings: of the suite.

    Returns:
        What takes it away again, by ``remove``, and what was quantised.

    Raises:
        MachineError: a package is missing, or the device cannot do it.
        SuiteError: the sampler visits a timestep twice, which DeepCache cannot tell apart.
        WeightsError: the UNet has no layer that could be quantised.
    """
    runtime = runtime_of(variant)
    refuse_runtimes((variant,), str(pipe.device))
    started: list[Any] = []
    layers = None
    if runtime.quantized:
        quantized = Quantized(pipe.unet, runtime.quantized)
        started.append(quantized)
        layers = quantized.layers
    if runtime.interval is not None:
        _refuse_same_timesteps(pipe, settings, variant)
        started.append(DeepCached(pipe, runtime.interval))
    if runtime.compiled:
        started.append(CompiledWhole(pipe))
    return started, layers


class Quantized:
    """The linear layers of a UNet's transformer blocks, quantised by torchao, until ``remove`` is called.

    ``torchao-int8``: weights in 8-bit integers with a scale for each output, the input of each layer likewise with a
    scale for each token, and products in integers. ``torchao-int8-weights``: the weights alone. ``torchao-fp8``:
    weights and inputs in 8-bit floats (e4m3) with one scale each. Convolutions stay, and so do the layers that embed
    time and size, which see a single row an image.

    Raises:
        WeightsError: there is no such layer.
    """

    def __init__(self, unet: Any, kind: str) -> None:
        from torchao.quantization import quantize_

        self._originals = [(module, module.weight, "extra_repr" in vars(module)) for module in linear_layers(unet)]
        if not self._originals:
            raise WeightsError("The UNet has no linear layers in transformer blocks, so there is nothing to quantise.")
        chosen = {id(module) for module, *_ in self._originals}
        quantize_(unet, _config(kind), filter_fn=lambda module, _: id(module) in chosen)
        skipped = [module for module, weight, _ in self._originals if module.weight is weight]
        if skipped:
            self.remove()
            sizes = " x ".join(map(str, skipped[0].weight.shape))
            raise WeightsError(f"torchao cannot quantise a layer of {sizes}: both must be multiples of 16.")
        inside = sum(weight.numel() for _, weight, _ in self._originals)
        self.layers = QuantizedLayers(
            layers=len(self._originals), of_weights=inside / sum(one.numel() for one in unet.parameters())
        )

    def remove(self) -> None:
        """Give the layers their own weights back, which were not touched."""
        for module, weight, named in self._originals:
            module.weight = weight
            if not named:
                vars(module).pop("extra_repr", None)  # torchao's
        self._originals.clear()


def linear_layers(unet: Any) -> list[torch.nn.Linear]:
    """The linear layers of a UNet's transformer blocks, and those that lead into and out of them."""
    return [
        module
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear) and ".attentions." in name
    ]


def _config(kind: str) -> Any:
    """torchao's own choices, but for ``set_inductor_config``: it would change torch's arithmetic for other variants."""
    from torchao import quantization

    kinds = {
        "torchao-int8": quantization.Int8DynamicActivationInt8WeightConfig,
        "torchao-int8-weights": quantization.Int8WeightOnlyConfig,
        "torchao-fp8": quantization.Float8DynamicActivationFloat8WeightConfig,
    }
    return kinds[kind](set_inductor_config=False)


class DeepCached:
    """A pipeline whose UNet reuses deep features of the last whole step (package DeepCache), until ``remove``.

    In every ``interval``-th step, from the first on, the whole UNet is computed; in between, only its first
    convolution and the last layer of its last block up, upon the features that came from below in the last whole step.

    Source: X. Ma et al., DeepCache: Accelerating Diffusion Models for Free, CVPR 2024.
    """

    def __init__(self, pipe: Any, interval: int) -> None:
        from DeepCache import DeepCacheSDHelper

        self._unet = pipe.unet
        self._own = [module for module in pipe.unet.modules() if "forward" in vars(module)]
        helper = DeepCacheSDHelper(pipe=pipe)
        helper.set_params(cache_interval=interval, cache_branch_id=SHALLOWEST)
        helper.enable()

    def remove(self) -> None:
        """Let each module run as its class has it; the package's own way leaves a method on each."""
        for module in self._unet.modules():
            if not any(module is one for one in self._own):
                vars(module).pop("forward", None)


def _refuse_same_timesteps(pipe: Any, settings: Settings, variant: Variant) -> None:
    """DeepCache counts steps by their timestep, and would take the second of two for the first."""
    pipe.scheduler.set_timesteps(settings.steps)
    found = pipe.scheduler.timesteps.tolist()
    if len(set(found)) < len(found):
        raise SuiteError(
            f"Variant {variant.name} has the runtime {variant.runtime}: in {settings.steps} steps {settings.sampler} "
            f"with the schedule {settings.schedule} visits a timestep twice, and DeepCache cannot tell them apart.",
            "take fewer steps, or another schedule",
        )


class CompiledWhole:
    """A pipeline whose whole UNet and VAE decoder are compiled, each as one graph a shape, until ``remove``."""

    def __init__(self, pipe: Any) -> None:
        self._networks = (pipe.unet, pipe.vae.decoder)
        compile_whole(pipe)

    def remove(self) -> None:
        """Let both run as they are written."""
        for network in self._networks:
            network._compiled_call_impl = None
