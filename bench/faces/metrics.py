"""Metrics of the faces in an image; what finds them is ``bench.faces.detector``, once an image for all of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.faces.boxes import DETECTOR, crop_of, largest, side_px
from bench.metrics.declare import Inputs, LoadedRewardModel, Place, encoder, metric
from bench.metrics.imagereward import ImageRewardModel
from bench.metrics.pixels import LAPLACIAN_BOUND, laplacian_variance, luma
from bench.metrics.weights import find_weights
from bench.records import FoundFaces, MetricFacts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SHARPNESS_PX = 112
"""Side of the square to which a face is brought before its sharpness is measured."""
FACESCORE_PROMPT = "A face."
"""What FaceScore reads with every face."""


def face_facts(
    name: str, summary: str, unit: str, *, high: float | None = None, higher_is_better: bool | None = None
) -> MetricFacts:
    """The facts that the metrics of the boxes share, with those that they do not."""
    return MetricFacts(
        name=name,
        version=f"1-{DETECTOR}",
        summary=summary,
        unit=unit,
        higher_is_better=higher_is_better,
        low=0.0,
        high=high,
        category="faces",
        encoder=None,
        trained_on=("wider-face",),
        training_data="photographs with boxes around faces (WIDER FACE, and CelebA for landmarks); no preferences",
        licence="Apache-2.0; the detector's weights MIT",
        reference="K. Zhang et al., MTCNN, arXiv 1604.02878; weights of facenet-pytorch 2.6.0",
    )


@metric(
    face_facts(
        "face-found", "Whether a face was found; its mean is the face rate.", "share", high=1.0, higher_is_better=True
    ),
    needs_faces=True,
)
def face_found(inputs: Inputs) -> torch.Tensor:
    """1 where at least one face was found, 0 where none was; (1,) float32."""
    return _value(inputs, float(bool(_found(inputs).faces)))


@metric(
    face_facts(
        "face-count",
        "Whether as many faces were found as the prompt asks for by its tags.",
        "share",
        high=1.0,
        higher_is_better=True,
    ),
    needs_faces=True,
)
def face_count(inputs: Inputs) -> torch.Tensor:
    """1 where the number of faces is one that ``bench.faces.asked.faces_asked`` allows, else 0; (1,) float32."""
    found = _found(inputs)
    count, asked = len(found.faces), found.asked
    return _value(inputs, float(asked.least <= count and (asked.most is None or count <= asked.most)))


@metric(
    face_facts(
        "face-size", "Side of the largest face over the shorter side of the image.", "share of the shorter side"
    ),
    needs_faces=True,
)
def face_size(inputs: Inputs) -> torch.Tensor:
    """sqrt(w h) / min(W, H) of the largest face's box, w x h pixels of W x H; (1,) float32, up to sqrt(long / short).

    Raises:
        NoScoreError: no face was found.
    """
    return _value(inputs, side_px(largest(_found(inputs).faces)) / min(inputs.pixels.shape[-2:]))


@metric(
    face_facts(
        "face-sharpness",
        "Variance of the Laplacian of the largest face, at 112 x 112 pixels; noise raises it as detail does.",
        "squared 8-bit level",
        high=LAPLACIAN_BOUND,
    ),
    needs_faces=True,
)
def face_sharpness(inputs: Inputs) -> torch.Tensor:
    """Variance of the Laplacian of 8-bit Rec. 709 luma, as ``sharpness``, of the largest face's crop at 112 x 112.

    The crop is ``bench.faces.boxes.crop_of``, resized by torch's bilinear filter with antialiasing whatever its shape,
    so that the value does not grow with the face. (1,) float32 in [0, 1020^2].

    Raises:
        NoScoreError: no face was found.
    """
    from torch.nn.functional import interpolate

    height, width = inputs.pixels.shape[-2:]
    left, top, right, bottom = crop_of(largest(_found(inputs).faces), width, height)
    level = luma(inputs.pixels[..., top:bottom, left:right])[:, None]
    resized = interpolate(level, (SHARPNESS_PX, SHARPNESS_PX), mode="bilinear", antialias=True)
    return laplacian_variance(255.0 * resized[:, 0])


def _found(inputs: Inputs) -> FoundFaces:
    if inputs.faces is None:
        raise ValueError("a metric of faces is declared with needs_faces=True, and got none")
    return inputs.faces[0]


def _value(inputs: Inputs, value: float) -> torch.Tensor:
    return inputs.pixels.new_tensor([value])


class FaceScoreModel:
    """FaceScore in memory: ImageReward's network with other weights, on the crop of a face."""

    def __init__(self, folder: Path, vocabulary: Path, place: Place, vision: dict[str, Any] | None = None) -> None:
        """Load ``FS_model.pt`` and ``med_config.json`` of ``folder``; the rest as ``ImageRewardModel``."""
        self._model = ImageRewardModel(folder, vocabulary, place, vision, file="FS_model.pt")
        self.batch = self._model.batch

    def preprocess(self, image: Image, preprocessing: str = "") -> torch.Tensor:
        """The crop of a face as ImageReward takes a picture; normalised float32 (3, 224, 224)."""
        return self._model.preprocess(image)

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(n, 3, 224, 224) -> raw rewards, float32 (n,); the prompt is always "A face."."""
        return self._model.score(pixels, [FACESCORE_PROMPT] * len(prompts))

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """No prompt is cut, since none is read."""
        return [False] * len(prompts)


@encoder("facescore", weights=("facescore", "bert-base-uncased"))
def facescore_model(place: Place) -> LoadedRewardModel:
    """FaceScore: the layers of ImageReward.

    Raises:
        WeightsError, MachineError: as ``bench.metrics.weights.find_weights`` and ``ImageRewardModel``.
    """
    return FaceScoreModel(
        find_weights("facescore", place.weights_dir), find_weights("bert-base-uncased", place.weights_dir), place
    )


@metric(
    MetricFacts(
        name="facescore",
        version=f"1-{DETECTOR}",
        summary="How well the largest face is drawn, by a model that prefers photographed faces to inpainted ones.",
        unit="reward",
        higher_is_better=True,
        low=None,
        high=None,
        category="faces",
        encoder="facescore",
        trained_on=("facescore-pairs", "imagereward-db"),
        training_data="faces of photographs, taken for better than copies of them inpainted by diffusion models; "
        "ImageReward before that",
        licence="not stated by its authors; the detector's weights MIT",
        reference="Z. Liao et al., FaceScore, arXiv 2406.17100; the box is MTCNN's, not RetinaFace's",
    ),
    needs_faces=True,
)
def facescore(inputs: Inputs) -> torch.Tensor:
    """The raw reward of the crop of the largest face and the prompt "A face.", (n,) float32, about -5 to 5, unbounded.

    Unlike ImageReward's it is not standardised. The crop is ``bench.faces.boxes.crop_of`` of the picture in RGB.
    """
    if inputs.reward is None:
        raise ValueError("facescore reads the value of its reward model, and got none")
    return inputs.reward
