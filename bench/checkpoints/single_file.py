"""Single ``.safetensors`` files: whole checkpoints in the LDM layout, and lone UNets and VAEs in either naming.

Known from the header alone, offline: which family, whether v-prediction, whether inpainting. A ``.yaml`` of the same
name beside a file may tell v-prediction too. Every tensor is accounted for: it has its place, or is known to be of no
use here (``UNUSED``), or the file is refused. No torch before a read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from bench import documents
from bench.checkpoints.blocks import LDM_UNET
from bench.checkpoints.checkpoint import SourceCheckpoint, Tensor, refuse_differences, stored_dtypes
from bench.checkpoints.detect import FileKind, detect, refuse_scaled, refuse_whole_numbers
from bench.checkpoints.families import (
    CONV_IN,
    FAMILIES,
    INPAINTING_CHANNELS,
    config_folder,
    folder_tensors,
    inpainting_shape,
    pipeline_family,
)
from bench.checkpoints.ldm_layout import TEXT, TEXT_2, VAE, Join, LdmTensor, ldm_tensors, split, split_shape
from bench.checkpoints.safetensors_files import (
    TWO_NAMES,
    Header,
    Stored,
    first_line,
    read_header,
    read_stored,
    unwrapped,
)
from bench.errors import WeightsError
from bench.records import CheckpointFacts
from bench.records.weights import Prediction

UNUSED = re.compile(
    r"model_ema\..*"  # averaged copies for further training
    r"|(.*\.)?(position_ids|logit_scale)"  # 0, 1, 2, ...; and a number that only CLIP's own training reads
    r"|(cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection\.weight"  # the pipelines read none
    r"|(first_stage_model\.)?(loss|model_ema)\..*"
    r"|v_pred|ztsnr"
    r"|betas|(sqrt_)?(one_minus_)?alphas_cumprod(_prev)?|log_one_minus_alphas_cumprod|sqrt_recipm?1?_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|denoiser\.sigmas"
)
"""Tensors that some programs leave in files and that no image depends on; the noise schedule is the scheduler's."""

OTHER_NAMES = (
    (re.compile(r"^(cond_stage_model\.transformer\.)(?=embeddings\.|encoder\.|final_layer_norm\.)"), r"\1text_model."),
    (re.compile(r"^vae\.(?=(encoder|decoder|quant_conv|post_quant_conv)\.)"), VAE),
)
"""SD 1.5's text encoder and the VAE as some files name them, and how the others do."""

PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}

LARGEST_YAML = 1 << 20

LDM_NOISE = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "beta_schedule": "linear"}
"""The noise schedule of SD 1.5 and SDXL as LDM configurations call it; their "linear" is linear in the square roots."""


def open_single(path: Path, what: str, folders: Sequence[Path] | None = None) -> SourceCheckpoint:
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
    header = header._replace(tensors=unwrapped(path, header.tensors))
    kind = detect(what, header.tensors)
    found = _named_for_layout(what, header, kind)
    folder, entries = _best_family(found, [config_folder(name) for name in FAMILIES] if folders is None else folders)
    expected = {entry.key: entry.shape for entry in entries if entry.join != "positions"}
    conv_in = next((entry.key for entry in entries if entry.parts == (CONV_IN,)), "")
    inpainting = conv_in in found and found[conv_in].shape[1:2] == (INPAINTING_CHANNELS,)
    if inpainting:
        expected[conv_in] = inpainting_shape(expected[conv_in])
    refuse_scaled(what, found)
    refuse_differences(what, expected, {key: stored.shape for key, stored in found.items()})
    refuse_whole_numbers(what, found)
    locations: dict[str, tuple[Stored, Join]] = {
        part: (found[entry.key].rows(number, len(entry.parts)), entry.join)
        for entry in entries
        for number, part in enumerate(entry.parts)
    }
    tensors = {name: Tensor(split_shape(at.shape, how), at.dtype) for name, (at, how) in locations.items()}
    zero_snr = _is_zero_snr(header)
    marked, beside = _marked_prediction(what, header, path.with_suffix(".yaml"))
    return SourceCheckpoint(
        what=what,
        facts=CheckpointFacts(
            layout="single-file",
            family=pipeline_family(folder),
            prediction=marked or "epsilon",
            zero_terminal_snr=zero_snr,
            prediction_from=beside,
            inpainting=inpainting,
            dtypes=stored_dtypes(tensors),
            licence=header.metadata.get("modelspec.license") or None,
            title=header.metadata.get("modelspec.title") or None,
        ),
        tensors=tensors,
        files=((kind, path),),
        config=folder,
        read=lambda name: split(read_stored(locations[name][0]), locations[name][1]),
        tells_prediction=kind == "checkpoint" or marked is not None or zero_snr,
    )


def _named_for_layout(what: str, header: Header, kind: FileKind) -> dict[str, Stored]:
    """The tensors by their LDM names, or by those of ``Checkpoint`` where a lone part has diffusers' names."""
    kept = [key for key in header.tensors if not UNUSED.fullmatch(key)]
    names = dict(zip(kept, kept, strict=True))
    for other, usual in OTHER_NAMES:
        names = {key: other.sub(usual, name) for key, name in names.items()}
    if kind != "checkpoint":
        prefix = {"unet": LDM_UNET, "vae": VAE}[kind]
        bare = {key: name.removeprefix(prefix) for key, name in names.items()}
        diffusers = any(re.match(r"down_blocks\.|(encoder|decoder)\.mid_block\.", name) for name in bare.values())
        names = {key: (f"{kind}." if diffusers else prefix) + name for key, name in bare.items()}
    keys: dict[str, str] = {}
    for key, name in names.items():
        if keys.setdefault(name, key) != key:
            raise WeightsError(
                f"{what}: holds {keys[name]} and {key}, which are one tensor under two names.",
                TWO_NAMES,
            )
    return {name: header.tensors[key] for name, key in keys.items()}


def _best_family(found: Mapping[str, Stored], folders: Sequence[Path]) -> tuple[Path, tuple[LdmTensor, ...]]:
    """The configurations that agree with most of a file's tensors, and what a file of them must hold."""
    candidates = [(folder, _entries(found, folder)) for folder in folders]
    return max(
        candidates,
        key=lambda one: sum(entry.key in found and found[entry.key].shape == entry.shape for entry in one[1]),
    )


def _entries(found: Mapping[str, Stored], folder: Path) -> tuple[LdmTensor, ...]:
    """What a file must hold of the components that it has."""
    tensors = folder_tensors(folder)
    for part in ("unet.", "vae."):
        if any(key.startswith(part) for key in found):  # a lone part, in diffusers' names
            lone = {name: tensor for name, tensor in tensors.items() if name.startswith(part)}
            return tuple(LdmTensor(name, *tensor, (name,)) for name, tensor in lone.items())
    prefixes = {
        "unet.": LDM_UNET,
        "vae.": VAE,
        "text_encoder.": TEXT[pipeline_family(folder)],
        "text_encoder_2.": TEXT_2,
    }
    present = tuple(part for part, prefix in prefixes.items() if any(key.startswith(prefix) for key in found))
    entries = (entry for entry in ldm_tensors(tensors) if not entry.parts or entry.parts[0].startswith(present))
    return tuple(_as_stored(entry, found) for entry in entries)


def _as_stored(entry: LdmTensor, found: Mapping[str, Stored]) -> LdmTensor:
    """The VAE's attention as the matrices that it is, where a program wrote it so and not as 1x1 convolutions."""
    is_matrix = entry.join == "conv" and entry.key in found and len(found[entry.key].shape) == 2
    return entry._replace(shape=entry.shape[:2], join="same") if is_matrix else entry


def _marked_prediction(what: str, header: Header, yaml_file: Path) -> tuple[Prediction | None, str | None]:
    """What a file says that its UNet predicts, and the file beside it that says so."""
    # The empty tensor is put there on purpose, while metadata are often those of a merge's first parent: it goes first.
    if "v_pred" in header.tensors:
        return "v_prediction", None
    beside = _prediction_beside(yaml_file)
    if beside is not None:
        return beside, yaml_file.name
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said and said not in PREDICTIONS:
        raise WeightsError(
            f"{what}: says modelspec.prediction_type = {said!r}; was it trained to predict epsilon or v?",
            "write epsilon or v into the file's metadata",
        )
    return PREDICTIONS.get(said), None


def _prediction_beside(path: Path) -> Prediction | None:
    """What the LDM configuration of the same name says, which A1111 reads before a checkpoint; None without one.

    Raises:
        WeightsError: it cannot be read, or describes another noise schedule or prediction.
    """
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(documents.read_bytes(path, LARGEST_YAML).decode())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise WeightsError(
            f"{path}: lies beside a checkpoint as its configuration, and cannot be read: {first_line(error)}.",
            "repair it, or rename it where it belongs to something else",
        ) from error
    for key in ("model", "params"):
        config = config.get(key) if isinstance(config, dict) else None
    told = config if isinstance(config, dict) else {}
    # Not said where it is nested: a few lines of YAML can hold one that is too large to be written.
    plain = {key: value if not isinstance(value, dict | list) else "..." for key, value in told.items()}
    odd = [f"{key} = {plain[key]!r}" for key, usual in LDM_NOISE.items() if key in plain and plain[key] != usual]
    said = plain.get("parameterization")
    if said is not None and (not isinstance(said, str) or said not in PREDICTIONS):
        odd.append(f"parameterization = {said!r}")
    if odd:
        raise WeightsError(
            f"{path}: describes another model than SD 1.5 and SDXL: {', '.join(odd)}.",
            "rename it where it belongs to something else",
        )
    return PREDICTIONS.get(said or "")


def _is_zero_snr(header: Header) -> bool:
    return "ztsnr" in header.tensors or header.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
