"""Which family a checkpoint is of, from its header where it is here; whose settings a suite of it begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.configurations import UnetConfig, read_config
from bench.checkpoints.locate import SHIPPED, find_checkpoint, find_lora, refuse_pickle
from bench.documents import exists
from bench.draft.sources import is_file_name
from bench.errors import UsageError, WeightsError
from bench.formatting import did_you_mean, joined
from bench.lora.parse import read_adapter
from bench.merge.load import open_named
from bench.records import CheckpointFacts, Lora
from bench.suite.sampling import few_steps_named

DraftFamily = Literal["mini", "sdxl", "sd15"]
"""The shipped suite whose prompt sets, metrics and settings a new one begins with."""
TITLES: dict[DraftFamily, str] = {"mini": "the embedded family", "sdxl": "SDXL", "sd15": "SD 1.5"}


SMALL_LATENTS = 16
"""Up to so many latents a side a model is taken for one of the embedded family's size; SD 1.5 has 64."""


class Known(NamedTuple):
    """What is known of a checkpoint before anything is loaded."""

    source: str
    family: DraftFamily | None
    """None where it is not on this machine."""
    notes: tuple[str, ...] = ()
    lost: bool = False
    """Whether it is a file that is not here, and that nothing could fetch."""


def look_at(source: str, weights_dir: Path | None) -> Known:
    """The family of a checkpoint, and what its maker should know before it is drawn; nothing is downloaded.

    Raises:
        WeightsError: a file that is here and is no checkpoint, or a pickle.
    """
    if source in SHIPPED or source == "random:tiny":
        return Known(source, "mini")
    if is_file_name(source) and not exists(Path(source).expanduser()):
        refuse_pickle(source)
        return Known(source, None, (f"{source}: there is no such file here{_near_file(source)}.",), lost=True)
    if find_checkpoint(source, None, weights_dir).path is None:
        return Known(source, None, (f"{source} is not on this machine yet; `fetch` gets it.",))
    found = open_named(source, None, weights_dir)
    return Known(source, "mini" if _is_small(found) else found.facts.family, tuple(_hints(source, found.facts)))


def _is_small(checkpoint: Checkpoint) -> bool:
    """Whether it draws images of the embedded family's size, whatever its files say of its family."""
    size = read_config(checkpoint.config / "unet" / "config.json", UnetConfig).get("sample_size")
    return isinstance(size, int) and size <= SMALL_LATENTS


def _near_file(source: str) -> str:
    """The end of a sentence on a file that is not there: the nearest name in its folder, if any."""
    folder = Path(source).expanduser().parent
    names = [path.name for path in folder.glob("*.safetensors")] if exists(folder) else []
    return did_you_mean(Path(source).name, names)


def _hints(source: str, facts: CheckpointFacts) -> list[str]:
    found = []
    if facts.inpainting:
        raise WeightsError(f"{source}: is an inpainting model, which renders no image from a prompt alone.")
    if facts.prediction == "v_prediction":
        zero = " and was trained to zero terminal SNR" if facts.zero_terminal_snr else ""
        found.append(
            f"{source} predicts v{zero}: the sampler is set so by itself; at high guidance such models burn out, which "
            "guidance_scale = 4 to 5 or guidance_rescale = 0.7 helps."
        )
    if few_steps_named(source):
        found.append(
            f"{source} is called as a model of few steps is: set steps, guidance_scale and sampler as its page says."
        )
    return found


def look_at_lora(lora: Lora, known: Known, weights_dir: Path | None) -> str | None:
    """Why a LoRA does not fit a checkpoint, where both are here; None where it does, or one of them is not."""
    if known.family is None:
        return None
    try:
        place = find_lora(lora.path, weights_dir)
        if place.path is not None:
            read_adapter(Path(place.path), open_named(known.source, None, weights_dir).tensors, lora.leave_out)
    except WeightsError as error:
        return f"{error.message} {f'({error.hint})' if error.hint else ''}".strip()
    return None


def find_family(known: Sequence[Known]) -> tuple[DraftFamily, tuple[str, ...]]:
    """The one family of a suite's checkpoints, and a sentence where it had to be assumed.

    Raises:
        UsageError: they are of two families; one suite has one size and one set of settings.
    """
    families = {one.family for one in known if one.family is not None}
    if len(families) > 1:
        told = joined([f"{one.source} is {TITLES[one.family]}" for one in known if one.family is not None])
        raise UsageError(
            f"{told}; a suite draws all its variants with the same settings, so it takes one family.",
            "make a suite of each",
        )
    family: DraftFamily = next(iter(families), "sdxl")
    unknown = [one.source for one in known if one.family is None]
    if not unknown:
        return family, ()
    as_others = ", as the others are" if families else ""
    return family, (f"{joined(unknown)}: taken for {TITLES[family]}{as_others}.",)
