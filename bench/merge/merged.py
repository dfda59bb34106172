"""A recipe as a checkpoint: each tensor is computed when it is read. Imports no torch before that."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench import documents
from bench.checkpoints.blocks import block_of, count_blocks, weight_of
from bench.checkpoints.checkpoint import Checkpoint, Tensor
from bench.checkpoints.file_checkpoint import stored_dtypes
from bench.checkpoints.load import CompositeCheckpoint, own_config
from bench.errors import WeightsError
from bench.lora.algorithms import Adapter, Change, changed
from bench.merge.compatibility import check_fit, tells_prediction
from bench.merge.recipe import Recipe
from bench.records import CheckpointFacts, Lora

if TYPE_CHECKING:
    import torch

    from bench.lora.apply import AdapterParts

NO_ARITHMETIC = ("schema", "models", "vae", "loras", "dtype", "metadata")

"""Fields of a recipe that ``identity`` leaves out, or puts otherwise: names of sources, and what is done on writing."""


class Fused(NamedTuple):
    """A LoRA of a recipe, opened."""

    lora: Lora
    what: str
    """As the recipe names it; a path is absolute."""
    file: Path
    adapter: Adapter


class Merged:
    """What a recipe makes of its models: a ``Checkpoint`` whose tensors are computed when they are read.

    ``read`` gives float32, not yet rounded to the recipe's ``dtype``, so that a recipe within a recipe is rounded
    once, at the end; what is taken as it is from one model has the precision that it is stored in.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        models: Sequence[Checkpoint],
        vae: Checkpoint | None = None,
        loras: Sequence[Fused] = (),
    ) -> None:
        """Takes the recipe's file (for messages), what it asks, and its sources, opened.

        Raises:
            WeightsError, SuiteError: the models do not go together (``fitting``).
        """
        self.path, self.recipe = path, recipe
        self.models, self.vae, self.loras = tuple(models), vae, tuple(loras)
        self._merged = check_fit(path, recipe, models)
        self.tensors: Mapping[str, Tensor] = _tensors(recipe, models[0], vae)
        has_unet = any(name.startswith("unet.") for name in self.tensors)
        self._blocks = count_blocks(self.tensors) if has_unet else None

    @property
    def what(self) -> str:
        """The recipe's file."""
        return str(self.path)

    @property
    def facts(self) -> CheckpointFacts:
        """Those of the first model, in the precision of the output."""
        first, metadata = self.models[0].facts, self.recipe.metadata
        speaker = next((model for model in self.models if tells_prediction(model)), self.models[0])
        return msgspec.structs.replace(
            first,
            layout="recipe",
            prediction=speaker.facts.prediction,
            zero_terminal_snr=speaker.facts.zero_terminal_snr,
            dtypes=stored_dtypes(self.tensors),
            licence=metadata.license or first.licence,
            title=metadata.title or first.title,
        )

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Those of the models, of the VAE and of the LoRAs, in the order of the recipe."""
        of_models = [file for source in self._sources for file in source.files]
        return (*of_models, *(("lora", lora.file) for lora in self.loras))

    @property
    def config(self) -> Path:
        """The first model's."""
        return self.models[0].config

    @property
    def other_configs(self) -> Mapping[str, Path]:
        """The first model's, and that of a VAE taken from elsewhere."""
        if self.vae is None:
            return self.models[0].other_configs
        own = own_config(self.vae, "vae")
        return {**self.models[0].other_configs, **({} if own is None else {"vae": own})}

    @property
    def identity(self) -> str:
        """The arithmetic, and which of ``files`` belong to which source, as canonical JSON."""
        facts: dict[str, Any] = msgspec.to_builtins(self.recipe)
        loras = [msgspec.to_builtins(one.lora) for one in self.loras]
        kept = {name: value for name, value in facts.items() if name not in NO_ARITHMETIC}
        kept["components"] = sorted(self._merged)
        kept["loras"] = [{name: value for name, value in lora.items() if name != "path"} for lora in loras]
        kept["scales"] = [one.adapter.scales for one in self.loras]
        kept["sources"] = [(len(source.files), source.identity) for source in self._sources]
        return documents.canonical({**kept, "vae": self.vae is not None}).decode()

    def without_loras(self) -> Merged:
        """The same recipe, but for its LoRAs."""
        return Merged(self.path, msgspec.structs.replace(self.recipe, loras=()), self.models, self.vae)

    @property
    def _sources(self) -> tuple[Checkpoint, ...]:
        return self.models if self.vae is None else (*self.models, self.vae)

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One tensor: merged, changed by the LoRAs in their order, or as its one source has it.

        Args:
            name: the tensor's.
            dtype: what the result is rounded to, once; None leaves it as it was computed or stored.

        Raises:
            WeightsError: an input or the result holds values that are not finite, or cannot be read.
        """
        component = name.split(".", 1)[0]
        if component == "vae" and self.vae is not None:
            tensor = finite(self.vae.read(name), name, self.vae.what)
        elif component in self._merged:
            tensor = self._compute(name, None if self._changes_of(name) else dtype)
        else:
            tensor = self._stored(0, name)
        tensor = self._with_loras(tensor, name)
        if dtype is None:
            return self._finite(tensor, name, self.what)
        return self._finite(tensor.to(dtype), name, f"{self.what}, rounded to {str(dtype).removeprefix('torch.')}")

    def _finite(self, result: torch.Tensor, name: str, what: str) -> torch.Tensor:
        """A result, once it is sure that it is finite; where it is not, an input that is to blame is named first."""
        try:
            return finite(result, name, what)
        except WeightsError:
            if name.split(".", 1)[0] in self._merged:
                for index in range(len(self.models)):
                    self._stored(index, name)
            raise

    def _compute(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        """The tensor merged, in float32; in ``dtype`` already where that costs nothing."""
        import torch

        from bench.merge import methods

        recipe, alpha = self.recipe, self._alpha(name)
        first, *others = range(len(self.models))
        if alpha == 0.0:  # nothing of the others is asked for, and nothing may be rounded
            return self._float32(first, name)
        if recipe.method in ("weighted_sum", "slerp") and alpha == 1.0:
            return self._float32(1, name)
        if recipe.method in ("weighted_sum", "add_difference"):
            # Not looked at yet: what is not finite in an entry of one is not finite in the sum.
            entrywise = functools.partial(getattr(methods, recipe.method), alpha=alpha)
            stored = (self.models[index].read(name) for index in (first, *others))
            return methods.in_blocks(entrywise, *stored, dtype=dtype or torch.float32)
        base, rest = self._float32(first, name), (self._float32(index, name) for index in others)
        if recipe.method == "slerp":
            (other,) = rest
            return methods.slerp(base, other, alpha)
        if recipe.method == "ties":
            return methods.ties(base, list(rest), self._weights, recipe.density or 0.0, alpha)
        drop, seed, shape = recipe.drop or 0.0, recipe.seed or 0, self.tensors[name].shape
        masks = (methods.kept_entries(shape, drop, seed, index, name) for index in others)
        return methods.dare(base, rest, self._weights, masks, drop, alpha)

    @property
    def _weights(self) -> tuple[float, ...]:
        return self.recipe.weights or (1.0,) * (len(self.models) - 1)

    def _alpha(self, name: str) -> float:
        """How much of the others goes into a tensor: its block's number where the recipe names one."""
        alpha = self.recipe.alpha or 0.0
        if not self.recipe.blocks or self._blocks is None or not name.startswith("unet."):
            return alpha
        return self.recipe.blocks.get(block_of(name, self._blocks), alpha)

    def _stored(self, index: int, name: str) -> torch.Tensor:
        """A model's tensor as it has it."""
        model = self.models[index]
        return finite(model.read(name), name, model.what)

    def _float32(self, index: int, name: str) -> torch.Tensor:
        """A model's tensor in float32, ours to write into."""
        import torch

        return self._stored(index, name).to(torch.float32, copy=True)

    def _with_loras(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        import torch

        for number, change, strength in self._changes_of(name):
            parts = self._parts[number].of(change)
            tensor = changed(change, tensor.to(torch.float32), parts, strength)
        return tensor

    def _changes_of(self, name: str) -> list[tuple[int, Change, float]]:
        """What the LoRAs do to a tensor: each one's number, its change and the weight that it is given."""
        blocks = self._blocks
        if blocks is None:
            return []
        found = ((number, changes.get(name)) for number, changes in enumerate(self._changes))
        weighed = [(n, change, weight_of(self.loras[n].lora, name, blocks)) for n, change in found if change]
        return [(number, change, strength) for number, change, strength in weighed if strength]

    @functools.cached_property
    def _changes(self) -> list[dict[str, Change]]:
        """Of each LoRA, what it does to which tensor."""
        return [{change.tensor: change for change in one.adapter.changes} for one in self.loras]

    @functools.cached_property
    def _parts(self) -> list[AdapterParts]:
        """The LoRA files, opened once; every value in them is looked at before the first is used."""
        from bench.lora.apply import AdapterParts, check_values

        for one in self.loras:
            check_values(one.adapter)
        return [AdapterParts(one.file) for one in self.loras]


def recipe_in(checkpoint: Checkpoint) -> Merged | None:
    """The recipe that a checkpoint is of, in whole or in part; None without one. Where there are two, the UNet's."""
    return recipe_of(checkpoint, "unet") or recipe_of(checkpoint, "text_encoder")


def recipe_of(checkpoint: Checkpoint, component: str) -> Merged | None:
    """The recipe that makes a component; None where it is taken as files have it."""
    source = checkpoint
    if isinstance(source, CompositeCheckpoint):
        source = source.parts.get(component, source.base)
    return source if isinstance(source, Merged) else None


def finite(tensor: torch.Tensor, name: str, what: str) -> torch.Tensor:
    """The tensor, once it is sure that it holds finite values only.

    Raises:
        WeightsError: some are not; how many, in which tensor of what.
    """
    from bench.checkpoints.finite import count_non_finite

    bad = count_non_finite(tensor)
    if bad:
        raise WeightsError(f"{what}: {name} holds {bad} values of {tensor.numel()} that are not finite.")
    return tensor


def _tensors(recipe: Recipe, first: Checkpoint, vae: Checkpoint | None) -> dict[str, Tensor]:
    """Every tensor of the output: the first model's, but for a VAE taken from elsewhere; in the output's precision."""
    found = dict(first.tensors)
    if vae is not None:
        found = {name: tensor for name, tensor in found.items() if not name.startswith("vae.")}
        found |= {name: tensor for name, tensor in vae.tensors.items() if name.startswith("vae.")}
    return {name: Tensor(tensor.shape, recipe.dtype or tensor.dtype) for name, tensor in found.items()}
