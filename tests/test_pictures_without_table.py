"""Pictures of other programs through score, report, compare and gate, as a person would bring them: without a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_pictures import a1111, drawn, encoded, infotext, png, write

from bench.store import load_run
from bench.suite.images_table import NOT_GIVEN

HOSTILE = 'a fox <script>alert(1)</script> & "quotes" | `code` [x](http://example.org) \u202e'
FLAGS = ("--metrics", "saturation,blur,mini-clip", "--device", "cpu")


def bring(folder: Path, *models: str, prompts: int = 10, mixed: bool = False) -> Path:
    """Pictures of the same prompts and seeds by several models, in a folder each or in one."""
    for shift, model in enumerate(models):
        for number in range(prompts):
            prompt = HOSTILE if number == 0 else f"{number} red circles"
            for seed in (11, 12):
                name = f"{100 * shift + 2 * number + seed:05}-{seed}.png"
                place = folder / "2024-05-01" if mixed else folder / model
                marked = f"{model} <script>alert(2)</script>" if not mixed else model
                text = infotext(prompt, model=model, Seed=seed, Model=marked)
                write(place / name, a1111(1000 * shift + 10 * number + seed, text))
    return folder


def test_two_folders_through_score_report_compare_and_gate(tmp_path: Path, cli) -> None:
    folder, out = bring(tmp_path / "mine", "new", "old"), tmp_path / "run"
    write(folder / "old" / "odd.png", a1111(77, infotext("a whale", model="old", Seed=11)))
    arguments = ("--images", folder, "--variants", "old,new", "-o", out, *FLAGS)
    answer = cli("score", *arguments, "--limits", "blur=0.5")
    assert (answer.code, answer.out.strip()) == (0, str(out)), answer.err
    assert "20 pictures of each of old and new, paired by what they say" in answer.err
    assert "1 picture left out, of old, without a partner in new: none has this prompt: old/odd.png" in answer.err
    run = load_run(out)
    assert [one.name for one in run.info.suite.variants] == ["old", "new"]
    assert {one.negative for one in run.info.suite.prompts} == {"blurry"}
    assert all(one.value is not None for one in run.scores)
    assert "The pictures say of their settings: A1111, sampler DPM++ 2M" in " ".join(run.info.settings_notes)
    assert "Nothing was left to do" in cli("score", *arguments).err
    assert cli("report", out, "-q").code == 0
    page, text = ((out / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert "<script>alert" not in page
    assert "<script>alert" not in text
    assert "as the images say: A1111, sampler DPM++ 2M, schedule Karras, steps 20, CFG 7" in text
    assert "--variants old,new" in text
    compared = cli("compare", out, "--format", "json")
    assert compared.code == 0
    limits = ("--limits", "blur=0.5")
    assert cli("score", *arguments, *limits).code == 0
    answer = cli("gate", out, "--reference", "old", "--candidate", "new")
    assert answer.code == 0, answer.err
    assert json.loads((out / "gate.json").read_text("utf-8"))["outcome"] == "pass"


def test_the_sequence_of_the_documents_ends_in_a_verdict(home: Path, cli) -> None:
    bring(home / "pictures", "new", "old")
    limits = ("--limits", "blur=0.1sd", "--device", "cpu", "-q")
    scored = ("score", "--images", "pictures", "--variants", "old,new", "--metrics", "blur")
    assert cli(*scored, *limits, "-o", "reports/runs/mine").code == 0
    assert cli("report", "reports/runs/mine", "-q").code == 0
    assert cli("compare", "reports/runs/mine").code == 0
    answer = cli("gate", "reports/runs/mine", "--reference", "old", "--candidate", "new")
    written = json.loads(Path("reports/runs/mine/gate.json").read_text("utf-8"))
    assert answer.code == {"pass": 0, "inconclusive": 5, "fail": 1}[written["outcome"]], answer.err


def test_a_gate_on_pictures_without_limits_names_the_option_that_gives_them(tmp_path: Path, cli) -> None:
    folder, out = bring(tmp_path / "mine", "new", "old", prompts=2), tmp_path / "run"
    assert cli("score", "--images", folder, "-o", out, "--metrics", "blur", "--device", "cpu", "-q").code == 0
    answer = cli("gate", out, "--reference", "old", "--candidate", "new")
    assert answer.code == 2
    assert "scored without limits" in answer.err
    assert "next: hotart-bench score --images DIR --limits NAME=LIMIT, such as blur=0.1sd" in answer.err


def test_pictures_of_two_variants_with_equal_pixels_are_counted(tmp_path: Path, cli) -> None:
    for model in ("new", "old"):
        for seed in range(3):
            other = 100 * (seed == 2 and model == "old")
            picture = a1111(seed + other, infotext("a fox", model=model, Seed=seed))
            write(tmp_path / "mine" / model / f"{seed}.png", picture)
    out = tmp_path / "run"
    answer = cli("score", "--images", tmp_path / "mine", "-o", out, "--metrics", "blur", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "2 images of several variants with equal pixels, so that nothing differs there: a-fox-" in answer.err
    assert cli("report", out, "-q").code == 0
    assert "2 images of several variants with equal pixels" in (out / "report.md").read_text("utf-8")


def test_a_folder_without_pictures_is_told_what_to_do_and_has_no_file_to_correct(tmp_path: Path, cli) -> None:
    (tmp_path / "empty").mkdir()
    answer = cli("score", "--images", tmp_path / "empty", "-o", tmp_path / "run", *FLAGS)
    assert answer.code == 2
    assert "Correct the file" not in answer.err
    assert "next: hotart-bench score --images DIR, with a folder that holds pictures" in answer.err


def test_one_picture_is_told_of_as_one(tmp_path: Path, cli) -> None:
    write(tmp_path / "mine" / "1.png", a1111(1, infotext("a fox")))
    drawn(2).save(tmp_path / "mine" / "2.png")
    answer = cli("score", "--images", tmp_path / "mine", "-o", tmp_path / "run", "--metrics", "blur", "--device", "cpu")
    assert "Done: 1 image, 1 score, 0 timings" in answer.err
    assert "1 picture left out, the prompt cannot be told" in answer.err


def test_one_mixed_folder_is_told_apart_by_the_model(tmp_path: Path, cli) -> None:
    folder, out = bring(tmp_path / "mine", "alpha", "beta", mixed=True), tmp_path / "run"
    answer = cli("score", "--images", folder, "-o", out, *FLAGS)
    assert answer.code == 0, answer.err
    run = load_run(out)
    assert [one.name for one in run.info.suite.variants] == ["alpha", "beta"]
    assert len(run.renders) == 40
    by_key = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    assert len(set(by_key.values())) == 40


def test_prompts_with_fewer_seeds_than_others_leave_holes_on_both_sides(tmp_path: Path, cli) -> None:
    folder, out = bring(tmp_path / "mine", "alpha", "beta"), tmp_path / "run"
    for name in ("alpha", "beta"):
        write(folder / name / "x.png", a1111(500 + (name == "beta"), infotext("a whale", model=name, Seed=3)))
    answer = cli("score", "--images", folder, "-o", out, *FLAGS, "--limits", "blur=0.5")
    assert answer.code == 0, answer.err
    assert "have fewer images than the one with most: in all 2 images fewer." in answer.err
    assert cli("report", out, "-q").code == 0
    run = load_run(out)
    assert [one.error for one in run.renders if one.image is None] == [NOT_GIVEN] * 2
    answer = cli("gate", out, "--reference", "alpha", "--candidate", "beta")
    assert answer.code == 0, answer.err


def test_folders_with_nothing_in_common_end_with_4(tmp_path: Path, cli) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        write(tmp_path / "mine" / name / "1.png", a1111(seed, infotext("a fox", model=name, Seed=seed)))
    answer = cli("score", "--images", tmp_path / "mine", "-o", tmp_path / "run", *FLAGS)
    assert answer.code == 4
    assert "have no picture in common" in answer.err
    assert not (tmp_path / "run").exists()


def test_pictures_that_say_nothing_stand_alone_as_before_and_it_is_said(tmp_path: Path, cli) -> None:
    for number in range(3):
        write(tmp_path / "mine" / f"{number}.png", encoded(number))
    answer = cli("score", "--images", tmp_path / "mine", "-o", tmp_path / "run", "--metrics", "blur", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "no picture says what it was made of, so each stands alone" in answer.err
    assert len(load_run(tmp_path / "run").info.suite.prompts) == 3
    answer = cli("score", "--images", tmp_path / "mine", "--variants", "a,b", "-o", tmp_path / "no", *FLAGS)
    assert answer.code == 2
    write(tmp_path / "more" / "a" / "1.png", encoded(1))
    answer = cli("score", "--images", tmp_path / "more", "-o", tmp_path / "no", *FLAGS)
    assert answer.code == 2
    assert "no picture in its folders says what it was made of" in answer.err


def test_metrics_that_need_prompts_take_those_of_the_pictures(tmp_path: Path, cli) -> None:
    write(tmp_path / "mine" / "1.png", a1111(1, infotext("two red circles")))
    out = tmp_path / "run"
    arguments = ("--images", tmp_path / "mine", "-o", out, "--metrics", "mini-clip", "--device", "cpu")
    assert cli("score", *arguments).code == 0
    assert [prompt.text for prompt in load_run(out).info.suite.prompts] == ["two red circles"]
    answer = cli("score", "--images", tmp_path / "mine", "--metrics", "blurr", "--device", "cpu")
    assert answer.code == 2
    assert "did you mean 'blur'" in answer.err


def test_metrics_are_given_the_words_without_weights_and_tags(tmp_path: Path, cli) -> None:
    values = {}
    for name, prompt in (
        ("bare", "two red circles"),
        ("typed", "two (red:1.2) circles <lora:glow:0.5>"),
        ("kept", "x (red"),
    ):
        write(tmp_path / name / "1.png", a1111(1, infotext(prompt)))
        out = tmp_path / f"run-{name}"
        flags = ("-o", out, "--metrics", "mini-clip", "--device", "cpu", "-q")
        assert cli("score", "--images", tmp_path / name, *flags).code == 0
        run = load_run(out)
        assert run.info.suite.settings.prompt_syntax == "a1111"
        values[name] = run.scores[0].value
    assert values["bare"] == values["typed"] is not None
    assert [one.text for one in load_run(tmp_path / "run-typed").info.suite.prompts] == ["two (red:1.2) circles"]


def test_runs_of_other_settings_are_not_compared(tmp_path: Path, cli) -> None:
    for name, cfg in (("low", 5), ("high", 7)):
        write(tmp_path / name / "1.png", a1111(cfg, infotext("a fox", CFG_scale=cfg)))
        out = ("-o", tmp_path / f"run-{name}", "--metrics", "blur", "--device", "cpu")
        assert cli("score", "--images", tmp_path / name, *out).code == 0
    answer = cli("compare", tmp_path / "run-low", tmp_path / "run-high")
    assert answer.code == 4
    assert "settings.guidance_scale is 5.0" in answer.err


# inspect.


def test_inspect_shows_what_a_picture_says(tmp_path: Path, cli) -> None:
    path = write(tmp_path / "1.png", a1111(1, infotext("a fox <lora:glow:0.5:1>", Seed=77, Generator="x\x1b[31m")))
    answer = cli("inspect", path)
    assert answer.code == 0, answer.err
    for words in ("A1111 v1.6.0", "a fox <lora:glow:0.5:1>", "77", "DPM++ 2M (here: dpmpp_2m)", "0.5 text, 1 UNet"):
        assert words in answer.out, words
    assert "\x1b" not in answer.out
    found = json.loads(cli("inspect", path, "--json").out)
    assert (found["program"], found["seed"], found["size"]) == ("A1111", 77, [48, 48])


def test_inspect_says_why_nothing_can_be_told_and_refuses_what_is_for_weights(tmp_path: Path, cli) -> None:
    drawn(1).save(tmp_path / "1.webp")
    answer = cli("inspect", tmp_path / "1.webp")
    assert answer.code == 0
    assert "carries no text of a program that is known" in answer.out
    answer = cli("inspect", tmp_path / "1.webp", "--weight", "0.5")
    assert answer.code == 2
    assert "is a picture" in answer.err
    answer = cli("inspect", tmp_path / "none.png")
    assert answer.code == 2
    assert "cannot be read" in answer.err


@pytest.mark.parametrize(
    "text", ["x" * 9_000_000, infotext("a fox") + "\n" * 1_000_000, '{"sui_image_params": ' + "[" * 99_999]
)
def test_metadata_of_megabytes_is_no_trouble(text: str, tmp_path: Path, cli) -> None:
    write(tmp_path / "mine" / "1.png", png({"parameters": text}))
    write(tmp_path / "mine" / "2.png", a1111(2, infotext("a fox")))
    answer = cli("score", "--images", tmp_path / "mine", "-o", tmp_path / "run", "--metrics", "blur", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert cli("inspect", tmp_path / "mine" / "1.png").code == 0
