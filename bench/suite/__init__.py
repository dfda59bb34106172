"""Suite and prompt files -> ``Suite``, its protocol digest, and the images it stands for with their seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from bench import documents
from bench.documents import exists
from bench.errors import SuiteError, UsageError
from bench.formatting import did_you_mean, listed
from bench.records import PlannedImage, Prompt, Settings, Suite, Variant
from bench.suite.file import VariantTable, read_suite_file
from bench.suite.prompt_files import SUFFIXES, Located, read_located, read_prompts, refuse_double_ids
from bench.suite.sweep import sweep_suite
from bench.suite.training_prompts import training_prompts_in

__all__ = [
    "image_seed",
    "list_prompt_sets",
    "list_suites",
    "load_suite",
    "plan_images",
    "prompts_folder",
    "protocol_digest",
    "read_prompts",
    "sweep_suite",
]


def load_suite(name_or_path: str, *, limit: int | None = None, known_metrics: Collection[str] | None = None) -> Suite:
    """A checked suite, from the name of a shipped one or from a ``.toml`` file.

    Prompt files are looked up beside the suite file, then among the shipped ones. A checkpoint, LoRA, UNet or
    VAE that lies beside the suite file becomes an absolute path; every other name stays as it is. Prompts that SPO
    was trained on are left out, and named in ``Suite.left_out``, unless the file says ``keep_training_prompts``.

    Args:
        name_or_path: such as ``mini`` or ``suites/mine.toml``; kept as ``Suite.source``.
        limit: keep only the first ``limit`` prompts. ``Suite.limit`` is set where that cuts any off.
        known_metrics: the metrics there are; None leaves metric names unchecked.

    Raises:
        SuiteError: a file that is missing or wrong, with file, field, allowed values and nearest match.
        IncomparableError: the suite's schema is newer than this program.
        UsageError: ``limit`` is under 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be at least 1.")
    path = _find_suite(name_or_path)
    written = read_suite_file(path, known_metrics)
    prompts, left_out = _untrained(path, _read_cases(path, written.prompts), written.keep_training_prompts)
    cut = limit is not None and limit < len(prompts)
    return Suite(
        schema=written.schema,
        name=written.name,
        prompt_files=written.prompts,
        prompts=prompts[:limit],
        samples=written.samples,
        seed=written.seed,
        metrics=written.metrics,
        settings=written.settings,
        variants=tuple(_variant(path.parent, name, table) for name, table in written.variants.items()),
        limits=written.limits,
        measure=written.measure,
        limit=limit if cut else None,
        source=name_or_path,
        left_out=left_out,
    )


def prompts_folder() -> Path:
    """Where the shipped suites and prompt sets lie: in the installed package, or in a checkout."""
    package = Path(__file__).parents[1]
    return package / "prompts" if (package / "prompts").is_dir() else package.parent / "prompts"


def list_suites() -> tuple[str, ...]:
    """The names of the shipped suites, sorted."""
    return tuple(sorted(path.stem for path in prompts_folder().glob("*.toml")))


def list_prompt_sets() -> tuple[str, ...]:
    """The file names of the shipped prompt sets, sorted."""
    return tuple(sorted(path.name for path in prompts_folder().glob("*") if path.suffix in SUFFIXES))


def protocol_digest(suite: Suite) -> str:
    """The protocol digest: equal for two suites if and only if their images may be compared pair by pair.

    It is the sha256, in hex, of this JSON object in UTF-8, keys sorted, without spaces, non-ASCII unescaped,
    floats in Python's shortest form::

        {"prompts": [[id, prompt, negative], ...], "samples": n, "schema": 2, "seed": n, "settings": {...}}

    with the prompts in order and all fields of ``Settings``, defaults too; ``guidance_scale`` and ``eta`` are floats
    (5.0). Where the images are given and not rendered, ``"images": "given"`` stands in it too: their seeds and
    settings are unknown, and they are never taken for a rendered protocol. Name, tags, probes, metrics,
    variants, limits and timing plan are left out: changing them makes no other protocol.
    """
    # Settings made in Python may hold guidance_scale=5, which a suite file or run.json would give as 5.0.
    settings = msgspec.convert(msgspec.to_builtins(suite.settings), Settings)
    facts = {
        "schema": suite.schema,
        "prompts": [[prompt.id, prompt.text, prompt.negative] for prompt in suite.prompts],
        "samples": suite.samples,
        "seed": suite.seed,
        "settings": msgspec.to_builtins(settings),
        **({} if suite.external_images is None else {"images": "given"}),
    }
    return hashlib.sha256(documents.canonical(facts)).hexdigest()


def image_seed(suite_seed: int, prompt_id: str, sample: int) -> int:
    """The seed of an image's noise, in [0, 2^63).

    The first 8 bytes, big-endian, of sha256 over the ASCII text ``<suite_seed>\\n<prompt_id>\\n<sample>``, with
    the top bit cleared. It depends on neither variant, order, batch nor device, so that every variant starts
    from the same noise.
    """
    text = f"{suite_seed}\n{prompt_id}\n{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & (2**63 - 1)


def plan_images(suite: Suite) -> tuple[PlannedImage, ...]:
    """The images of one variant, in order: prompt by prompt, sample by sample, in batches of the settings' size.

    The plan is the same for every variant and is never made from what is left to do: the size of a batch
    changes pixels, so a resumed run must form the batches of an undisturbed one.

    Raises:
        ValueError: the suite's batch is to be chosen by a run (``batch = "auto"``).
    """
    if suite.settings.batch is None:
        raise ValueError(f"the batch of suite {suite.name} is not chosen yet")
    pairs = [(prompt.id, sample) for prompt in suite.prompts for sample in range(suite.samples)]
    return tuple(
        PlannedImage(
            prompt_id=prompt_id,
            sample=sample,
            seed=image_seed(suite.seed, prompt_id, sample),
            batch=index // suite.settings.batch,
        )
        for index, (prompt_id, sample) in enumerate(pairs)
    )


def _find_suite(name_or_path: str) -> Path:
    if not name_or_path.endswith(".toml") and name_or_path in list_suites():
        return prompts_folder() / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if name_or_path.endswith(".toml") and exists(path):
        return path
    hint = "hotart-bench list suites"
    if name_or_path.endswith(".toml"):
        raise SuiteError(f"{name_or_path}: there is no such file.", hint)
    if exists(path):
        raise SuiteError(f"{name_or_path}: a suite file ends in .toml.", hint)
    near = did_you_mean(name_or_path, list_suites())
    raise SuiteError(
        f"{name_or_path!r} is neither a shipped suite ({listed(list_suites())}) nor a .toml file{near}.", hint
    )


def _read_cases(suite_path: Path, names: tuple[str, ...]) -> tuple[Prompt, ...]:
    located: list[Located] = []
    for name in names:
        located += read_located(_find_prompts(suite_path, name))
    refuse_double_ids(located)
    return tuple(item.prompt for item in located)


def _untrained(path: Path, prompts: tuple[Prompt, ...], keep: bool) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    """The prompts that SPO was not trained on, and the ids of the others; all of them where ``keep`` says so."""
    left_out = () if keep else training_prompts_in(prompts)
    if len(left_out) == len(prompts):
        raise SuiteError(
            f"{path}: SPO was trained on every prompt of this suite, so none is left to judge it by.",
            "take other prompts, or set keep_training_prompts = true",
        )
    return tuple(prompt for prompt in prompts if prompt.id not in left_out), left_out


def _find_prompts(suite_path: Path, name: str) -> Path:
    for folder in (suite_path.parent, prompts_folder()):
        if exists(folder / name):
            return folder / name
    beside = (path.name for path in suite_path.parent.glob("*") if path.suffix in SUFFIXES)
    near = did_you_mean(name, {*beside, *list_prompt_sets()})
    raise SuiteError(
        f"{suite_path}: prompts: {name!r} lies neither beside the suite nor among the shipped sets{near}.",
        "hotart-bench list prompts",
    )


def _variant(folder: Path, name: str, table: VariantTable) -> Variant:
    return Variant(
        name=name,
        checkpoint=_beside(folder, table.checkpoint),
        revision=table.revision,
        loras=tuple(msgspec.structs.replace(lora, path=_beside(folder, lora.path)) for lora in table.loras),
        fuse=table.fuse,
        unet=None if table.unet is None else _beside(folder, table.unet),
        vae=None if table.vae is None else _beside(folder, table.vae),
    )


def _beside(folder: Path, name: str) -> str:
    # A folder that happens to be called "mini" must not hide the shipped family.
    if name == "mini" or name.startswith(("mini:", "random:")):
        return name
    path = Path(name).expanduser() if name.startswith("~/") else folder / name
    return str(path.resolve()) if exists(path) else name
