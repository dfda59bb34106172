"""Finding the faces of images before metrics look at them: once an image, kept in ``faces.jsonl``. Imports torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

import msgspec
from PIL import Image

from bench.errors import HotartError
from bench.faces.boxes import DETECTOR
from bench.faces.detector import Cascade, find_faces, load_cascade
from bench.metrics.declare import NoScoreError
from bench.records import FoundFaces
from bench.score.batches import memory_for
from bench.score.decoded import DecodedPictures
from bench.score.images import WORKERS, stream
from bench.score.plan import Job


def faces_pass(jobs: Sequence[Job], pictures: DecodedPictures) -> Generator[Job, None, None]:
    """Each job with what is found in its image, or with the error where it cannot be searched.

    Raises:
        WeightsError: the detector's weights are missing or damaged.
    """
    cascade = load_cascade()

    def load(job: Job) -> Image.Image:
        return pictures.read(job.render)

    def pixels(job: Job) -> int:
        return pictures.pixels(job.render)

    with closing(stream(jobs, load, 2 * WORKERS, pixels)) as images:
        for job, image in images:
            yield replace(job, faces=image if isinstance(image, Exception) else _search(cascade, job, image))


def _search(cascade: Cascade, job: Job, image: Image.Image) -> FoundFaces | Exception:
    render = job.render
    if job.faces_asked is None:
        return ValueError("its prompt asks for no face")
    record = FoundFaces(
        variant=render.variant,
        prompt_id=render.prompt_id,
        sample=render.sample,
        image_sha256=render.sha256,
        detector=DETECTOR,
        asked=job.faces_asked,
    )
    try:
        with memory_for("looking for faces"):
            return msgspec.structs.replace(record, faces=find_faces(cascade, image))
    except NoScoreError as why:
        return msgspec.structs.replace(record, reason=str(why))
    except HotartError:
        raise
    except Exception as error:  # it is the reason of the image's nulls, and must not stop the other images
        return error
