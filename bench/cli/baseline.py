"""``baseline``: what later runs are compared with, and who accepted it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bench.baseline import freeze, read_baseline, read_session_noise, write_baseline
from bench.baseline.pictures import Kept, keep_pictures, pictures_folder
from bench.cli import options
from bench.cli.ledger import check_ledger, note_in_ledger
from bench.cli.options import LedgerPath, RunFolder, Variants, file_option
from bench.cli.printing import DONE, say, show
from bench.cli.progress import show_progress
from bench.documents import exists, sha256_of, utc_now
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.formatting import argument, plural, quantity
from bench.gate import check_limits, like_named
from bench.ledger import files_of, find_ledger, new_entry
from bench.machine import git_user
from bench.records import Acceptance, Baseline, Gate, LedgerEntry, LedgerFile, Outcome, Prompt, Run
from bench.soundness import pruned_note
from bench.store import image_hashes, load_run

HELP = "hotart-bench baseline --help"
_MOST_CHARACTERS = 1_000


def baseline(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to.")],
    variants: Variants = None,
    calibration: Annotated[Path | None, file_option("--calibration", "Noise between sessions, from calibrate.")] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why it is accepted; needed to replace.")] = "",
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who accepts it.  [default: git's user]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the baseline that is there.")] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Keep small pictures beside it, so that a failed gate shows both sides.")
    ] = False,
    ledger: LedgerPath = None,
) -> int:
    """Freeze a run into one small file that gates compare with.

    It holds each prompt's means and each round's medians, no images, and is fit to commit. Who accepted it, why,
    and what the gate said of it against the one that it replaces stand in it. A ledger.jsonl beside it is added to.

    Examples:
      hotart-bench baseline reports/runs/mini -o baseline.json
      hotart-bench baseline runs/new -o baseline.json --replace --why "SPO v2"
      hotart-bench baseline runs/new -o new.json --calibration calibration.json
      hotart-bench baseline runs/new -o baseline.json --pictures
    """
    reason = _one_line(why, "--why")
    previous = _previous(output, replace, reason)
    who = _accepted_by(by, output)
    place = find_ledger(ledger, output.parent)
    check_ledger(place)
    loaded = load_run(run)
    noise = () if calibration is None else read_session_noise(calibration, loaded.info)
    names = options.split_names(variants, "--variants")
    with show_progress(quiet=False) as progress:
        hashes = image_hashes(loaded, progress)
    frozen = freeze(loaded, variants=names, session_noise=noise, hashes=hashes)
    for note in pruned_note(loaded, hashes):
        say(note)
    prompts = loaded.info.suite.prompts
    _refuse_unfit(frozen, run, prompts)
    accepted = Acceptance(
        by=who,
        time=utc_now(),
        why=reason,
        previous=None if previous is None else previous.checksum,
        verdict=None if previous is None else _verdict_against(previous, frozen, str(output), run, prompts),
    )
    kept = _keep(pictures, loaded, frozen, output)
    written = write_baseline(msgspec.structs.replace(frozen, acceptance=accepted), output)
    sizes = ((len(written.prompts), "prompt"), (written.samples, "sample"), (len(written.variants), "variant"))
    said = " x ".join(plural(count, noun) for count, noun in sizes)
    say(
        f"Done: {said}, {quantity(output.stat().st_size, 'byte')}, accepted by {who}, checksum {written.checksum[:12]}."
    )
    if kept is not None:
        lost = f"; {plural(kept.lost, 'picture')} of the run could not be read" if kept.lost else ""
        say(f"{plural(kept.pictures, 'picture')} in {kept.folder}, {quantity(kept.size_bytes, 'byte')}{lost}.")
    if place is not None:
        note_in_ledger(place, _accepted(written, output))
    show(str(output))
    return DONE


def _keep(wanted: bool, run: Run, frozen: Baseline, output: Path) -> Kept | None:
    """Keeps the pictures that were asked for; says where older ones stay that are not of this baseline."""
    if wanted:
        with show_progress(quiet=False) as progress:
            return keep_pictures(run, [one.fingerprint.name for one in frozen.variants], output, progress)
    if exists(pictures_folder(output)):
        say(f"{pictures_folder(output)}: stays as it is; no gate shows its pictures unless they are of this run.")
    return None


def _accepted(written: Baseline, output: Path) -> LedgerEntry:
    """What the ledger keeps of a baseline: its file, the weights of its variants, who accepted it and why."""
    accepted = written.acceptance
    file = LedgerFile(role="baseline", name=output.name, sha256=sha256_of(output))
    facts = {"run": written.run_id, "checksum": written.checksum, "protocol": written.protocol_digest}
    more = {"why": accepted.why, "previous": accepted.previous, "verdict": accepted.verdict}
    facts |= {name: str(value) for name, value in more.items() if value}
    weights = files_of(one.fingerprint for one in written.variants)
    what = f"{output.name} was frozen from a run of {written.suite} and accepted" + (
        f": {accepted.why}" if accepted.why else "."
    )
    return new_entry("accepted", what, (file, *weights), facts, by=accepted.by)


def _previous(output: Path, replace: bool, why: str) -> Baseline | None:
    """The baseline that is to be replaced; None where there is nothing yet."""
    if replace and not why:
        raise UsageError('--replace needs a reason: --why "...". It is kept in the file.', HELP)
    if not output.exists() and not output.is_symlink():
        return None
    if not replace:
        raise UsageError(
            f"{output}: is there already. To accept another baseline, add --replace and a reason.",
            f'hotart-bench baseline RUN -o {argument(output)} --replace --why "..."',
        )
    return read_baseline(output)


def _accepted_by(by: str | None, output: Path) -> str:
    folder = next(parent for parent in output.absolute().parents if parent.is_dir())
    who = git_user(folder) if by is None else _one_line(by, "--by")
    if not who:
        raise UsageError(
            "Who accepts this baseline? Git knows no user.name here.",
            'add --by "NAME", or: git config user.name "NAME"',
        )
    return who


def _one_line(text: str, flag: str) -> str:
    line = text.strip()
    if not line.isprintable() or len(line) > _MOST_CHARACTERS:
        raise UsageError(f"{flag} must be one line of at most {_MOST_CHARACTERS:,} characters that can be printed.")
    return line


def _refuse_unfit(frozen: Baseline, run: str, prompts: Sequence[Prompt]) -> None:
    """Refuses a baseline that no run could pass against: missing images, limits that make no sense."""
    itself = _gate(frozen, frozen, run, run, prompts)
    reasons = [f"{one.candidate}: {one.sentence}" for one in itself.verdicts if one.outcome == "invalid"]
    if itself.outcome == "invalid":
        more = f" And {len(reasons) - 3} more such." if len(reasons) > 3 else ""
        raise InvalidError(
            f"{run}: cannot be a baseline, because no run could pass against it. "
            f"{' '.join([*reasons[:3], *itself.notes[: not reasons]])}{more}",
            "repair the run, or leave variants out with --variants",
        )


def _verdict_against(
    previous: Baseline, frozen: Baseline, output: str, run: str, prompts: Sequence[Prompt]
) -> Outcome | None:
    """What the gate says of the new baseline against the old one; None, and why on stderr, where it cannot."""
    if previous.run_id == frozen.run_id:
        say("Not gated against the baseline that it replaces: both are of one run.")
        return None
    try:
        found = _gate(frozen, previous, run, output, prompts)
    except (IncomparableError, UsageError) as error:
        say(f"Not gated against the baseline that it replaces: {error.message}")
        return None
    say(f"Against the baseline that it replaces: {found.outcome}.")
    return found.outcome


def _gate(candidate: Baseline, reference: Baseline, run: str, baseline: str, prompts: Sequence[Prompt]) -> Gate:
    return check_limits(
        candidate,
        reference,
        like_named(candidate, reference),
        run=run,
        baseline=baseline,
        baseline_is_run=False,
        time=utc_now(),
        prompts=prompts,
    )
