"""Set metrics through ``score``: what is recorded, when it is done again, and what has no number."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from fake_metrics import facts, put_image
from fake_sets import SETS, embedding, fakes, folder_of, odd, set_facts
from fakes import png_bytes

from bench.errors import UsageError
from bench.metrics import Encoder, SetInputs, metric, registry_of, set_metric
from bench.records import Run, SetScore
from bench.score import missing_scores, score
from bench.score.plan import set_notes
from bench.soundness import is_finished
from bench.store import RunFolder, load_run

Key = tuple[str, str | None, str | None, str]


def found(folder: RunFolder) -> dict[Key, SetScore]:
    return {(one.variant, one.prompt_id, one.tag, one.metric): one for one in folder.set_scores()}


def test_each_number_is_that_of_the_embeddings_of_its_images(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=4, samples=3) as folder:
        assert score(folder, registry=fake.registry) == len(folder.set_scores())
        rows = {
            (variant, f"case-{place:03d}"): np.stack(
                [embedding(fake, folder, (variant, f"case-{place:03d}", sample)) for sample in range(3)]
            )
            for variant in ("base", "dpo", "spo")
            for place in range(4)
        }
        scores = found(folder)
        for (variant, prompt), own in rows.items():
            weights = np.linalg.svd(own / math.sqrt(3), compute_uv=False) ** 2
            weights = weights[weights > 1e-9]
            value = scores[variant, prompt, None, "vendi"].value
            assert value == pytest.approx(-float(weights @ np.log(weights)), abs=1e-5)
            if variant != "base":
                drift = scores[variant, prompt, None, "drift"]
                base = rows["base", prompt]
                assert drift.value == pytest.approx(1 - np.mean(np.sum(own * base, axis=1)), abs=1e-5)
                assert drift.scale == pytest.approx(1 - (np.sum(base @ base.T) - 3) / 6, abs=1e-5)
        assert ("base", "case-000", None, "drift") not in scores
        whole = scores["spo", None, None, "kid"]
        assert (whole.prompts, whole.images) == (4, 12)
        assert whole.interval is not None
        assert len(scores["spo", None, None, "vendi-tag"].without) == 4


def test_an_image_is_embedded_once_for_all_metrics_and_set_metrics_on_its_encoder(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("alignment", "beauty", *SETS), prompts=3, samples=2) as folder:
        score(folder, registry=fake.registry)
        assert fake.loads == ["conv"]
        assert len(fake.images) == len(folder.renders()) == 3 * 3 * 2
        assert score(folder, registry=fake.registry) == 0
        assert fake.loads == ["conv"]  # nothing was missing, so nothing was loaded


def test_an_image_rendered_anew_has_only_the_sets_with_it_scored_again(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=4, samples=2) as folder:
        score(folder, registry=fake.registry)
        before = found(folder)
        put_image(folder, ("dpo", "case-001", 1), png_bytes("dpo", "other", 7, 7))
        fake.images.clear()
        tags = folder.run().info.suite.prompts[1].tags
        # vendi and drift of the prompt; vendi-tag and kid of all prompts and of its tags
        assert missing_scores(folder, SETS, registry=fake.registry) == 2 + 2 * (1 + len(tags))
        assert score(folder, registry=fake.registry) == 2 + 2 * (1 + len(tags))
        changed = {key for key, one in found(folder).items() if one != before[key]}
        assert {key[0] for key in changed} == {"dpo"}
        assert {key[1] for key in changed} == {"case-001", None}
        assert len(fake.images) == 2 * 4 * 2  # dpo's and the reference's


def test_a_changed_image_of_the_reference_changes_every_distance_from_it(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("drift",), prompts=3, samples=2) as folder:
        score(folder, registry=fake.registry)
        put_image(folder, ("base", "case-002", 0), png_bytes("base", "other", 7, 7))
        assert score(folder, registry=fake.registry) == 2


def test_another_version_is_scored_again(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("vendi",), prompts=2, samples=2) as folder:
        score(folder, registry=fake.registry)
        newer = msgspec.structs.replace(fake.registry.set_metrics["vendi"].facts, version="2")
        again = registry_of(set_metric(newer, over="prompt")(lambda inputs: 1.0), *fake.encoders)
        assert score(folder, registry=again) == 6
        assert {one.version for one in folder.set_scores()} == {"2"}


def test_a_missing_image_loses_its_sample_on_every_side(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=3, samples=3) as folder:
        put_image(folder, ("spo", "case-001", 2), None)
        score(folder, registry=fake.registry)
        scores = found(folder)
        assert {scores[name, "case-001", None, "vendi"].images for name in ("base", "dpo", "spo")} == {2}
        assert scores["base", "case-000", None, "vendi"].images == 3
        assert {scores[name, None, None, "vendi-tag"].images for name in ("base", "dpo", "spo")} == {8}


def test_a_duplicate_counts_for_nothing(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("vendi",), prompts=2, samples=3) as folder:
        same = folder.image_path("dpo", "case-000", 0).read_bytes()
        put_image(folder, ("dpo", "case-001", 0), same)
        score(folder, registry=fake.registry)
        assert [one.images for one in folder.set_scores() if one.variant == "base"] == [2, 2]


@pytest.mark.parametrize("samples", [1, 2])
def test_one_sample_has_no_vendi_score_and_that_is_said_before(tmp_path: Path, samples: int) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=3, samples=samples) as folder:
        notes = set_notes(folder.run().info.suite, list(fake.registry.set_metrics.values()))
        score(folder, registry=fake.registry)
        scores = found(folder)
        vendi = scores["spo", "case-000", None, "vendi"]
        if samples == 1:
            assert notes == ("No number of vendi: the suite has 1 sample of each prompt, and several are needed.",)
            assert vendi.value is None
            assert vendi.reason == "there is 1 sample of the prompt that every variant has; 2 are needed"
            assert scores["spo", "case-000", None, "drift"].scale is None
        else:
            assert notes == ()
            assert vendi.value is not None
        assert scores["spo", "case-000", None, "drift"].value is not None
        assert score(folder, registry=fake.registry) == 0


def test_a_tag_of_one_prompt_and_a_suite_of_one_have_no_number(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=1, samples=2) as folder:
        score(folder, registry=fake.registry)
        whole = found(folder)["spo", None, None, "kid"]
        assert whole.value is None
        assert whole.reason == "1 of 1 prompts of the suite have images of every variant; 2 are needed"
        tag = folder.run().info.suite.prompts[0].tags[0]
        assert "prompts of the tag" in str(found(folder)["spo", None, tag, "vendi-tag"].reason)


def test_without_an_image_of_the_reference_there_is_no_distance_from_it(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("drift", "kid"), prompts=2, samples=1) as folder:
        for prompt in ("case-000", "case-001"):
            put_image(folder, ("base", prompt, 0), None)
        score(folder, registry=fake.registry)
        reasons = {one.reason for one in folder.set_scores()}
        assert reasons == {"the reference variant has no image"}
        assert fake.loads == []


def test_a_prompt_that_only_the_reference_lost_is_a_null_of_its_own(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("drift",), prompts=2, samples=1) as folder:
        put_image(folder, ("base", "case-001", 0), None)
        score(folder, registry=fake.registry)
        scores = found(folder)
        assert scores["dpo", "case-000", None, "drift"].value is not None
        assert scores["dpo", "case-001", None, "drift"].reason == "the reference variant has no image of this prompt"


def test_errors_of_a_metric_and_unreadable_images_are_nulls_that_cost_no_other_number(tmp_path: Path) -> None:
    fake = fakes(odd)
    with folder_of(tmp_path, ("odd", "vendi"), prompts=8, samples=2) as folder:
        folder.image_path("spo", "case-007", 1).write_bytes(b"no picture")
        score(folder, registry=fake.registry)
        scores = found(folder)
        broken = scores["spo", "case-007", None, "vendi"]
        assert broken.value is None
        assert broken.images_sha256 is None
        assert str(broken.reason).startswith("spo/case-007, sample 1: image file")
        reasons = {str(one.reason) for key, one in scores.items() if key[3] == "odd" and one.value is None}
        assert {"too bright", "RuntimeError: odd", "ValueError: odd gave nan"} < reasons
        final = [one.images_sha256 is not None for one in scores.values() if one.reason == "too bright"]
        assert all(final)
        tried = [one for key, one in scores.items() if one.value is None and one.reason != "too bright"]
        assert missing_scores(folder, ("odd", "vendi"), registry=fake.registry) == len(tried)
        assert all(one.value is not None for key, one in scores.items() if key[3] == "vendi" and key[1] != "case-007")


def test_a_reward_model_gives_no_embeddings_and_the_reason_says_so(tmp_path: Path) -> None:
    class Reward:
        batch = 2

        def preprocess(self, image: object, name: str = "") -> torch.Tensor:
            return torch.zeros(3, 2, 2)

        def score(self, pixels: torch.Tensor, prompts: object) -> torch.Tensor:
            return torch.ones(len(pixels))

        def truncated(self, prompts: list[str]) -> list[bool]:
            return [False] * len(prompts)

    registry = registry_of(
        set_metric(set_facts("alike", encoder="reward"), over="prompt")(lambda inputs: 1.0),
        metric(facts("liked", "reward"))(lambda inputs: inputs.reward),
        Encoder("reward", lambda place: Reward()),
    )
    with folder_of(tmp_path, ("vendi",), prompts=1, samples=2) as folder:
        score(folder, metrics=("alike", "liked"), registry=registry)
        assert "gives no embeddings" in str(folder.set_scores()[0].reason)
        assert all(one.value == 1.0 for one in folder.scores())


def test_a_matrix_of_another_shape_is_a_null_with_a_reason(tmp_path: Path) -> None:
    flat = set_metric(set_facts("flat", "distance"), over="prompt pairs", needs_reference=True)
    registry = registry_of(flat(lambda inputs: np.zeros((1, 1))), *fakes().encoders)
    with folder_of(tmp_path, ("vendi",), prompts=3, samples=1) as folder:
        score(folder, metrics=("flat",), registry=registry)
        assert found(folder)["spo", None, None, "flat"].reason == "ValueError: it returned shape (1, 1), not (3, 3)"


def test_prompts_of_one_group_are_left_out_together(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("vendi-tag",), prompts=6, samples=1) as folder:
        info = folder.info
        assert info is not None
        prompts = [
            msgspec.structs.replace(one, group="pair" if place < 2 else "")
            for place, one in enumerate(info.suite.prompts)
        ]
        suite = msgspec.structs.replace(info.suite, prompts=tuple(prompts))
        folder.write_info(msgspec.structs.replace(info, suite=suite))
        score(folder, registry=fake.registry)
        assert len(found(folder)["spo", None, None, "vendi-tag"].without) == 5


def test_a_run_is_finished_once_its_sets_are_scored(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, ("vendi", "kid"), prompts=3, samples=2) as folder:

        def finished(run: Run) -> bool:
            return is_finished(run, {str(one.image): one.sha256 for one in run.renders}, ("vendi", "kid"))

        assert not finished(folder.run())
        score(folder, registry=fake.registry)
        assert finished(folder.run())
        put_image(folder, ("dpo", "case-001", 1), png_bytes("dpo", "other", 7, 7))
        assert not finished(folder.run())


def test_what_is_read_again_is_what_was_written(tmp_path: Path) -> None:
    fake = fakes()
    with folder_of(tmp_path, prompts=3, samples=2) as folder:
        score(folder, registry=fake.registry)
        known = folder.run().set_scores
    assert load_run(tmp_path).set_scores == known
    assert "vendi" not in (tmp_path / "scores.csv").read_text()


@pytest.mark.parametrize("samples", [1, 2])
def test_the_command_line_says_once_what_will_have_no_number(tmp_path: Path, cli, samples: int) -> None:  # type: ignore[no-untyped-def]
    folder_of(tmp_path, ("saturation",), prompts=2, samples=samples).close()
    answer = cli("score", tmp_path, "--metrics", "mini-vendi,mini-sameness,mini-drift", "--device", "cpu")
    assert answer.code == 0
    said = "No number of mini-sameness, mini-vendi: the suite has 1 sample of each prompt, and several are needed."
    assert answer.err.count("No number of") == answer.err.count(said) == (1 if samples == 1 else 0)
    values = {one.metric: one.value for one in load_run(tmp_path).set_scores}
    assert (values["mini-vendi"] is None) == (samples == 1)
    assert values["mini-drift"] is not None


def no_number(inputs: SetInputs) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("facts_of", "arguments", "message"),
    [
        (msgspec.structs.replace(set_facts("one"), encoder=None), {"over": "prompt"}, "names no encoder"),
        (set_facts("one"), {"over": "image"}, "allowed are"),
        (set_facts("one"), {"over": "prompt", "needs_reference": True}, "go together"),
        (set_facts("one", "distance"), {"over": "prompt"}, "go together"),
        (set_facts("one", "distance"), {"over": "tag", "needs_reference": True}, "over 'tag' does not"),
        (set_facts("one"), {"over": "prompt pairs"}, "goes with needs_reference"),
        (set_facts("one"), {"over": "tag", "min_samples": 2}, "for a metric over prompts"),
        (set_facts("One"), {"over": "prompt"}, "lower-case"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(facts_of, arguments, message):  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        set_metric(facts_of, **arguments)(no_number)


def test_a_set_metric_on_an_encoder_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="unknown encoder"):
        registry_of(set_metric(set_facts("one", encoder="none"), over="prompt")(no_number))
