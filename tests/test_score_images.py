"""Images that cannot be judged: nulls with the reason, until the image or its partner is there again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake_metrics import ALL, FakeMetrics, Values, journal_lines, nulls, put_image, rendered, values
from fakes import png_bytes
from PIL import Image

from bench.score import score
from bench.store import RunFolder

VICTIM = ("dpo", "case-002", 1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The values of an undisturbed run."""
    with rendered(tmp_path_factory.mktemp("good")) as folder:
        score(folder, registry=FakeMetrics().registry)
        return values(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (None, "image file images/dpo/case-002-1.png is missing; restore it or render again"),
        (b"", "image file images/dpo/case-002-1.png changed since it was rendered"),
        (png_bytes("x", "y", 0, 3), "image file images/dpo/case-002-1.png changed since it was rendered"),
    ],
)
def test_a_file_that_is_not_the_one_rendered_is_not_scored_until_it_is_back(
    tmp_path: Path, expected: Values, damage: bytes | None, reason: str
) -> None:
    with rendered(tmp_path) as folder:
        path = folder.image_path(*VICTIM)
        original = path.read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage)
        score(folder, registry=FakeMetrics().registry)
        found = [item for item in folder.scores() if (item.variant, item.prompt_id, item.sample) == VICTIM]
        assert len(found) == len(ALL)
        assert all(item.value is None and str(item.reason).startswith(reason) for item in found)
        path.write_bytes(original)
        assert score(folder, registry=FakeMetrics().registry) == len(ALL)
        assert values(folder) == expected


def test_a_reference_file_that_is_gone_says_so_where_it_is_compared(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("ssim-to-base",)) as folder:
        folder.image_path("base", "case-002", 1).unlink()
        score(folder, registry=FakeMetrics().registry)
        reasons = nulls(folder, "ssim-to-base")
        assert reasons["base", "case-002", 1] == "is the reference"
        assert str(reasons[VICTIM]).startswith("reference: image file images/base/case-002-1.png is missing")
        assert len(reasons) == 10 + 2


def test_a_rendered_file_that_is_no_image_is_a_null(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        put_image(folder, VICTIM, b"not a PNG")
        score(folder, registry=FakeMetrics().registry)
        for name in ALL:
            assert str(nulls(folder, name)[VICTIM]).startswith("it is not a PNG, JPEG or WebP file")


def test_grey_palette_and_transparent_images_are_converted(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        for sample, mode in enumerate(("L", "P")):
            path = tmp_path / f"{mode}.png"
            with Image.open(folder.image_path("spo", "case-001", sample)) as image:
                image.convert(mode).save(path)
            put_image(folder, ("spo", "case-001", sample), path.read_bytes())
        score(folder, registry=FakeMetrics().registry)
        assert all(found is not None for key, found in values(folder).items() if key[3] != "ssim-to-base")
        assert values(folder)["spo", "case-001", 0, "saturation"] == 0.0


def test_an_image_that_was_not_rendered_is_a_null_until_it_is(tmp_path: Path, expected: Values) -> None:
    with rendered(tmp_path) as folder:
        png = folder.image_path("base", "case-001", 0).read_bytes()
        put_image(folder, ("base", "case-001", 0), None, error="The image is black.")
        score(folder, registry=FakeMetrics().registry)
        for name in ALL:
            assert nulls(folder, name)["base", "case-001", 0] == "not rendered: The image is black."
        gone = "the reference was not rendered: The image is black."
        assert nulls(folder, "ssim-to-base")["spo", "case-001", 0] == gone
        lines = journal_lines(folder)
        assert score(folder, registry=FakeMetrics().registry) == 0
        assert journal_lines(folder) == lines
        put_image(folder, ("base", "case-001", 0), png)
        assert score(folder, registry=FakeMetrics().registry) == len(ALL) + 2
        assert values(folder) == expected


def test_equal_images_of_two_prompts_are_nulls_until_one_is_rendered_anew(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("contrast", "alignment", "ssim-to-base")) as folder:
        twin = folder.image_path("dpo", "case-004", 0).read_bytes()
        own = folder.image_path(*VICTIM).read_bytes()
        put_image(folder, VICTIM, twin)
        score(folder, registry=FakeMetrics().registry)
        for name in ("contrast", "alignment", "ssim-to-base"):
            reasons = nulls(folder, name)
            expected = "duplicate image: the same as prompt 'case-004', sample 0, of this variant"
            assert reasons[VICTIM] == expected
            assert "'case-002', sample 1" in str(reasons["dpo", "case-004", 0])
        assert score(folder, registry=FakeMetrics().registry) == 0
        put_image(folder, VICTIM, own)
        assert score(folder, registry=FakeMetrics().registry) == 2 * 3
        assert nulls(folder, "contrast") == {}


def test_a_variant_alone_has_no_reference_to_be_compared_with(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("contrast", "ssim-to-base")) as folder:
        journal = tmp_path / "renders.jsonl"
        kept = [item for item in folder.renders() if item.variant == "spo"]
        journal.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in kept))
    with RunFolder.reopen(tmp_path) as folder:  # an open folder keeps what it read
        assert score(folder, registry=FakeMetrics().registry) == 20
        (reason,) = set(nulls(folder, "ssim-to-base").values())
        assert reason == "the reference variant has no image of this prompt and sample"
        assert nulls(folder, "contrast") == {}
