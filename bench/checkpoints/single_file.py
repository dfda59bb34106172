"""Single ``.safetensors`` files: whole checkpoints in the published layout, and lone UNets and VAEs in either naming.

Told from the header alone, offline: which family, whether v-prediction, whether inpainting. Every tensor is accounted
for: it has its place, or is known to be of no use here (``IDLE``), or the file is refused. No torch before a read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.checkpoints.blocks import PUBLISHED_UNET
from bench.checkpoints.checkpoint import Shape, Tensor
from bench.checkpoints.detect import Kind, find_kind
from bench.checkpoints.families import FAMILIES, config_folder, folder_tensors, pipeline_family
from bench.checkpoints.file_checkpoint import FileCheckpoint, Home, refuse_differences, stored_dtypes
from bench.checkpoints.ldm_layout import TEXT, TEXT_2, VAE, LdmTensor, published
from bench.checkpoints.safetensors_files import Header, Stored, read_header
from bench.errors import WeightsError
from bench.records import CheckpointFacts
from bench.records.weights import Prediction

SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "denoiser.sigmas",
)

IDLE = re.compile(
    r"model_ema\..*"  # averaged copies for further training
    r"|(.*\.)?(position_ids|logit_scale)"  # 0, 1, 2, ...; and a number that only CLIP's own training reads
    r"|(cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection\.weight"  # the pipelines read none
    r"|(first_stage_model\.)?(loss|model_ema)\..*"
    r"|(v_pred|ztsnr)"
    r"|" + "|".join(re.escape(name) for name in SCHEDULE)
)

"""Tensors that some programs leave in files and that no image depends on; the noise schedule is the scheduler's."""

OLD_TEXT = re.compile(r"(cond_stage_model\.transformer\.)(?=embeddings\.|encoder\.|final_layer_norm\.)")

"""SD 1.5's text encoder as some files name it."""

CONV_IN = "unet.conv_in.weight"

INPAINTING_CHANNELS = 9

PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}


class _Fit(NamedTuple):
    """A family's configurations, and what a file of it must hold."""

    folder: Path
    entries: tuple[LdmTensor, ...]


def open_single(path: Path, what: str, folders: Sequence[Path] | None = None) -> FileCheckpoint:
    """A single file; of a whole checkpoint, components may be missing.

    Args:
        path: the file.
        what: as the user named it.
        folders: the configurations that it may have; those that come with the package where None.

    Raises:
        WeightsError: it is damaged; it looks like something else, which is named; a tensor is missing, too many, there
            under two names, or of another shape than its family's.
    """
    header = read_header(path)
    kind = find_kind(what, header.tensors)
    found = _placed(what, header, kind)
    fit = _best_fit(found, [config_folder(name) for name in FAMILIES] if folders is None else folders)
    inpainting = _widen(fit, found)
    refuse_differences(
        what,
        {entry.key: entry.shape for entry in (inpainting or fit).entries if entry.join != "positions"},
        {key: stored.shape for key, stored in found.items()},
    )
    homes = {
        part: Home(path, found[entry.key].rows(place, len(entry.parts)), entry.join)
        for entry in fit.entries
        for place, part in enumerate(entry.parts)
    }
    return FileCheckpoint(
        what=what,
        facts=_facts(what, header, fit, homes, inpainting is not None),
        homes=homes,
        files=(("checkpoint" if kind == "checkpoint" else kind, path),),
        config=fit.folder,
        tells_prediction=kind == "checkpoint" or bool(_marked(what, header)) or _is_zero_snr(header),
    )


def _placed(what: str, header: Header, kind: Kind) -> dict[str, Stored]:
    """The tensors by their published names, or by those of ``Checkpoint`` where a lone part has diffusers' names."""
    kept = [key for key in header.tensors if not IDLE.fullmatch(key)]
    if kind == "checkpoint":
        names = {key: OLD_TEXT.sub(r"\1text_model.", key) for key in kept}
    else:
        published_prefix = {"unet": PUBLISHED_UNET, "vae": VAE}[kind]
        bare = {key: key.removeprefix(published_prefix) for key in kept}
        diffusers = any(re.match(r"down_blocks\.|(encoder|decoder)\.mid_block\.", name) for name in bare.values())
        names = {key: (f"{kind}." if diffusers else published_prefix) + name for key, name in bare.items()}
    homes: dict[str, str] = {}
    for key, name in names.items():
        if homes.setdefault(name, key) != key:
            raise WeightsError(
                f"{what}: holds {homes[name]} and {key}, which are one tensor under two names.",
                "get the file again, or remove one of them",
            )
    return {name: header.tensors[key] for name, key in homes.items()}


def _best_fit(found: Mapping[str, Stored], folders: Sequence[Path]) -> _Fit:
    """The configurations that agree with most of a file's tensors, and the entries of the components that it has."""
    fits = [_Fit(folder, _entries(found, folder_tensors(folder), pipeline_family(folder))) for folder in folders]
    return max(fits, key=lambda fit: sum(_agrees(entry, found) for entry in fit.entries))


def _agrees(entry: LdmTensor, found: Mapping[str, Stored]) -> bool:
    return entry.key in found and found[entry.key].shape == entry.shape


def _entries(found: Mapping[str, Stored], tensors: Mapping[str, Tensor], family: str) -> tuple[LdmTensor, ...]:
    begins = {"unet.": PUBLISHED_UNET, "vae.": VAE, "text_encoder.": TEXT[family], "text_encoder_2.": TEXT_2}
    for part in ("unet.", "vae."):
        if any(key.startswith(part) for key in found):  # a lone part, in diffusers' names
            return tuple(
                LdmTensor(name, *tensor, (name,), "same") for name, tensor in tensors.items() if name.startswith(part)
            )
    present = tuple(part for part, prefix in begins.items() if any(key.startswith(prefix) for key in found))
    return tuple(entry for entry in published(tensors) if not entry.parts or entry.parts[0].startswith(present))


def _widen(fit: _Fit, found: Mapping[str, Stored]) -> _Fit | None:
    """The same with the input channels of an inpainting UNet; None where the file is none."""

    def wide(shape: Shape) -> Shape:
        return (shape[0], INPAINTING_CHANNELS, *shape[2:])

    entry = next((entry for entry in fit.entries if entry.parts == (CONV_IN,)), None)
    if entry is None or entry.key not in found or found[entry.key].shape != wide(entry.shape):
        return None
    changed = entry._replace(shape=wide(entry.shape))
    return _Fit(fit.folder, tuple(changed if other is entry else other for other in fit.entries))


def _marked(what: str, header: Header) -> Prediction | None:
    # The empty tensor is put there on purpose, while metadata are often those of a merge's first parent: it goes first.
    if "v_pred" in header.tensors:
        return "v_prediction"
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said and said not in PREDICTIONS:
        raise WeightsError(
            f"{what}: says modelspec.prediction_type = {said!r}; was it trained to predict epsilon or v?",
            "write epsilon or v into the file's metadata",
        )
    return PREDICTIONS.get(said)


def _is_zero_snr(header: Header) -> bool:
    return "ztsnr" in header.tensors or header.metadata.get("ss_zero_terminal_snr", "").lower() == "true"


def _facts(what: str, header: Header, fit: _Fit, homes: Mapping[str, Home], inpainting: bool) -> CheckpointFacts:
    said = header.metadata
    return CheckpointFacts(
        layout="single-file",
        family=pipeline_family(fit.folder),
        prediction=_marked(what, header) or "epsilon",
        zero_terminal_snr=_is_zero_snr(header),
        inpainting=inpainting,
        dtypes=stored_dtypes({name: home.tensor() for name, home in homes.items()}),
        licence=said.get("modelspec.license") or None,
        title=said.get("modelspec.title") or None,
    )
