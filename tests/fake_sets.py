"""Set metrics on the fake encoder, and a run folder that they score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from fake_metrics import FakeMetrics, facts, rendered
from numpy.typing import NDArray

from bench.metrics import NoScoreError, SetInputs, SetMetric, set_metric
from bench.metrics import sets as published
from bench.records import MetricFacts
from bench.store import RunFolder


def set_facts(name: str, category: str = "diversity", encoder: str = "conv") -> MetricFacts:
    return msgspec.structs.replace(facts(name, encoder), category=category)


def on_conv(metric: SetMetric, name: str, **more: Any) -> SetMetric:
    """A published set metric on the fake encoder."""
    known = msgspec.structs.replace(metric.facts, name=name, encoder="conv")
    return SetMetric(known, metric.compute, metric.needs_reference, metric.min_samples, metric.scale, **more)


VENDI = on_conv(published.vendi, "vendi")
VENDI_TAG = on_conv(published.vendi_of_tag, "vendi-tag")
DRIFT = on_conv(published.drift, "drift")
KID = on_conv(published.kid, "kid")
SETS = ("vendi", "vendi-tag", "drift", "kid")
FOUR = (VENDI, VENDI_TAG, DRIFT, KID)


@set_metric(set_facts("odd"), over="prompt")
def odd(inputs: SetInputs) -> float:
    """A reason, an error, NaN or a number, by the digits of the first embedding."""
    kind = int(abs(float(inputs.images[0][0, 0])) * 1e6) % 4
    if kind == 0:
        raise NoScoreError("too bright")
    if kind == 1:
        raise RuntimeError("odd")
    return float("nan") if kind == 2 else 0.5


def fakes(*more: Any) -> FakeMetrics:
    """The fake metrics with the four set metrics."""
    return FakeMetrics(*FOUR, *more)


def folder_of(path: Path, metrics: Sequence[str] = SETS, **kind: Any) -> RunFolder:
    """A rendered run whose ``run.json`` has the facts of these metrics."""
    folder = rendered(path, metrics=metrics, **kind)
    known = fakes(odd).registry.scored
    assert folder.info is not None
    folder.write_info(msgspec.structs.replace(folder.info, metrics=tuple(known[name].facts for name in metrics)))
    return folder


def embedding(fake: FakeMetrics, folder: RunFolder, key: tuple[str, str, int]) -> NDArray[np.float64]:
    """What the fake encoder makes of one image, in a batch of its own."""
    import torch
    from PIL import Image

    encoder = fake.encoders[0].load(None)  # type: ignore[arg-type]
    with Image.open(folder.image_path(*key)) as image:
        row = encoder.preprocess(image, "")
    return encoder.embed_images(torch.stack([row] * encoder.batch))[0].double().numpy()  # type: ignore[union-attr]
