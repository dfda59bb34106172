"""What was loaded and changed for a variant, kept in ``run.json`` once for its weights."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.records import Audit, Fingerprint, Suite, Variant
from bench.render.runtime import compare_with_runtime
from bench.store import RunFolder
from bench.variants.models import Model


def fingerprint_of(folder: RunFolder, variant: Variant) -> Fingerprint | None:
    """What ``run.json`` holds of a variant's weights."""
    prints = () if folder.info is None else folder.info.variants
    return next((one for one in prints if one.name == variant.name), None)


def is_audited(folder: RunFolder, variant: Variant) -> bool:
    """Whether there is nothing to keep: the audit is there, or no place for it."""
    known = fingerprint_of(folder, variant)
    return known is None or known.audit is not None


def with_pixels(model: Model, variant: Variant, suite: Suite, audit: Audit, weights_dir: Path | None) -> Audit:
    """An audit, completed by how far fusing the variant's LoRAs moves pixels; ``model`` holds the variant."""
    difference = compare_with_runtime(model, variant, suite, weights_dir)
    return msgspec.structs.replace(audit, fused_against_runtime=difference)


def keep_audit(folder: RunFolder, variant: Variant, audit: Audit) -> None:
    """Write a variant's audit into ``run.json``."""
    if folder.info is None:
        return
    prints = tuple(
        msgspec.structs.replace(one, audit=audit) if one.name == variant.name else one for one in folder.info.variants
    )
    folder.write_info(msgspec.structs.replace(folder.info, variants=prints))
    if audit.non_finite:
        first, count = next(iter(audit.non_finite.items()))
        more = f" and {len(audit.non_finite) - 1} more tensors" if len(audit.non_finite) > 1 else ""
        bad = f"{count} values of {first}{more} are not finite in {audit.dtype}, before any LoRA"
        folder.add_notes([f"Variant {variant.name}: {bad}."])
