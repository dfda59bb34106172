"""A LoRA file of any layout -> the changes that it makes, or an error that says what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.errors import WeightsError
from bench.names import listed
from bench.variants.adapters.change import Adapter, Change
from bench.variants.adapters.guesses import looks_like
from bench.variants.adapters.keys import take_apart
from bench.variants.adapters.modules import NOT_FINITE, NOTHING, PROBLEMS, TWICE, Group, Problem, Source, changes_of
from bench.variants.adapters.names import DOTTED, KOHYA, Place, component_guess, look_up, module_names
from bench.variants.adapters.scales import read_trained
from bench.variants.blocks import count_blocks
from bench.variants.checkpoint import Tensor
from bench.variants.stored import read_header

FAMILY_HINT = "check that the LoRA was trained for this family of checkpoints"
ALPHA_HINT = "write the alpha that it was trained with into the file: it multiplies the change with alpha / rank"


def read_adapter(path: Path, tensors: Mapping[str, Tensor]) -> Adapter:
    """What a LoRA file changes in a checkpoint, every key of it resolved to one tensor.

    Reads the header and the scalars; ``check_values`` reads the weights.

    Args:
        path: a file as kohya's scripts, lycoris, PEFT, diffusers or ComfyUI write it.
        tensors: the whole checkpoint's, by canonical name.

    Raises:
        WeightsError: the file is damaged or empty, a key fits nothing in the checkpoint or the same place as another,
            shapes or ranks are not right, or an alpha is 0 or not finite.
    """
    header = read_header(path)
    if not header.tensors:
        raise WeightsError(f"{path}: holds no tensors.")
    groups, left, problems = _group(header.tensors, module_names(tensors, count_blocks(tensors)))
    if left:
        raise _left_over(path, left, groups)
    source = Source(path, header, read_trained(path, header.tensors, header.metadata), tensors)
    changes: dict[str, Change] = {}
    for group in groups:
        try:
            for change in changes_of(group, source):
                if change.tensor in changes:
                    raise Problem(TWICE, change.tensor)
                changes[change.tensor] = change
        except Problem as problem:
            problems.append(problem)
    if problems:
        raise _worst(path, problems, len(groups))
    applied = Counter(name.partition(".")[0] for name, change in changes.items() for _ in change.parts)
    ordered = tuple(changes[name] for name in sorted(changes))
    return Adapter(path, _layout(groups), len(header.tensors), dict(sorted(applied.items())), ordered)


def _group(keys: Iterable[str], names: Mapping[str, Place]) -> tuple[list[Group], list[str], list[Problem]]:
    """The keys by module, those that fit nothing, and those that name a part of a module twice."""
    groups: dict[str, Group] = {}
    left, problems = [], []
    for key in sorted(keys):
        part = take_apart(key)
        place = look_up(part.module, names) if part else None
        if part is None or place is None:
            left.append(key)
            continue
        group = groups.setdefault(part.module, Group(part.module, place, part.old, {}))
        if part.role in group.parts:
            problems.append(Problem(TWICE, f"{group.parts[part.role]} = {key}"))
        group.parts[part.role] = key
    return list(groups.values()), left, problems


def _left_over(path: Path, left: list[str], groups: Iterable[Group]) -> WeightsError:
    """The error for keys that fit nothing: how many of each component, the first, and what they look like."""
    used = Counter(group.place.modules[0].partition(".")[0] for group in groups for _ in group.parts)
    lost = Counter(component_guess(key) for key in left)
    counts = ", ".join(f"{part} {used[part]} fit, {lost[part]} left over" for part in sorted(used | lost))
    return WeightsError(
        f"{path}: {len(left)} of {used.total() + len(left)} keys of the LoRA fit nothing in the checkpoint ({counts}): "
        f"{listed(left, 3)}. They look like {looks_like(left)}.",
        f"{FAMILY_HINT}; a LoRA is applied whole or not at all",
    )


def _worst(path: Path, problems: list[Problem], modules: int) -> WeightsError:
    """The error for modules that cannot be changed: the worst thing that is wrong, how often, and where first."""
    kind = min((problem.kind for problem in problems), key=PROBLEMS.index)
    words = [problem.words for problem in problems if problem.kind == kind]
    hint = ALPHA_HINT if kind in (NOTHING, NOT_FINITE) else FAMILY_HINT
    return WeightsError(f"{path}: {len(words)} of {modules} {kind}: {listed(words, 3)}.", hint)


def _layout(groups: Iterable[Group]) -> str:
    """How the keys are named; kohya's text encoders, which have one naming only, are not told beside its UNet's."""
    found = {
        "diffusers (old)" if group.place.layout == DOTTED and group.old else group.place.layout for group in groups
    }
    if any(layout.startswith(f"{KOHYA}, ") for layout in found):
        found.discard(KOHYA)
    if any(layout.startswith("lycoris, ") for layout in found):
        found.discard("lycoris")
    return " + ".join(sorted(found))
