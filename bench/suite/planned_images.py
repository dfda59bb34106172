"""What a suite stands for: its protocol digest, the images that it plans with their seeds, and those still missing.

No torch: this tells whether a run is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from bench import documents
from bench.records import PlannedImage, Render, Settings, Suite

LATER_SETTINGS = (
    "prompt_syntax",
    "prompt_loras",
    "clip_skip",
    "embeddings",
    "guidance_rescale",
    "timesteps",
    "original_size",
    "target_size",
    "crop",
    "vae_slicing",
)
"""Settings that came after the first protocols. One that is left out changes no pixels, and no digest either."""


def protocol_digest(suite: Suite) -> str:
    """The protocol digest: equal for two suites if and only if their images may be compared pair by pair.

    It is the sha256, in hex, of this JSON object in UTF-8, keys sorted, without spaces, non-ASCII unescaped,
    floats in Python's shortest form::

        {"prompts": [[id, prompt, negative], ...], "samples": n, "schema": 2, "seed": n, "settings": {...}}

    with the prompts in order and all fields of ``Settings``, defaults too; ``guidance_scale`` and ``eta`` are floats
    (5.0). Of ``LATER_SETTINGS`` only those that are not the default, of embeddings names and sha256. External images
    add ``"images": "given"``: their seeds and settings are unknown, and they never have the protocol of rendered ones;
    their prompts are sorted, since the order of a table means nothing. Name, tags, probes, metrics, variants, limits,
    notes, timing plan are left out: changing them makes no other protocol.
    """
    # Settings made in Python may hold guidance_scale=5, which a suite file or run.json would give as 5.0.
    settings = msgspec.convert(msgspec.to_builtins(suite.settings), Settings)
    prompts = [[prompt.id, prompt.text, prompt.negative] for prompt in suite.prompts]
    facts = {
        "schema": suite.schema,
        "prompts": prompts if suite.external_images is None else sorted(prompts),
        "samples": suite.samples,
        "seed": suite.seed,
        "settings": _told_settings(settings),
        **({} if suite.external_images is None else {"images": "given"}),
    }
    return hashlib.sha256(documents.canonical(facts)).hexdigest()


def _told_settings(settings: Settings) -> dict[str, object]:
    """The settings as the digest holds them."""
    values = settings.told()
    usual = {one.name: one.default for one in msgspec.structs.fields(Settings) if one.name in LATER_SETTINGS}
    return {name: values[name] for name in values if name not in usual or getattr(settings, name) != usual[name]}


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


def with_batch(suite: Suite) -> Suite:
    """The suite with batches of 1 where a run is to choose: which images there are does not depend on it."""
    if suite.settings.batch is not None:
        return suite
    return msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=1))


def missing_images(suite: Suite, variant: str, renders: Sequence[Render], folder: Path) -> list[PlannedImage]:
    """The planned images of a variant that have no record, or whose file is gone, in the suite's order."""
    there = {
        (render.prompt_id, render.sample)
        for render in renders
        if render.variant == variant and (render.image is None or (folder / render.image).is_file())
    }
    return [planned for planned in plan_images(suite) if (planned.prompt_id, planned.sample) not in there]


def missing_batches(
    suite: Suite,
    variant: str,
    renders: Sequence[Render],
    folder: Path,
    only: Collection[tuple[str, int]] | None = None,
) -> list[tuple[PlannedImage, ...]]:
    """The planned batches of which this variant lacks an image, or one of ``only`` (prompt, sample), whole."""
    missing = missing_images(suite, variant, renders, folder)
    return batches_to_draw(suite, [one for one in missing if is_wanted(one, only)])


def is_wanted(image: PlannedImage, only: Collection[tuple[str, int]] | None) -> bool:
    """Whether an image is one of these (prompt, sample); all are where None is given."""
    return only is None or (image.prompt_id, image.sample) in only


def batches_to_draw(suite: Suite, wanted: Iterable[PlannedImage]) -> list[tuple[PlannedImage, ...]]:
    """The planned batches that hold these images, whole, since the size of a batch changes pixels."""
    numbers = {planned.batch for planned in wanted}
    batches = groupby(plan_images(suite), key=lambda planned: planned.batch)
    return [tuple(images) for number, images in batches if number in numbers]


def record_of(
    variant: str,
    planned: PlannedImage,
    decode_dtype: str | None,
    error: str | None,
    file: tuple[str, str] | None,
    pixels_sha256: str | None = None,
) -> Render:
    """The record of a planned image.

    Args:
        variant: name of the variant that drew it.
        planned: the image as it was planned.
        decode_dtype: precision that it was decoded in.
        error: why there is no image.
        file: its name in the folder and its sha256, as ``RunFolder.write_image`` returns them.
        pixels_sha256: of its pixels.
    """
    image, sha256 = file or (None, None)
    return Render(
        variant=variant,
        prompt_id=planned.prompt_id,
        sample=planned.sample,
        seed=planned.seed,
        batch=planned.batch,
        decode_dtype=decode_dtype,
        image=image,
        sha256=sha256,
        error=error,
        pixels_sha256=pixels_sha256,
    )
