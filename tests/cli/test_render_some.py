"""``render --prompt-id --tag --sample``: just those images, of the batches that hold them."""

from __future__ import annotations

import pytest

from bench.cli.render import wanted_images
from bench.store import load_run
from bench.suite import load_suite


def test_one_image_is_drawn_in_its_batch_and_the_rest_later(cli, tiny_run, tmp_path):
    whole = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in load_run(tiny_run.folder).renders}
    folder = tmp_path / "run"
    flags = ["--prompt-id", "dunes", "--sample", "1", "--device", "cpu"]
    some = cli("render", tiny_run.suite_file, "-o", folder, *flags, "--variants", "base")
    assert some.code == 0, some.err
    assert "5 images still to render" in some.err
    found = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in load_run(folder).renders}
    assert found == {("base", "dunes", 1): whole["base", "dunes", 1]}
    assert "Nothing was left to do" in cli("render", folder, *flags, "--variants", "base").err
    told = cli("render", folder, "--tag", "landscape", "--dry-run", "--device", "cpu").err
    assert (
        "2 variants x 4 images: 8 images, 7 of them to draw (1 done already), with the rest of their batches 8" in told
    )
    rest = cli("render", folder, "--device", "cpu", "--variants", "base")
    assert rest.code == 0, rest.err
    found = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in load_run(folder).renders}
    assert found == {key: value for key, value in whole.items() if key[0] == "base"}


def test_flags_add_prompts_and_choose_samples(tiny_run):
    suite = load_suite(str(tiny_run.suite_file))
    assert wanted_images(suite, [], [], []) is None
    assert wanted_images(suite, ["woman"], [], []) == {("woman", 0), ("woman", 1)}
    assert wanted_images(suite, ["woman"], ["landscape"], [1]) == {("woman", 1), ("tent", 1), ("dunes", 1)}
    assert wanted_images(suite, [], [], [0]) == {("woman", 0), ("tent", 0), ("dunes", 0)}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt-id", "tend"], "did you mean 'tent'?"),
        (["--prompt-id", "x" * 300], "is none of the suite's 3 prompts"),
        (["--tag", "portraits"], "'portraits' is not one of landscape, portrait (did you mean 'portrait'?)"),
        (["--prompt-id", "tent", "--sample", "2"], "there is no sample 2; the suite has 0 to 1"),
        (["--sample", "-1"], "there is no sample -1"),
    ],
)
def test_what_the_suite_has_not_is_refused_with_where_to_look(cli, tiny_run, stages, flags, said):
    answer = cli("render", tiny_run.folder, *flags)
    assert answer.code == 2
    assert said in answer.err
    assert "--sample" in flags or "--ids" in answer.err
    assert stages.calls == []


def test_the_flags_arrive(cli, stages, home):
    assert cli("render", "own.toml", "--sample", "1").code == 0
    assert len(stages.calls[0]["only"]) == 2
    assert cli("render", "own.toml").code == 0
    assert stages.calls[1]["only"] is None


def test_list_prompts_shows_ids_and_tags(cli, tiny_run):
    answer = cli("list", "prompts", tiny_run.suite_file.with_name("tiny.jsonl"), "--ids")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()[2:]] == ["tent", "dunes", "woman"]
    assert "landscape" in answer.out
