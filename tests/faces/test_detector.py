"""The detector against facenet-pytorch's own results, and its cascade on drawn portraits whose boxes are known."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from face_pictures import PICTURES, SIDE_PX, drawn, four_faces, photo, photo_of, scenes, true_boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from make_golden import CROPS, crops
from PIL import Image
from torchvision.ops import box_iou

from bench.errors import WeightsError
from bench.faces.boxes import SEARCHED_PX, SMALLEST_FACE_PX, searched_size
from bench.faces.convert import main as convert
from bench.faces.detector import WEIGHTS, Cascade, find_boxes, find_faces, load_cascade
from bench.metrics import NoScoreError
from bench.records import Face

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))
"""Of facenet-pytorch 2.6.0; ``make_golden.py`` writes it."""


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    torch.set_num_threads(1)
    return load_cascade()


def levels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()


def edges(face: Face) -> tuple[float, float, float, float]:
    return face.x1, face.y1, face.x2, face.y2


# --- against facenet-pytorch -----------------------------------------------------------------


@pytest.mark.parametrize("name", CROPS)
def test_each_network_gives_what_facenet_pytorch_gives(cascade: Cascade, name: str) -> None:
    probability, shifts = getattr(cascade, name)(crops(CROPS[name][1]))
    assert probability.flatten().tolist() == pytest.approx(GOLDEN[name]["probability"], abs=1e-5)
    assert shifts.reshape(4, 4).numpy() == pytest.approx(np.array(GOLDEN[name]["edges"]), abs=1e-5)


@pytest.mark.parametrize("name", PICTURES)
def test_boxes_are_those_of_facenet_pytorch(cascade: Cascade, name: str) -> None:
    picture = PICTURES[name]().convert("RGB")
    shrunk = picture.resize(searched_size(*picture.size), Image.Resampling.BILINEAR)
    found = find_boxes(cascade, levels(shrunk)).numpy()
    wanted = np.array(GOLDEN["boxes"][name]).reshape(-1, 5)
    assert len(found) == len(wanted)
    for row in wanted:  # in any order: two faces may be equally probable but for the last digits
        assert np.abs(found - row).max(axis=1).min() < 2e-3


def test_faces_are_given_in_pixels_of_the_whole_picture_the_largest_first_and_clipped(cascade: Cascade) -> None:
    found = find_faces(cascade, four_faces())
    across, down = 900 / SEARCHED_PX, 600 / 427
    wanted = [
        (max(0.0, (x1 - 1) * across), (y1 - 1) * down, x2 * across, y2 * down)
        for x1, y1, x2, y2, _ in GOLDEN["boxes"]["four faces"]
    ]
    wanted.sort(key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
    assert [edges(face) for face in found] == [pytest.approx(box, abs=0.05) for box in wanted]
    assert sum(face.x1 == 0.0 for face in found) == 1


# --- pictures of every kind ------------------------------------------------------------------


def test_a_picture_gives_the_same_bits_alone_and_after_others(cascade: Cascade) -> None:
    first = find_faces(cascade, photo())
    find_faces(cascade, four_faces())
    assert find_faces(cascade, photo()) == first


def test_opaque_alpha_and_grey_change_only_what_colour_changes(cascade: Cascade) -> None:
    (plain,) = find_faces(cascade, photo())
    opaque = photo().convert("RGBA")
    opaque.putalpha(255)
    assert find_faces(cascade, opaque) == (plain,)
    (grey,) = find_faces(cascade, photo().convert("L"))
    assert edges(grey) == pytest.approx(edges(plain), abs=6)


@pytest.mark.parametrize("size", [(127, 500), (500, 100), (1, 1)])
def test_a_picture_under_128_pixels_is_not_searched(cascade: Cascade, size: tuple[int, int]) -> None:
    with pytest.raises(NoScoreError, match=f"the image is {size[0]} x {size[1]} pixels; faces .* 128"):
        find_faces(cascade, Image.new("RGB", size))


def test_a_picture_too_long_for_a_face_is_not_searched(cascade: Cascade) -> None:
    with pytest.raises(NoScoreError, match="searched as 640 x 20; no face of 30 pixels"):
        find_faces(cascade, Image.new("RGB", (4096, 128)))


def test_the_smallest_face_is_found_and_a_smaller_one_is_not(cascade: Cascade) -> None:
    """The face takes 0.4 of the photograph's width; beside it everything is grey."""

    def faces_at(face_px: int) -> int:
        canvas = Image.new("RGB", (640, 640), (120, 120, 120))
        canvas.paste(photo_of(round(face_px / 0.4)), (200, 200))
        return len(find_faces(cascade, canvas))

    assert faces_at(2 * SMALLEST_FACE_PX) == 1
    assert faces_at(SMALLEST_FACE_PX // 2) == 0


# --- the cascade, on drawn portraits whose boxes are known -----------------------------------


def places(side_px: int) -> torch.Tensor:
    """A picture whose red is where a pixel is from the left, and whose green from the top, (3, side, side)."""
    ramp = (torch.arange(side_px) + 0.5) * 255.0 / side_px
    return torch.stack(
        [ramp.expand(side_px, side_px), ramp[:, None].expand(side_px, side_px), torch.zeros(side_px, side_px)]
    )


def knowing_networks(boxes: torch.Tensor, side_px: int) -> SimpleNamespace:
    """Networks that know the boxes (n, 4): they read off ``places`` which crop they see, and say how to move its edges.

    A crop is the more probable a face the more area it shares with the square around one.
    """
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    squares = torch.cat([middle - half, middle + half], dim=1)

    def judge(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        levels, side = (crops * 128.0 + 127.5) * side_px / 255.0, crops.shape[-1]
        ends = [(levels[:, 0, 0, 0], levels[:, 0, 0, -1]), (levels[:, 1, 0, 0], levels[:, 1, -1, 0])]
        sizes = [(last - first) * side / (side - 1) for first, last in ends]
        starts = [first - size / side / 2 for (first, _), size in zip(ends, sizes, strict=True)]
        seen = torch.stack([*starts, *(start + size for start, size in zip(starts, sizes, strict=True))], dim=1)
        shared, nearest = box_iou(seen, squares).max(dim=1)
        return 0.5 + shared / 2, (boxes[nearest] - seen) / torch.stack([*sizes, *sizes], dim=1)

    def propose(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows = pixels[0].unfold(1, 12, 2).unfold(2, 12, 2)
        rows, columns = windows.shape[1:3]
        probability, shifts = judge(windows.permute(1, 2, 0, 3, 4).reshape(-1, 3, 12, 12))
        return probability.view(1, rows, columns), shifts.T.reshape(1, 4, rows, columns)

    return SimpleNamespace(proposal=propose, refining=judge, output=judge)


def boxes_with(boxes: torch.Tensor, side_px: int) -> torch.Tensor:
    """What the cascade makes of networks that know the boxes, from the left, in pixels from 0."""
    found = find_boxes(knowing_networks(boxes, side_px), places(side_px))
    return found[found[:, 0].argsort(), :4] - torch.tensor([1.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("seed", [0, 1])
def test_with_networks_that_know_where_the_drawn_face_is_one_box_comes_out_and_is_on_it(seed: int) -> None:
    """Pyramid, moving, squaring, cropping and thinning, with the known boxes in place of what the networks say."""
    for true in true_boxes(scenes(2, seed)) * SEARCHED_PX / SIDE_PX:
        (found,) = boxes_with(true[None], SEARCHED_PX)
        assert found.tolist() == pytest.approx(true.tolist(), abs=2.0)


def test_several_known_faces_of_all_sizes_are_a_box_each() -> None:
    boxes = torch.tensor([[5.0, 9.0, 36.0, 47.0], [60, 300, 130, 390], [140, 20, 480, 460], [400, 480, 490, 600]])
    assert boxes_with(boxes, SEARCHED_PX).numpy() == pytest.approx(boxes.numpy(), abs=2.5)


@settings(max_examples=10, deadline=None)
@given(st.floats(40, 150), st.floats(0, 1), st.floats(0, 1), st.floats(0.75, 1.25))
def test_a_known_face_anywhere_is_one_box(width: float, x: float, y: float, shape: float) -> None:
    height = width / shape
    free = 256 - 1.3 * max(width, height)  # crops that leave the picture are cut, which these networks do not see
    left, top = (0.15 * max(width, height) + free * share for share in (x, y))
    box = torch.tensor([[left, top, left + width, top + height]])
    found = boxes_with(box, 256)
    assert len(found) == 1
    assert found.numpy() == pytest.approx(box.numpy(), abs=2.5)


def test_networks_that_see_nothing_give_no_box() -> None:
    nowhere = torch.tensor([[-900.0, -900.0, -800.0, -800.0]])
    assert boxes_with(nowhere, 200).shape == (0, 4)


def test_the_drawn_face_that_is_found_is_where_it_was_drawn(cascade: Cascade) -> None:
    """MTCNN takes few of the world's flat faces for faces; where it does, the box is on the face."""
    (found,) = find_faces(cascade, drawn(7))
    shared = box_iou(torch.tensor([edges(found)]), true_boxes(scenes(8))[7:8])
    assert float(shared) > 0.7


# --- the weight file -------------------------------------------------------------------------


def test_a_damaged_or_missing_weight_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    data = bytearray(WEIGHTS.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mtcnn.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match=r"mtcnn.safetensors: is damaged: its sha256 is"):
        load_cascade(tmp_path / "mtcnn.safetensors")
    with pytest.raises(WeightsError, match="missing"):
        load_cascade(tmp_path / "none.safetensors")


def test_another_wheel_is_not_converted(tmp_path: Path) -> None:
    before = WEIGHTS.read_bytes()
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("facenet_pytorch/data/pnet.pt", b"other weights")
    with pytest.raises(WeightsError, match=r"w\.whl: pnet\.pt has sha256"):
        convert(str(tmp_path / "w.whl"))
    assert WEIGHTS.read_bytes() == before
