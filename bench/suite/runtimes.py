"""Runtimes: how a variant's networks are run to draw faster. What a suite file writes, and what cannot be.

Imports neither torch nor the libraries that do the work; ``bench.pipeline.runtimes`` lets them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.errors import MachineError, UsageError
from bench.formatting import did_you_mean, listed
from bench.machine import float8_problem
from bench.records import Settings, Variant
from bench.suite.sampling import TWICE

QUANTIZED = ("torchao-int8", "torchao-int8-weights", "torchao-fp8")
DEEPCACHE, COMPILE = "deepcache", "compile"
NAMES = (*QUANTIZED, f"{DEEPCACHE}:3", COMPILE)
"""As messages show them; the number is an example."""
EXTRA = 'pip install "hotart-bench[runtimes]"'
_PACKAGES = {"torchao": "torchao", DEEPCACHE: "DeepCache"}


class Runtime(NamedTuple):
    """What a runtime's text asks for; each part alone, or joined by ``+``."""

    quantized: str = ""
    """One of ``QUANTIZED``; "" leaves the weights as they are."""
    interval: int | None = None
    """Of DeepCache: the whole UNet is computed in every so many steps; None without it."""
    compiled: bool = False
    """Whether torch compiles the whole UNet and the VAE's decoder."""

    @property
    def text(self) -> str:
        """Its parts in the order in which they are applied."""
        cache = "" if self.interval is None else f"{DEEPCACHE}:{self.interval}"
        return "+".join(filter(None, (self.quantized, cache, COMPILE if self.compiled else "")))

    @property
    def packages(self) -> tuple[str, ...]:
        """The installed packages that it is run with, besides torch and diffusers."""
        kinds = (self.quantized.partition("-")[0], "" if self.interval is None else DEEPCACHE)
        return tuple(_PACKAGES[kind] for kind in kinds if kind)


def parse_runtime(text: str) -> Runtime:
    """The runtime of ``torchao-int8``, ``deepcache:3``, ``compile``, or of several joined by ``+``.

    Raises:
        UsageError: an unknown name, with the nearest one; an interval that is no number; one part twice, or two that do
            not go together.
    """
    found = Runtime()
    for part in text.split("+"):
        name, colon, number = part.partition(":")
        if name == DEEPCACHE and found.interval is None:
            found = found._replace(interval=_interval(part, number))
        elif part == COMPILE and not found.compiled:
            found = found._replace(compiled=True)
        elif part in QUANTIZED and not found.quantized:
            found = found._replace(quantized=part)
        elif part in QUANTIZED or part == COMPILE or name == DEEPCACHE:
            raise UsageError(f"{text!r} has two parts of one kind; each of quantisation, cache and compile once.")
        else:
            near = did_you_mean(name if colon else part, (*QUANTIZED, DEEPCACHE, COMPILE))
            raise UsageError(f"{part!r} is no runtime{near}; there are {listed(NAMES)}, alone or joined by +.")
    if found.compiled and found.interval is not None:
        raise UsageError(
            f"{text!r}: DeepCache leaves parts of the UNet out in some steps, which one compiled graph cannot; take "
            "one of the two."
        )
    return found


def _interval(part: str, number: str) -> int:
    if not (number.isascii() and number.isdecimal()) or not 1 <= int(number[:4]) <= 999:
        raise UsageError(
            f"{part!r}: after the colon stands in how many steps the whole UNet is computed once, as in deepcache:3."
        )
    return int(number)


def runtime_of(variant: Variant) -> Runtime:
    """A checked variant's runtime; of one without, that which changes nothing."""
    return Runtime() if variant.runtime is None else parse_runtime(variant.runtime)


# What cannot be, in a suite or on this machine.


def problems_of_runtime(variant: Variant, settings: Settings) -> Iterator[str]:
    """What of a variant's runtime cannot be with its LoRAs and these settings, a clause each."""
    if variant.runtime is None:
        return
    place = f"variants.{variant.name}.runtime"
    try:
        runtime = parse_runtime(variant.runtime)
    except UsageError as error:
        yield f"{place}: {error.message.removesuffix('.')}"
        return
    by_step = bool(variant.unet_steps) or any(lora.step_factors for lora in variant.loras)
    if runtime.quantized and by_step:
        yield f"{place} is {variant.runtime!r}, but weights that change by step cannot be quantised"
    if runtime.interval is not None and runtime.interval >= settings.steps:
        most = f"an interval of 2 to {settings.steps - 1}" if settings.steps > 2 else "3 steps or more"
        yield f"{place}: with {settings.steps} steps, {DEEPCACHE}:{runtime.interval} never refreshes its cache; {most}"
    if runtime.interval is not None and settings.sampler in TWICE:
        yield f"{place}: {settings.sampler} asks the UNet twice in a step, which DeepCache does not tell apart"
    if runtime.interval is not None and settings.compile == "whole":
        yield f'{place}: DeepCache leaves out parts of the UNet in some steps, which settings.compile = "whole" cannot'
    if runtime.compiled and settings.compile:
        yield f"{place}: settings.compile compiles every variant already; leave one of the two out"
    if runtime.compiled and variant.loras and not variant.fuse:
        yield f"{place}: what is compiled takes no notice of LoRAs that run unfused; leave out fuse = false"


def package_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def told_runtime(variant: Variant) -> str:
    """A variant's runtime with its packages: ``torchao-int8 (torchao 0.18.0)``; "" without one.

    Raises:
        MachineError: a package is not installed.
    """
    runtime = runtime_of(variant)
    refuse_runtimes((variant,))
    versions = ", ".join(f"{package} {package_version(package)}" for package in runtime.packages)
    return f"{runtime.text} ({versions})" if versions else runtime.text


def refuse_runtimes(variants: Sequence[Variant], device: str | None = None) -> None:
    """Refuse variants whose runtime this machine cannot run.

    Args:
        variants: checked ones.
        device: torch device string; None leaves open where they will be drawn.

    Raises:
        MachineError: a package is missing, or the device cannot do it.
    """
    for variant in variants:
        for what, hint in missing_of(variant, device):
            raise MachineError(f"Variant {variant.name} has the runtime {variant.runtime}: {what}.", hint)


def missing_of(variant: Variant, device: str | None) -> Iterator[tuple[str, str]]:
    """What this machine lacks for a variant's runtime, each with what to do."""
    runtime = runtime_of(variant)
    for package in runtime.packages:
        if package_version(package) is None:
            yield f"the package {package} is not installed", EXTRA
    if device is not None and runtime.quantized == "torchao-int8" and device.startswith("mps"):
        yield "products of 8-bit integers are computed on CPUs and CUDA devices, not on mps", "take --device cpu"
    if device is not None and runtime.quantized == "torchao-fp8" and (problem := float8_problem(device)):
        yield problem, "draw it on such a device, or take torchao-int8"
