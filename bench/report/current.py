"""Whether the reports of a run folder still tell of what it holds."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from bench.records import Gate, Run
from bench.store import load_run, read_gate

_PLOT = re.compile(r"\]\((plots/[^)]+)\)")


def records_digest(run: Run, gate: Gate | None) -> str:
    """sha256 over all that a report tells of, which stands in both reports: the card, the records, the verdicts.

    Where suite and weights lie is left out, as in a variant's fingerprint. An image whose file is gone counts, since
    the report shows it so.
    """
    suite = run.info.suite
    weights = {one.name: one.digest for one in run.info.variants}
    card = msgspec.structs.replace(run.info, variants=(), suite=msgspec.structs.replace(suite, source="", variants=()))
    variants = [(variant.name, weights.get(variant.name)) for variant in suite.variants]
    lost = [one.image for one in run.renders if one.image is not None and not (Path(run.path) / one.image).is_file()]
    parts = (card, variants, run.renders, run.scores, run.timings, gate, lost)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def gate_of(run: Run) -> Gate | None:
    """The last gate on ``run``, from its folder; None without one, or where it judged an earlier run there.

    Raises:
        IncomparableError: ``gate.json`` is of a newer schema.
        InvalidError: it is damaged.
        MachineError: it cannot be read.
    """
    found = read_gate(run.path)
    return found if found is not None and found.run_id == run.info.id else None


def is_current(folder: Path) -> bool:
    """Whether both reports are there, with their plots, and were written of what the folder holds now.

    Raises:
        HotartError: what ``bench.store.load_run`` and ``bench.report.gate_of`` refuse.
    """
    run = load_run(folder)
    digest = records_digest(run, gate_of(run))
    texts = []
    for name in ("report.html", "report.md"):
        try:
            texts.append((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):  # gone, or no report: it is written anew
            return False
    plots = _PLOT.findall(texts[1])
    return all(digest in text for text in texts) and all((folder / plot).is_file() for plot in plots)
