"""``inspect``: what a checkpoint or LoRA file is, and what it would change; what a picture says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bench.checkpoints.families import COMPONENTS
from bench.cli import options
from bench.cli.ledger import TORN, print_entries
from bench.cli.options import AsJson, Quiet, WeightsDir
from bench.cli.printing import DONE, Columns, print_json, print_table, say, show
from bench.cli.progress import show_progress
from bench.errors import UsageError
from bench.formatting import NONE, joined, plain, plural
from bench.ledger import find_ledger, read_ledger
from bench.pictures.read import our_names, read_file
from bench.records import (
    HEAVIEST_LORA,
    CheckpointFacts,
    Hires,
    Inspection,
    LedgerEntry,
    Lora,
    PictureFacts,
    PictureLora,
)
from bench.report.audits import KINDS, LAYOUTS, describe, lora_view, predicts, share
from bench.suite.images_table import IMAGE_FILES

LedgerOf = Annotated[
    Path | None,
    typer.Option("--ledger", metavar="FILE", envvar="HOTART_LEDGER", help="Where its entries are looked for."),
]
BAR_WIDTH = 24
SHOWN = 12
"""How many modules, tensors or lines of metadata a table shows; ``--json`` has all."""


def inspect(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A checkpoint or a LoRA, as a suite would name it, or a picture.")
    ],
    against: Annotated[
        str | None, typer.Option("--against", metavar="BASE", help="The checkpoint to compare it with.")
    ] = None,
    weight: Annotated[float | None, typer.Option("--weight", metavar="W", help="Of the LoRA: 1 if left out.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="DTYPE",
            help="Precision in which the weights that a LoRA changes would be run: float16 if left out.",
        ),
    ] = None,
    weights_dir: WeightsDir = None,
    ledger: LedgerOf = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """What a checkpoint or LoRA file is and would change; what a picture says.

    A LoRA is shown with its layout, kinds, ranks and alphas. Against a checkpoint also: the keys applied, the size
    of the change by module and block, what is rounded away, and how many numbers would be NaN or infinite. A key that
    fits nothing ends with exit code 3. A picture (PNG, JPEG, WebP) is shown with the prompt, seed, settings, model and
    LoRAs that its program wrote into it, and with the reason for what cannot be told. The
    entries of weights in a ledger are shown too, by their sha256; without --ledger that is a ledger.jsonl beside the
    file or in this folder.

    Examples:
      hotart-bench inspect my-lora.safetensors
      hotart-bench inspect my-lora.safetensors --against sdxl.safetensors
      hotart-bench inspect my-merge.safetensors --against sdxl.safetensors
      hotart-bench inspect mini:spo --against mini --json
      hotart-bench inspect 00001-1234567.png
      hotart-bench inspect my-merge.safetensors --ledger ledger.jsonl
    """
    if Path(file).suffix.lower() in IMAGE_FILES:
        return _inspect_picture(file, against, weight, dtype, json)
    from bench.inspection import inspect_file  # imports torch, which --help and a wrong flag need not wait for

    options.check_weights_dir(weights_dir)
    chosen = options.check_dtype(dtype, "--dtype")
    if weight is not None and not abs(weight) <= HEAVIEST_LORA:  # NaN neither
        raise UsageError(f"--weight is {weight}; it must be a number from {-HEAVIEST_LORA:g} to {HEAVIEST_LORA:g}.")
    with show_progress(quiet or json) as progress:
        found = inspect_file(
            file, against=against, weight=weight, dtype=chosen, weights_dir=weights_dir, progress=progress
        )
    place = find_ledger(ledger, Path(file).parent, Path())
    entries = () if place is None else _entries(place, found)
    if json:
        print_json(msgspec.structs.replace(found, ledger=entries))
        return DONE
    _print(found)
    if place is not None:
        show(f"\nIn the ledger {place}: {plural(len(entries), 'entry', 'entries') if entries else 'no entry'}")
        print_entries(entries)
    return DONE


def _entries(place: Path, found: Inspection) -> tuple[LedgerEntry, ...]:
    """The entries of a ledger that a file stands in."""
    read = read_ledger(place)
    if read.torn:
        say(TORN.format(path=place))
    wanted = set(found.files.values())
    return tuple(one for one in read.entries if any(file.sha256 in wanted for file in one.files))


def _inspect_picture(file: str, against: str | None, weight: float | None, dtype: str | None, json: bool) -> int:
    flags = {"--against": against, "--weight": weight, "--dtype": dtype}
    given = [flag for flag, value in flags.items() if value is not None]
    if given:
        raise UsageError(f"{joined(given)}: {file} is a picture, and only weights have that.", f"leave {given[0]} out")
    try:
        found = read_file(Path(file))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}.") from error
    if json:
        print_json(found)
        return DONE
    rows = [(label, plain(value)) for label, value in picture_rows(found)]
    print_table({Path(file).name: "name", "": "text"}, rows)
    return DONE


def _program(found: PictureFacts) -> str:
    """Program and version; Fooocus writes its name into the version too."""
    version = found.version or ""
    return version if version.startswith(f"{found.program} ") else f"{found.program} {version}".strip()


def picture_rows(found: PictureFacts) -> list[tuple[str, str]]:
    """What a picture says as rows of label and value, then what cannot be told and why, the remarks last."""
    size = None if found.size is None else "{} × {}, of the first pass".format(*found.size)
    loras = None if found.loras is None else ", ".join(map(_lora, found.loras)) or "none"
    model = found.model and found.model + (f" ({found.model_hash})" if found.model_hash else "")
    values = {
        "program": _program(found),
        "prompt": found.prompt,
        "negative": found.negative if found.negative != "" else "none",
        "seed": found.seed,
        "steps": found.steps,
        "sampler": _and_ours(found.sampler, our_names(found).sampler),
        "schedule": _and_ours(found.schedule, our_names(found).schedule),
        "cfg": None if found.cfg is None else f"{found.cfg:g}",
        "size": size,
        "model": model,
        "loras": loras,
        "clip_skip": found.clip_skip,
        "rng": found.rng,
        "hires": None if found.hires is None else _hires(found.hires),
        **found.other,
    }
    rows = [(LABELS.get(name, name), str(value)) for name, value in values.items() if value is not None]
    reasons: dict[str, list[str]] = {}
    for name, why in found.unknown.items():
        reasons.setdefault(why, []).append(LABELS.get(name, name))
    rows += [("cannot be told", f"{', '.join(names)}: {why}") for why, names in reasons.items()]
    rows += [("changed after", found.edited)] if found.edited else []
    return [*rows, *(("note", note) for note in found.notes)]


LABELS = {
    "cfg": "CFG", "loras": "LoRAs", "clip_skip": "clip skip", "rng": "noise from", "hires": "second pass",
    "model_hash": "hash of the model", "negative": "negative prompt",
}  # fmt: skip
"""What fields of a picture are called on the screen."""


def _and_ours(theirs: str | None, ours: str | None) -> str | None:
    return theirs if theirs is None or ours in (None, theirs) else f"{theirs} (here: {ours})"


def _lora(one: PictureLora) -> str:
    weights = dict.fromkeys(f"{weight:g}" for weight in (one.text_weight, one.unet_weight) if weight is not None)
    hashed = f" ({one.hash})" if one.hash else ""
    return f"{one.name} × {' text, '.join(weights)}{' UNet' if len(weights) > 1 else ''}{hashed}"


def _hires(one: Hires) -> str:
    words = [f"× {one.scale:g}"] if one.scale is not None else [one.size] if one.size else []
    words += [plural(one.steps, "step")] if one.steps is not None else []
    words += [f"denoise {one.denoise:g}"] if one.denoise is not None else []
    return ", ".join([*words, *([one.upscaler] if one.upscaler else [])]) or "there was one"


def _print(found: Inspection) -> None:
    rows = [*_facts(found)]
    rows += [(f"sha256 {name}", digest) for name, digest in found.files.items()]
    print_table({found.path: "name", "": "text"}, rows)
    if found.lora is not None:
        _print_modules(found)
    if found.blocks:
        _print_blocks(found)
    if found.metadata:
        show()
        lines = sorted(found.metadata.items(), key=lambda line: not line[0].startswith(("modelspec.", "hotart.")))
        print_table(
            {"metadata": "name", "": "text"},
            [(name, value if len(value) <= 200 else f"{value[:200]}…") for name, value in lines[:SHOWN]],
        )


def _facts(found: Inspection) -> list[tuple[str, str]]:
    counts = ", ".join(f"{name} {count:,}" for name, count in found.tensors.items())
    sizes = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items())
    rows = []
    if found.checkpoint is not None:
        rows += [*_checkpoint(found, found.checkpoint), ("tensors", counts)]
    if found.lora is not None:
        weight = found.lora.modules[0].weight if found.lora.modules else 1.0
        view = lora_view(Lora(path=found.path, weight=weight), found.lora)
        rows += [("is", f"a LoRA file: {view.layout}"), ("keys applied", counts), ("kinds", view.kinds)]
        rows += [("rank, alpha", view.ranks), ("scale", view.scale), *(("note", one) for one in found.lora.notes)]
    rows.append(("numbers", sizes))
    rows.append((f"NaN or infinite in {found.dtype}" if found.dtype else "NaN or infinite", _non_finite(found)))
    if found.against is not None:
        rows.append(("against", found.against))
        if found.lora is not None:
            rows += [
                ("change", view.change),
                (f"rounded away in {found.dtype}", view.rounded if view.rounded == NONE else f"at most {view.rounded}"),
            ]
        else:
            rows.append(("equal tensors", f"{found.equal:,} of {sum(found.tensors.values()):,}"))
            for label, names in (("only here", found.only_here), ("only there", found.only_there)):
                if names:
                    rows.append((label, f"{len(names):,}, such as {', '.join(names[:3])}"))
    return rows


def _checkpoint(found: Inspection, facts: CheckpointFacts) -> list[tuple[str, str]]:
    """What a checkpoint is; for a part of one, no more than the part tells."""
    components = set(found.tensors)
    if len(components) == 1:
        (part,) = components
        return [("is", _lone(part, facts)), ("give it as", f'{part} = "{found.path}" beside checkpoint = "..."')]
    wanted = COMPONENTS if facts.family == "sdxl" else COMPONENTS[:-1]
    lacks = [component for component in wanted if component not in components]
    return [("is", describe(facts)), *([("lacks", ", ".join(lacks))] if lacks else [])]


def _lone(part: str, facts: CheckpointFacts) -> str:
    """A lone UNet or VAE in a line. A UNet seldom says what it predicts, and the VAEs of both families are alike."""
    words = [LAYOUTS[facts.layout]]
    if part == "unet":
        words += [{"sdxl": "SDXL", "sd15": "SD 1.5"}[facts.family]]
        words += [predicts(facts)] if facts.prediction == "v_prediction" else []
        words += ["inpainting"] if facts.inpainting else []
    words.append(f"stored in {', '.join(sorted(set(facts.dtypes.values())))}")
    words += [f"licence {facts.licence}"] if facts.licence else []
    return f"A lone {'UNet' if part == 'unet' else 'VAE'}: {', '.join(words)}"


def _non_finite(found: Inspection) -> str:
    count, tensors = sum(found.non_finite.values()), list(found.non_finite)
    if not count:
        return "0"
    such = ", such as" if len(tensors) > 3 else ":"
    return f"{count:,}, in {plural(len(tensors), 'tensor')}{such} {', '.join(tensors[:3])}"


def _print_modules(found: Inspection) -> None:
    modules = found.lora.modules if found.lora is not None else ()
    measured = [one for one in modules if one.relative_change is not None]
    shown = sorted(measured, key=lambda one: -(one.relative_change or 0.0))[:SHOWN]
    if not shown:
        return
    show(f"\nThe {len(shown)} modules of {len(modules):,} that change most:")
    rows = [
        (
            one.module,
            KINDS[one.kind] + (", DoRA" if one.dora else ""),
            NONE if one.rank is None else str(one.rank),
            f"{one.scale:.4g}",
            share(one.relative_change or 0.0),
        )
        for one in shown
    ]
    numbers: Columns = {"rank": "number", "scale": "number", "change": "number"}
    print_table({"module": "name", "kind": "name", **numbers}, rows)


def _print_blocks(found: Inspection) -> None:
    top = max((change for change in found.blocks.values() if change is not None), default=0.0)
    show()
    rows = [
        (name, NONE, "")
        if change is None
        else (name, share(change), "█" * round(BAR_WIDTH * change / top) if top else "")
        for name, change in found.blocks.items()
    ]
    print_table({"block": "name", "change": "number", "": "name"}, rows)
