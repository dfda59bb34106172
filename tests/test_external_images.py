"""Images from anywhere: the table, the run folder that they become, and every file that is none."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.compare import compare_run, compare_runs
from bench.errors import IncomparableError, SuiteError, UsageError
from bench.score.external_images import probe_image
from bench.score.images import MAX_PIXELS
from bench.store import load_run
from bench.suite.images_table import NOT_GIVEN, read_pairs

PROMPTS = ("a fox", 'a "quoted", cat', "ein Bär \U0001f43b \u202eדג\x07")
Row = tuple[str, ...]


def picture(seed: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    """A gradient with noise, so that it is neither black, uniform nor equal to another one."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    ramp = np.linspace(0, 160, size[0])[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8)).convert(mode)


def table(path: Path, rows: Sequence[Row], header: Row = ("image", "prompt", "variant")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Two variants, three prompts, two samples; one prompt as PNG, one as JPEG, one as WebP."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for shift, variant in enumerate(("base", "spo")):
            for sample in range(2):
                name = f"{variant}-{number}-{sample}.{('png', 'jpeg', 'webp')[number]}"
                picture(100 * number + 10 * shift + sample).save(folder / name)
                rows.append((name, prompt, variant))
    table(tmp_path / "mine.csv", rows)
    return folder


def test_they_become_a_run_folder_that_knows_what_it_does_not_know(mine: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "run"
    arguments = ("--images", mine, "--prompts", mine.with_suffix(".csv"), "-o", out, "--device", "cpu")
    answer = cli("score", *arguments, "--metrics", "saturation,blur", "--limits", "blur=0.02")
    assert (answer.code, answer.out.strip()) == (0, str(out)), answer.err
    run = load_run(out)
    suite = run.info.suite
    assert [prompt.text for prompt in suite.prompts] == list(PROMPTS)
    assert (suite.samples, [variant.name for variant in suite.variants]) == (2, ["base", "spo"])
    assert {(one.seed, one.batch, one.decode_dtype) for one in run.renders} == {(None, None, None)}
    assert (suite.settings.width, suite.settings.height, suite.settings.sampler) == (48, 40, "none")
    assert [(limit.name, limit.text) for limit in suite.limits] == [("blur", "0.02")]
    originals = {hashlib.sha256(path.read_bytes()).hexdigest() for path in mine.iterdir()}
    assert {one.sha256 for one in run.renders} == originals
    assert {Path(str(one.image)).suffix for one in run.renders} == {".png", ".jpg", ".webp"}
    values = {(one.prompt_id, one.variant, one.sample): one.value for one in run.scores if one.metric == "saturation"}
    with Image.open(mine / "spo-0-1.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    assert values[suite.prompts[0].id, "spo", 1] == pytest.approx(np.mean((high - low) / high), abs=1e-6)
    # The same command again has nothing to do; reports and comparisons work on it.
    assert "Nothing was left to do" in cli("score", *arguments, "--metrics", "saturation,blur").err
    assert cli("report", out, "-q").code == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "external, not rendered" in text
    assert "Seeds, sampler, weights | unknown" in text
    assert "Every variant started" not in text
    assert "not finished" not in text
    assert {delta.prompts for delta in compare_run(load_run(out), tags=False)} == {3}


def test_they_are_never_compared_with_a_rendered_run_but_with_their_like(mine: Path, tmp_path: Path, cli) -> None:
    from fakes import make_run

    for name in ("one", "two"):
        files = ("--images", mine, "--prompts", mine.with_suffix(".csv"), "-o", tmp_path / name)
        assert cli("score", *files, "--metrics", "saturation", "--device", "cpu", "-q").code == 0
    one, two = load_run(tmp_path / "one"), load_run(tmp_path / "two")
    assert {delta.mean for delta in compare_runs(one, two, tags=False)} == {0.0}
    rendered = make_run(tmp_path / "rendered")
    for other, command in ((rendered, "hotart-bench run"), (one, "hotart-bench score --images")):
        with pytest.raises(IncomparableError, match="source of the images") as caught:
            compare_runs(one if other is rendered else rendered, other)
        assert command in caught.value.hint
    for verb in ("render", "measure"):
        answer = cli(verb, tmp_path / "one", "--device", "cpu")
        assert answer.code == 2
        assert "its images are external" in answer.err


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_copy_that_changed_or_is_gone_is_no_success_and_the_hint_brings_it_back(how, mine, tmp_path, cli) -> None:
    out, metrics = tmp_path / "run", ("--metrics", "saturation", "--device", "cpu")
    arguments = ("--images", mine, "--prompts", mine.with_suffix(".csv"), "-o", out, *metrics)
    assert cli("score", *arguments).code == 0
    before = load_run(out).scores
    copy = next((out / "images" / "base").glob("*.png"))
    if how == "changed":
        copy.write_bytes(copy.read_bytes() + b"\0")
    else:
        copy.unlink()
    answer = cli("score", out, *metrics)
    assert (answer.code, answer.out) == (5, "")
    assert f"(images/base/{copy.name})" in answer.err
    assert "Done" not in answer.err
    assert f"next: hotart-bench score --images {mine} --prompts {mine}.csv -o {out}" in answer.err
    assert cli("score", *arguments).code == 0
    assert load_run(out).scores == before


def test_an_image_that_changed_is_copied_and_scored_again_alone(mine: Path, tmp_path: Path, cli) -> None:
    files = ("--images", mine, "--prompts", mine.with_suffix(".csv"), "-o", tmp_path / "run", "--device", "cpu")
    assert cli("score", *files, "--metrics", "contrast").code == 0
    before = load_run(tmp_path / "run")
    picture(999).save(mine / "spo-0-0.png")
    assert cli("score", *files, "--metrics", "contrast").code == 0
    after = load_run(tmp_path / "run")
    assert sum(a != b for a, b in zip(before.scores, after.scores, strict=True)) == 1
    digests = [[one.digest for one in run.info.variants] for run in (before, after)]
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


# --- images without prompts, and tables in another order ---------------------------------------


def test_images_without_prompts_are_scored_by_what_reads_none(mine: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "run"
    answer = cli("score", "--images", mine, "-o", out, "--metrics", "saturation,mini-aesthetic", "--device", "cpu")
    assert answer.code == 0, answer.err
    run = load_run(out)
    assert len(run.info.suite.prompts) == len(list(mine.iterdir())) == 12
    assert {prompt.text for prompt in run.info.suite.prompts} == {""}
    assert all(one.value is not None for one in run.scores)
    assert cli("report", out, "-q").code == 0
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "without prompts" in text
    assert "--prompts" not in text
    answer = cli("score", "--images", mine, "-o", tmp_path / "light", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "diversity" not in answer.err


@pytest.mark.parametrize("names", ["mini-clip", "saturation,ssim-to-base", "diversity", "pickscore,imagereward"])
def test_a_metric_that_needs_prompts_is_refused_by_name_without_them(names: str, mine: Path, cli) -> None:
    answer = cli("score", "--images", mine, "--metrics", names, "--device", "cpu")
    assert answer.code == 2
    for name in names.split(","):
        assert (f"{name} " in answer.err.split("cannot do")[0]) == (name != "saturation")
    assert "--prompts FILE.csv" in answer.err


def test_the_order_of_the_table_does_not_count(mine: Path, tmp_path: Path, cli) -> None:
    path = mine.with_suffix(".csv")
    head, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    first = [next(row for row in rows if row[2] == "base")]
    rng = np.random.default_rng(0)
    shuffled = [tuple(row) for row in rng.permutation([row for row in rows if row != first[0]]).tolist()]
    other = table(tmp_path / "other.csv", [tuple(first[0]), *shuffled], tuple(head))
    runs = []
    for name, rows_of in (("one", path), ("two", other)):
        files = ("--images", mine, "--prompts", rows_of, "-o", tmp_path / name)
        assert cli("score", *files, "--metrics", "saturation", "--device", "cpu", "-q").code == 0
        runs.append(load_run(tmp_path / name))
    one, two = runs
    assert one.info.protocol_digest == two.info.protocol_digest
    assert [item.digest for item in one.info.variants] == [item.digest for item in two.info.variants]
    assert set(one.scores) == set(two.scores)
    answer = cli("score", "--images", mine, "--prompts", other, "-o", tmp_path / "one", "--metrics", "saturation")
    assert "Nothing was left to do" in answer.err


def test_transparent_and_turned_images_are_named(tmp_path: Path, cli) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    picture(1).save(folder / "plain.png")
    clear = picture(2).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(3).save(folder / "turned.jpg", exif=exif)
    out = tmp_path / "run"
    assert cli("score", "--images", folder, "-o", out, "--metrics", "blur", "--device", "cpu").code == 0
    notes = " ".join(load_run(out).info.settings_notes)
    assert "1 image: transparent pixels are judged on white: clear.png." in notes
    assert "1 image: it is turned as its EXIF orientation says: turned.jpg." in notes


def test_columns_that_are_not_taken_are_named(mine: Path, tmp_path: Path, cli) -> None:
    head, *rows = csv.reader(io.StringIO(mine.with_suffix(".csv").read_text(encoding="utf-8"), newline=""))
    path = table(tmp_path / "more.csv", [(*row, "7", "x") for row in rows], (*head, "stars", "licence"))
    out = tmp_path / "run"
    assert cli("score", "--images", mine, "--prompts", path, "-o", out, "--metrics", "saturation").code == 0
    assert "Of the table these columns were not taken: licence, stars." in load_run(out).info.settings_notes


def test_a_given_image_that_changed_in_the_run_says_what_to_do_with_given_images(
    mine: Path, tmp_path: Path, cli
) -> None:
    out = tmp_path / "run"
    files = ("--images", mine, "--prompts", mine.with_suffix(".csv"), "-o", out, "--device", "cpu")
    assert cli("score", *files, "--metrics", "contrast").code == 0
    copy = next((out / "images").rglob("*.png"))
    copy.write_bytes(encoded(picture(77), "PNG"))
    cli("score", out, "--metrics", "saturation", "--device", "cpu")
    (reason,) = {one.reason for one in load_run(out).scores if one.metric == "saturation" and one.value is None}
    assert "repeat `score --images`" in str(reason)
    assert "render again" not in str(reason)


# --- files that are no images --------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def huge_png() -> bytes:
    """A PNG of 20,000 x 20,000 pixels by its header, which must not be decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def deep(mode: type[np.uint16]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 65535, (30, 30)).astype(mode))


BAD = {
    "no-image.png": (b"hello", "not a PNG, JPEG or WebP file"),
    "empty.png": (b"", "is empty"),
    "cut.png": (encoded(picture(1), "PNG")[:-400], "not a whole image"),
    "one.png": (encoded(picture(1, (1, 1)), "PNG"), "uniform|black"),
    "black.png": (encoded(Image.new("RGB", (30, 30)), "PNG"), "black image"),
    "grey.webp": (encoded(Image.new("RGB", (30, 30), (90, 90, 90)), "WEBP"), "uniform image"),
    "moving.webp": (
        encoded(picture(1), "WEBP", save_all=True, append_images=[picture(2)], duration=50),
        "animation of 2 frames",
    ),
    "moving.png": (encoded(picture(1), "PNG", save_all=True, append_images=[picture(2)]), "animation of 2 frames"),
    "gif.png": (encoded(picture(1), "GIF"), "not a PNG, JPEG or WebP file by its content"),
    "huge.png": (huge_png(), f"{MAX_PIXELS:,}"),
}
GOOD = {
    "deep.png": encoded(deep(np.uint16), "PNG"),
    "print.jpg": encoded(picture(3, mode="CMYK"), "JPEG"),
    "clear.png": encoded(picture(4, mode="RGBA"), "PNG"),
    "palette.png": encoded(picture(5, mode="P"), "PNG"),
    "wide.png": encoded(picture(6, (20_000, 12)), "PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_judged_says_why(name: str, tmp_path: Path) -> None:
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    facts = probe_image(tmp_path / name)
    assert facts.size is None
    assert any(part in str(facts.error) for part in reason.split("|")), facts.error


def test_bad_files_are_nulls_that_are_counted_and_cost_no_other_score(tmp_path: Path, cli) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    files = {name: data for name, (data, _) in BAD.items()} | GOOD
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = table(tmp_path / "all.csv", [(name, f"prompt of {name}") for name in files], ("image", "prompt"))
    out = tmp_path / "run"
    arguments = ("--images", folder, "--prompts", path, "-o", out, "--metrics", "saturation,blur,diversity")
    answer = cli("score", *arguments, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert f"{len(BAD)} of {len(files)} images failed" in answer.err
    run = load_run(out)
    good = [one for one in run.scores if one.metric == "blur" and one.value is not None]
    assert len(good) == len(GOOD)
    assert all(one.reason for one in run.scores if one.value is None)
    assert cli("report", out, "-q").code == 0
    assert f"{len(BAD)} images could not be used" in (out / "report.md").read_text(encoding="utf-8")


def test_none_that_can_be_judged_is_refused(tmp_path: Path, cli) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(b"")
    path = table(tmp_path / "t.csv", [("a.png", "a fox")], ("image", "prompt"))
    answer = cli("score", "--images", tmp_path / "mine", "--prompts", path, "-o", tmp_path / "run", "--device", "cpu")
    assert answer.code == 5
    assert "the file a.png: it is empty" in answer.err
    assert not (tmp_path / "run").exists()


def test_a_sample_that_a_variant_lacks_is_a_null(mine: Path, tmp_path: Path, cli) -> None:
    path = mine.with_suffix(".csv")
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]), encoding="utf-8")
    arguments = ("--images", mine, "--prompts", path, "-o", tmp_path / "run", "--metrics", "contrast")
    assert cli("score", *arguments, "--device", "cpu", "-q").code == 0
    run = load_run(tmp_path / "run")
    assert [one.error for one in run.renders if one.image is None] == [NOT_GIVEN]
    assert sum(one.value is not None for one in run.scores) == 11
    assert any("1 image file" in note for note in run.info.settings_notes)


def test_a_table_may_name_the_groups_and_tags_of_its_prompts(tmp_path: Path, cli) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    table = tmp_path / "t.csv"
    rows = ("image,prompt,Group,tags", "0.png,a fox,fox,Animal; faces-1", "1.png,a red fox,fox,", "2.png,a dog,,")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = ("--images", folder, "--prompts", table, "-o", tmp_path / "run", "--metrics", "contrast")
    assert cli("score", *arguments, "--device", "cpu", "-q").code == 0
    info = load_run(tmp_path / "run").info
    assert [one.group for one in info.suite.prompts] == ["fox", "fox", ""]
    assert [one.tags for one in info.suite.prompts] == [("animal", "faces-1"), (), ()]
    assert info.status == "complete"


# --- tables that will not do ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,prompt\n", "names no image"),
        ("image,promt\na.png,fox\n", "did you mean 'prompt'"),
        ("image,prompt,varient\na.png,fox,x\n", "unknown field 'varient' (did you mean 'variant'?)"),
        ("images of mine,prompt\na.png,fox\n", "there is no 'image'; needed are"),
        ("image,prompt\na.png,\n", ":2: the prompt is empty"),
        ("image,prompt\na.png,'  '\nb.png\n", ":3: has 1 columns"),
        ("image,prompt\nb.png,fox\n", "did you mean 'a.png'"),
        ("image,prompt\n../secret.png,fox\n", "lies outside"),
        ("image,prompt\na.gif,fox\n", "is not an image by its name"),
        ("image,prompt,variant\na.png,fox,a/b\n", "the variant name 'a/b'"),
        ("image,prompt\na.png,fox\na.png,dog\n", "named twice"),
        ("image,prompt,variant\na.png,fox,x\na.png,fox,X\n", "differ only in case"),
        ('image,prompt\na.png,"fox\n', "is not valid CSV"),
        ("image,prompt,variant,group\na.png,fox,x,g\na.png,fox,y,h\n", ":3: the prompt is in the group 'h' here"),
        (
            "image,prompt,variant,tags\na.png,fox,x,night\na.png,fox,y,\n",
            ":3: the prompt has the tags none here, and night at",
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for place in (folder / "a.png", tmp_path / "secret.png"):
        picture(1).save(place)
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError) as found:
        read_pairs(path, folder)
    assert sentence in str(found.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [('{"image": "a.png", "prompt": 3}', "must be a text"), ("[1]", "a line is an object"), ("{", "is not valid JSON")],
)
def test_jsonl_lines_are_checked_too(line: str, sentence: str, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    path = tmp_path / "t.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(SuiteError) as found:
        read_pairs(path, tmp_path)
    assert sentence in str(found.value)


def test_prompts_are_taken_as_they_stand(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    prompt = " " + "word " * 5000 + "\U0001f43b \u202e\x07\x1b[31m"
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"image": "a.png", "prompt": prompt}), encoding="utf-8")
    (pair,) = read_pairs(path, tmp_path)
    assert pair.prompt == prompt


@pytest.mark.parametrize("head", ["file_name;text", "Image\tPrompts", "image,caption"])
def test_a_table_may_have_the_names_and_delimiters_of_others(head: str, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    path = tmp_path / "t.csv"
    sign = next(one for one in ";\t," if one in head)
    path.write_text(f"{head}\na.png{sign}a fox\n", encoding="utf-8")
    (pair,) = read_pairs(path, tmp_path)
    assert (pair.prompt, pair.variant) == ("a fox", "images")


def test_a_prompt_of_megabytes_is_refused(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"image": "a.png", "prompt": "x" * 1_000_000}), encoding="utf-8")
    with pytest.raises(SuiteError, match="has 1,000,000 characters; at most 100,000"):
        read_pairs(path, tmp_path)


def test_other_mistakes_with_the_flags(mine: Path, tmp_path: Path, cli) -> None:
    path = mine.with_suffix(".csv")
    both = ("--images", mine, "--prompts", path)
    wrong: dict[tuple[object, ...], str] = {
        (): "RUN_OR_SUITE is missing, or --images",
        ("--prompts", path): "--images is missing",
        ("mini", *both): "stand alone",
        (*both, "--limit", "2"): "--limit goes with a suite",
        ("mini", "--limits", "blur=0.1"): "goes with --images",
        (*both, "--metrics", "blur", "--limits", "blur"): "is not NAME=LIMIT",
        (*both, "--metrics", "blur", "--limits", "contrast=0.1"): "is not scored",
        (*both, "--metrics", "contrast", "--limits", "contrast=0.1"): "only describes",
        ("--images", tmp_path / "none", "--prompts", path): "is not a folder",
    }
    for arguments, sentence in wrong.items():
        answer = cli("score", *arguments, "--device", "cpu", "-q")
        assert answer.code == 2, (arguments, answer.err)
        assert sentence in answer.err, (arguments, answer.err)
    with pytest.raises(UsageError):
        read_pairs(path, tmp_path / "none")
