"""What a variant was trained on after its base, as far as somebody says so. Reads headers, no weights; no torch.

Who says so, the first that does: the suite; of a recipe, its sources and LoRAs; the package, of what it ships; the
file's own metadata; the name of a published file. A name proves nothing, so that such a part is said to be known by
name only. All else is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from bench.checkpoints.locate import RANDOM, Place, find_checkpoint, find_lora
from bench.checkpoints.safetensors_files import read_header
from bench.documents import resolved
from bench.errors import WeightsError
from bench.formatting import joined, listed
from bench.merge.load import RECIPE, located
from bench.merge.recipe import read_recipe
from bench.metrics.training_data import DATA_SETS, check_training_names, with_their_data
from bench.mini import weights as mini
from bench.records import Lora, Suite, TrainedOn, TrainedPart, Variant

Metrics = Mapping[str, Sequence[str] | None]
"""What each metric was trained on, by its name (``bench.metrics.training_of_metrics``)."""
Names = tuple[str, ...]

NOTHING: Names = ()
"""What was tuned on no preferences and no metric: a base, a VAE, random weights."""
PICK_A_PIC: Names = ("pick-a-pic",)
SPO_SDXL: Names = ("spo-step-aware-sdxl",)
SPO_SD15: Names = ("spo-step-aware-sd15",)

REPOSITORIES: dict[str, Names] = {
    "stabilityai/stable-diffusion-xl-base-1.0": NOTHING,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": NOTHING,
    "runwayml/stable-diffusion-v1-5": NOTHING,
    "madebyollin/sdxl-vae-fp16-fix": NOTHING,
    "stabilityai/sdxl-vae": NOTHING,
    "stabilityai/sdxl-turbo": NOTHING,
    "ByteDance/SDXL-Lightning": NOTHING,
    "latent-consistency/lcm-lora-sdxl": NOTHING,
    "tianweiy/DMD2": NOTHING,
    "stabilityai/sd-vae-ft-mse": NOTHING,
    "mhdang/dpo-sdxl-text2image-v1": PICK_A_PIC,
    "mhdang/dpo-sd1.5-text2image-v1": PICK_A_PIC,
    "mapo-t2i/mapo-beta": PICK_A_PIC,
    "SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep": SPO_SDXL,
    "SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA": SPO_SDXL,
    "SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep": SPO_SD15,
    "SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep_LoRA": SPO_SD15,
    "AIGCer-OPPO/FaceScore-dpo-SDXL-LoRA": ("facescore",),
    # One repository holds both families; the two reward models learnt from the same data.
    "casiatao/LPO": ("lpo-latent-reward-sdxl", "lpo-latent-reward-sd15"),
}
"""Published weights of the Hub: DPO (arXiv 2311.12908), SPO (2406.04314), MaPO (2406.06424), LPO (2502.01051),
FaceScore's (2406.17100), their bases and VAEs; what was only distilled: Turbo (2311.17042), Lightning (2402.13929), LCM
(2311.05556), DMD2 (2405.14867)."""

FILES: dict[str, Names] = {
    "sd_xl_base_1.0": NOTHING,
    "sd_xl_base_1.0_0.9vae": NOTHING,
    "v1-5-pruned": NOTHING,
    "v1-5-pruned-emaonly": NOTHING,
    "sdxl_vae": NOTHING,
    "vae-ft-mse-840000-ema-pruned": NOTHING,
    "spo_sdxl_10ep_4k-data_lora_diffusers": SPO_SDXL,
    "spo_sdxl_10ep_4k-data_lora_webui": SPO_SDXL,
    "spo-sd-v1-5_4k-p_10ep_lora_diffusers": SPO_SD15,
    "SPO-SDXL_4k-p_10ep": SPO_SDXL,
    "SPO-SD-v1-5_4k-p_10ep": SPO_SD15,
    "dpo-sdxl-text2image-v1": PICK_A_PIC,
    "dpo-sd1.5-text2image-v1": PICK_A_PIC,
    "mapo-beta": PICK_A_PIC,
    "stable-diffusion-xl-base-1.0": NOTHING,
    "stable-diffusion-v1-5": NOTHING,
}
"""The same weights as files and folders are called on a disk, without ``.safetensors``."""

MINI: dict[str, Names] = {
    "mini": NOTHING,
    **{f"mini:{name}": ("mini-raters",) if name.startswith("dpo") else ("mini-step-aware",) for name in mini.LORAS},
}
"""The embedded family (docs/mini.md)."""

TRAINED_ON = "modelspec.trained_on"
"""What ``merge`` writes beside the keys of ModelSpec 1.0.1, which has none for it: names with commas between."""
NONE = "none"
"""What stands there for an empty list."""
MERGED_FROM = "modelspec.merged_from"
"""ModelSpec's comma-separated titles of the sources of a merge."""


def check_suite(suite: Suite, metrics: Metrics) -> None:
    """Refuse names of a suite's ``trained_on`` that are of no metric and no known data set, or come twice.

    Raises:
        UsageError: with file, variant and the nearest name.
    """
    for variant in suite.variants:
        _check(suite.source or suite.name, variant, metrics)


def _check(where: str, variant: Variant, metrics: Metrics) -> None:
    place = f"{where}: variants.{variant.name}"
    check_training_names(variant.trained_on or (), f"{place}.trained_on", metrics)
    for index, lora in enumerate(variant.loras):
        check_training_names(lora.trained_on or (), f"{place}.loras[{index}].trained_on", metrics)


def find_training(variant: Variant, weights_dir: Path | None, metrics: Metrics, where: str = "suite") -> TrainedOn:
    """What a variant was trained on: the union over its parts, and which of them are unknown.

    Nothing is fetched: of what is not on this machine, the suite and the name speak.

    Args:
        variant: of a suite; its own ``trained_on`` speaks of all its parts, and those of its LoRAs are added.
        weights_dir: a folder to look in before the Hub.
        metrics: what each metric was trained on.
        where: what an error begins with.

    Raises:
        UsageError: an unknown name in a ``trained_on``, of the variant or of a recipe's LoRA.
        SuiteError: a recipe that cannot be read as one.
    """
    _check(where, variant, metrics)
    search = _Search(weights_dir, metrics)
    names = (variant.unet, variant.vae, *(name for _, name in variant.unet_steps))
    parts = [part for name in (variant.checkpoint, *filter(None, names)) for part in search.checkpoint(name)]
    parts += [part for lora in variant.loras for part in search.lora(lora, lora.path)]
    notes = search.notes
    if variant.trained_on is not None:
        unsaid = [part for part in parts if part.source != "suite"]
        notes += search.differing(variant.name, variant.trained_on, unsaid)
        said = TrainedPart(what=variant.name, names=variant.trained_on, source="suite")
        parts = [said, *(part for part in parts if part.source == "suite")]
    names = with_their_data([name for part in parts for name in part.names or ()], metrics)
    # Of a metric without known data, the variant learnt what nobody says.
    parts += [TrainedPart(what=f"the data of {name}", names=None) for name in names if metrics.get(name, ()) is None]
    return TrainedOn(
        names=names,
        parts=tuple(part for index, part in enumerate(parts) if part not in parts[:index]),
        notes=tuple(dict.fromkeys(notes)),
    )


class _Search:
    """Looks up the parts of one variant, and collects what is to be said of them."""

    def __init__(self, weights_dir: Path | None, metrics: Metrics) -> None:
        self._weights_dir = weights_dir
        self._metrics = metrics
        self.notes: list[str] = []

    def checkpoint(self, name: str, within: tuple[Path, ...] = ()) -> list[TrainedPart]:
        """The parts of a checkpoint, UNet or VAE: itself, or the sources of a recipe."""
        if name in MINI or name in RANDOM:
            return [TrainedPart(what=name, names=MINI.get(name, NOTHING), source="shipped")]
        place = self._find(name, lora=False)
        path = None if place.path is None else resolved(place.path)
        if path is None or path.suffix != RECIPE:
            return self._file(place)
        if path in within:  # opening it refuses it
            return [TrainedPart(what=name, names=None)]
        recipe, chain = read_recipe(path), (*within, path)
        sources = (*recipe.models, *([] if recipe.vae is None else [recipe.vae]))
        parts = [part for source in sources for part in self.checkpoint(located(source, path.parent), chain)]
        for index, lora in enumerate(recipe.loras):
            check_training_names(lora.trained_on or (), f"{path}: loras[{index}].trained_on", self._metrics)
        return parts + [part for lora in recipe.loras for part in self.lora(lora, located(lora.path, path.parent))]

    def lora(self, lora: Lora, name: str) -> list[TrainedPart]:
        """A LoRA, of which the suite may speak."""
        if name in MINI:
            parts = [TrainedPart(what=name, names=MINI[name], source="shipped")]
        else:
            parts = self._file(self._find(name, lora=True))
        if lora.trained_on is None:
            return parts
        self.notes += self.differing(_short(name), lora.trained_on, parts)
        return [TrainedPart(what=_short(name), names=lora.trained_on, source="suite")]

    def differing(self, what: str, said: Names, parts: Sequence[TrainedPart]) -> list[str]:
        """A sentence for each part that is known to be trained on more than the suite says of ``what``."""
        ours = set(with_their_data(said, self._metrics))
        found = []
        for part in parts:
            more = [name for name in part.names or () if name not in ours]
            if more:
                whose = {"name": "the name", "modelspec": "the metadata", "shipped": "this package"}
                who = "this package" if part.source == "shipped" else f"{whose[part.source or 'name']} of {part.what}"
                found.append(
                    f"The suite says that {what} was trained on {joined(said) or 'nothing'}, and {who} says "
                    f"{joined(more)} too; the suite counts."
                )
        return found

    def _find(self, name: str, *, lora: bool) -> Place:
        """The place of a source; one that is not there is only a name here, and refused by whoever opens it."""
        try:
            found = find_lora(name, self._weights_dir) if lora else find_checkpoint(name, None, self._weights_dir)
        except WeightsError:
            return Place(what=name, path=None)
        return found

    def _file(self, place: Place) -> list[TrainedPart]:
        """What the metadata of a file says, or else its name."""
        what, by_name = _short(place.what), _by_name(place)
        metadata = _metadata(place)
        if TRAINED_ON in metadata:
            names = tuple(word.strip() for word in metadata[TRAINED_ON].split(",") if word.strip() not in ("", NONE))
            odd = [name for name in names if name not in self._metrics and name not in DATA_SETS]
            if not names and metadata[TRAINED_ON].strip() != NONE:
                return [TrainedPart(what=what, names=None)]  # an empty field says nothing, not that it was nothing
            if not odd:
                return [TrainedPart(what=what, names=tuple(dict.fromkeys(names)), source="modelspec")]
            self.notes.append(
                f"{what}: {TRAINED_ON} in its metadata names {listed(odd)}, unknown here; it is taken as unknown."
            )
            return [TrainedPart(what=what, names=None)]
        if by_name is not None:
            return [TrainedPart(what=what, names=by_name, source="name")]
        # What a file was merged from it holds, but it may hold more.
        titles = [title.strip() for title in metadata.get(MERGED_FROM, "").split(",")]
        merged = [(title, REPOSITORIES.get(title) or FILES.get(title)) for title in titles]
        parts = [
            TrainedPart(what=f"{title} in {what}", names=names, source="modelspec") for title, names in merged if names
        ]
        return [*parts, TrainedPart(what=what, names=None)]


def _short(what: str) -> str:
    """A source without the folders of this machine; a Hub id or a shipped name as it is."""
    return PurePath(what).name if Path(what).is_absolute() else what


def _by_name(place: Place) -> Names | None:
    if place.repository is not None:
        return REPOSITORIES.get(place.repository)
    return FILES.get(PurePath(place.what).name.removesuffix(".safetensors"))


def _metadata(place: Place) -> Mapping[str, str]:
    """The metadata of a ``.safetensors`` file that is on this machine; those of a folder's files say nothing of it."""
    path = Path(place.path or "")
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        return read_header(path).metadata
    except WeightsError:  # whoever opens it says what is wrong with it
        return {}
