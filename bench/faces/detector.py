"""MTCNN: three small networks, each of which looks closer at what the one before took for a face.

The first network slides over the picture in several sizes and proposes boxes. The second and the third see each box
alone, at 24 and at 48 pixels, drop what is no face and move the edges of what is. Between them, of boxes that overlap
only the most probable is kept. The weights are those of facenet-pytorch, and so is the arithmetic: pixels are counted
from 1, and the last pixel belongs to a box. Its landmarks are left out.

Everything runs on the CPU in float32, one picture at a time, so that boxes depend neither on the device nor on other
pictures. Imports torch.

Source: K. Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, arXiv
1604.02878; the weights and what the paper leaves open: facenet-pytorch 2.6.0 (MIT).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, softmax
from torchvision.ops import nms

from bench import documents
from bench.errors import WeightsError
from bench.faces.boxes import SMALLEST_FACE_PX, searched_size, side_px
from bench.records import Face

WEIGHTS = Path(__file__).parent / "weights" / "mtcnn.safetensors"
SHA256 = "5ca5c10484a020baafd2f04901f7b7e5b3ddaa12cc4e899e456ca53faa56b199"
"""Of ``WEIGHTS``, which ``bench.faces.convert`` makes of facenet-pytorch's wheel."""
REINSTALL = "install hotart-bench again: pip install --force-reinstall --no-deps hotart-bench"
SHRINK = 0.709
"""Side of each size of the picture over the one before: about half the area."""
CELL_PX, STRIDE_PX = 12, 2
"""What the first network sees at a place, and how far its places are apart."""
THRESHOLDS = (0.6, 0.7, 0.9)
"""Probability of a face from which on each network keeps a box; the last is FaceScore's, the others the paper's."""
OVERLAP_AT_A_SIZE, OVERLAP = 0.5, 0.7
"""Overlap over which the less probable of two boxes goes: within one size of the picture, and everywhere else."""

# The networks.


def _convolution(inputs: int, outputs: int, side: int, pool: tuple[int, int] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, side), nn.PReLU(outputs)]
    return nn.Sequential(*layers, *([] if pool is None else [nn.MaxPool2d(*pool, ceil_mode=True)]))


class ProposalNetwork(nn.Module):
    """P-Net: at every second place, whether the 12 pixels from there on hold a face, and where its edges are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(3, 10, 3, (2, 2)), _convolution(10, 16, 3), _convolution(16, 32, 3))
        self.face, self.edges = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, h, w) in [-1, 1] -> probability (n, h', w'), shifts of the four edges (n, 4, h', w')."""
        seen = self.body(pixels)
        return softmax(self.face(seen), dim=1)[:, 1], self.edges(seen)


class JudgingNetwork(nn.Module):
    """R-Net or O-Net: whether a whole crop is a face, and where its edges are."""

    def __init__(self, body: nn.Sequential, flat: int, width: int) -> None:
        super().__init__()
        self.body, self.dense = body, nn.Sequential(nn.Linear(flat, width), nn.PReLU(width))
        self.face, self.edges = nn.Linear(width, 2), nn.Linear(width, 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) in [-1, 1] -> probability (n,), shifts of the four edges (n, 4)."""
        seen = self.dense(self.body(pixels).flatten(1))
        return softmax(self.face(seen), dim=1)[:, 1], self.edges(seen)


class Cascade(nn.Module):
    """The three networks, by their names in the weight file."""

    def __init__(self) -> None:
        super().__init__()
        self.proposal = ProposalNetwork()
        refining = (_convolution(3, 28, 3, (3, 2)), _convolution(28, 48, 3, (3, 2)), _convolution(48, 64, 2))
        self.refining = JudgingNetwork(nn.Sequential(*refining), 64 * 3 * 3, 128)
        output = (
            *(_convolution(3, 32, 3, (3, 2)), _convolution(32, 64, 3, (3, 2))),
            *(_convolution(64, 64, 3, (2, 2)), _convolution(64, 128, 2)),
        )
        self.output = JudgingNetwork(nn.Sequential(*output), 128 * 3 * 3, 256)


def load_cascade(file: Path = WEIGHTS) -> Cascade:
    """The three networks with the shipped weights, frozen.

    Raises:
        WeightsError: the file is missing, or is not the one that was shipped.
    """
    try:
        data = documents.read_bytes(file)
    except OSError as error:
        raise WeightsError(f"{file}: the face detector's weights are missing.", REINSTALL) from error
    if (found := documents.sha256_of(data)) != SHA256:
        raise WeightsError(f"{file}: is damaged: its sha256 is {found}, not {SHA256}.", REINSTALL)
    cascade = Cascade()
    cascade.load_state_dict(load(data))
    return cascade.requires_grad_(False).eval()


# The cascade. A box is a row: left, top, right, bottom in pixels of the picture, counted from 1, and a probability.


@torch.inference_mode()
def find_faces(cascade: Cascade, image: Image.Image) -> tuple[Face, ...]:
    """The faces of a picture of any 8-bit mode, the largest first, their boxes clipped to the picture.

    Raises:
        NoScoreError: the picture is too small to be searched.
    """
    shrunk = image.convert("RGB").resize(searched_size(*image.size), Image.Resampling.BILINEAR)
    boxes = find_boxes(cascade, torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).float())
    across, down = image.width / shrunk.width, image.height / shrunk.height
    faces = []
    for left, top, right, bottom, probability in boxes.tolist():
        x1, y1 = max((left - 1.0) * across, 0.0), max((top - 1.0) * down, 0.0)
        x2, y2 = min(right * across, float(image.width)), min(bottom * down, float(image.height))
        if x1 < x2 and y1 < y2:
            faces.append(Face(x1=x1, y1=y1, x2=x2, y2=y2, probability=probability))
    return tuple(sorted(faces, key=side_px, reverse=True))


@torch.inference_mode()
def find_boxes(cascade: Cascade, picture: Tensor) -> Tensor:
    """The boxes of the faces of a picture: levels (3, h, w), float32 in [0, 255] -> (n, 5), the most probable first."""
    proposed, refined, final = THRESHOLDS
    boxes = _squared(_proposals(cascade.proposal, picture, proposed))
    boxes, shifts = _judged(cascade.refining, picture, boxes, 24, refined)
    kept = nms(boxes[:, :4], boxes[:, 4], OVERLAP)
    boxes, shifts = _judged(cascade.output, picture, _squared(_moved(boxes[kept], shifts[kept], 1.0)), 48, final)
    return _thinned_within(_moved(boxes, shifts, 1.0))


def _proposals(network: Callable[[Tensor], tuple[Tensor, Tensor]], picture: Tensor, threshold: float) -> Tensor:
    """Boxes wherever the first network sees a face, in every size of the picture in which the smallest face fits."""
    height, width = picture.shape[1:]
    found, moves = [picture.new_empty(0, 5)], [picture.new_empty(0, 4)]
    scale = CELL_PX / SMALLEST_FACE_PX
    while min(height, width) * scale >= CELL_PX:
        small = adaptive_avg_pool2d(picture, (int(height * scale + 1), int(width * scale + 1)))
        probability, shifts = (one[0] for one in network(_normalised(small[None])))
        rows, columns = (probability >= threshold).nonzero(as_tuple=True)
        first = torch.stack([columns, rows], dim=1) * STRIDE_PX
        edges = torch.cat([first + 1, first + CELL_PX], dim=1).float().div(scale).floor()
        boxes = torch.cat([edges, probability[rows, columns, None]], dim=1)
        kept = nms(edges, boxes[:, 4], OVERLAP_AT_A_SIZE)
        found.append(boxes[kept])
        moves.append(shifts[:, rows, columns].T[kept])
        scale *= SHRINK
    boxes, shifts = torch.cat(found), torch.cat(moves)
    kept = nms(boxes[:, :4], boxes[:, 4], OVERLAP)
    return _moved(boxes[kept], shifts[kept], 0.0)


def _judged(
    network: Callable[[Tensor], tuple[Tensor, Tensor]], picture: Tensor, boxes: Tensor, side: int, threshold: float
) -> tuple[Tensor, Tensor]:
    """The boxes in which a network sees a face, with its probability, and how it would move their edges."""
    crops = {
        at: crop
        for at, edges in enumerate(boxes[:, :4].trunc().int().tolist())
        if (crop := _cut(picture, edges)).numel()
    }
    if not crops:
        return boxes[:0], boxes[:0, :4]
    shrunk = torch.stack([adaptive_avg_pool2d(crop, (side, side)) for crop in crops.values()])
    probability, shifts = network(_normalised(shrunk))
    sure = probability > threshold
    edges = boxes[list(crops), :4]
    return torch.cat([edges, probability[:, None]], dim=1)[sure], shifts[sure]


def _cut(picture: Tensor, edges: list[int]) -> Tensor:
    """What of a box lies on the picture, (3, h, w); empty where nothing does."""
    left, top, right, bottom = edges
    return picture[:, max(top, 1) - 1 : max(bottom, 0), max(left, 1) - 1 : max(right, 0)]


def _normalised(levels: Tensor) -> Tensor:
    return (levels - 127.5) / 128.0


def _moved(boxes: Tensor, shifts: Tensor, last: float) -> Tensor:
    """Boxes with their edges moved by shares of their sides; a side is right - left + ``last``."""
    sides = boxes[:, 2:4] - boxes[:, :2] + last
    return torch.cat([boxes[:, :4] + shifts * sides.repeat(1, 2), boxes[:, 4:]], dim=1)


def _squared(boxes: Tensor) -> Tensor:
    """Boxes made square around their middle, as wide as their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    first = boxes[:, :2] + (sides - longest) / 2.0
    return torch.cat([first, first + longest, boxes[:, 4:]], dim=1)


def _thinned_within(boxes: Tensor) -> Tensor:
    """The most probable first, without those of which more than ``OVERLAP`` of either box lies in the other."""
    kept: list[list[float]] = []
    for box in boxes[boxes[:, 4].argsort(descending=True)].tolist():
        if all(_share_within(box, other) <= OVERLAP for other in kept):
            kept.append(box)
    return boxes.new_tensor(kept).reshape(-1, 5)


def _share_within(box: list[float], other: list[float]) -> float:
    """The area that two boxes share over that of the smaller one."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1.0
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1.0
    areas = [(one[2] - one[0] + 1.0) * (one[3] - one[1] + 1.0) for one in (box, other)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)
