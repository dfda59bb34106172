"""``baseline``: what is frozen, who accepted it, and what cannot be."""

import os
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, with_suite, write_run
from gate_runs import LIMITS
from msgspec.structs import replace

from bench.baseline import read_baseline
from bench.records import Calibration, SessionNoise
from bench.store import load_run
from bench.suite.limits import parse_limits


@pytest.fixture
def no_git_user(monkeypatch, tmp_path):
    """Git without a name: neither this machine's configuration nor this repository's counts."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-repository"))


def test_who_accepted_it_is_git_s_user(here, cli, tmp_path, no_git_user, monkeypatch):
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Ada Lovelace\n\temail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    file = tmp_path / "deep" / "er" / "b.json"
    answer = cli("baseline", "old", "-o", file)
    assert (answer.code, answer.out) == (0, f"{file}\n")
    found = read_baseline(file)
    assert found.acceptance.by == "Ada Lovelace <ada@example.org>"
    assert (found.acceptance.previous, found.acceptance.verdict, found.acceptance.why) == (None, None, "")
    assert [one.fingerprint.name for one in found.variants] == ["base", "spo"]
    assert "40 prompts x 2 samples x 2 variants" in answer.err


def test_nobody_is_nobody(here, cli, tmp_path, no_git_user):
    answer = cli("baseline", "old", "-o", tmp_path / "b.json")
    assert answer.code == 2
    assert "Who accepts this baseline?" in answer.err
    assert not (tmp_path / "b.json").exists()


def test_chosen_variants(here, cli, tmp_path):
    assert cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--variants", "spo").code == 0
    assert [one.fingerprint.name for one in read_baseline(tmp_path / "b.json").variants] == ["spo"]


@pytest.mark.parametrize(("run", "verdict"), [("same", "pass"), ("planted", "fail")])
def test_a_replacement_says_what_it_replaced_and_how_it_was_judged(run, verdict, here, cli, tmp_path):
    file = tmp_path / "b.json"
    cli("baseline", "old", "-o", file, "--by", "me")
    before, first = file.read_bytes(), read_baseline(file)
    for flags in ((), ("--replace",), ("--replace", "--why", "  ")):
        assert cli("baseline", run, "-o", file, "--by", "me", *flags).code == 2
        assert file.read_bytes() == before
    answer = cli("baseline", run, "-o", file, "--by", "me", "--replace", "--why", "SPO v2")
    assert answer.code == 0
    assert f"Against the baseline that it replaces: {verdict}." in answer.err
    found = read_baseline(file)
    assert (found.run_id, found.acceptance.why) == ("fake-0001", "SPO v2")
    assert (found.acceptance.previous, found.acceptance.verdict) == (first.checksum, verdict)


@pytest.mark.parametrize(("run", "words"), [("old", "both are of one run"), ("weak", "Not gated against")])
def test_a_replacement_that_cannot_be_judged_says_so(run, words, here, cli, tmp_path):
    file = tmp_path / "b.json"
    cli("baseline", "old", "-o", file, "--by", "me")
    answer = cli("baseline", run, "-o", file, "--by", "me", "--replace", "--why", "another suite")
    assert answer.code == 0
    assert words in answer.err
    assert read_baseline(file).acceptance.verdict is None
    assert read_baseline(file).acceptance.previous is not None


def test_a_damaged_baseline_is_not_replaced_in_passing(here, cli, tmp_path):
    (tmp_path / "b.json").write_bytes(b"{")
    answer = cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--replace", "--why", "x")
    assert answer.code == 5
    assert (tmp_path / "b.json").read_bytes() == b"{"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("gap", "-o", "b.json"), 5, "cannot be a baseline, because no run could pass against it. spo: mini-clip of"),
        (("none", "-o", "b.json"), 2, "there is no run here"),
        (("old", "-o", "old"), 2, "--replace"),
        (("old", "-o", "b.json", "--variants", "sop"), 2, "did you mean 'spo'"),
        (("old", "-o", "b.json", "--why", "two\nlines"), 2, "--why must be one line"),
        (("old", "-o", "b.json", "--calibration", "none.json"), 2, "no calibration here"),
        (("old", "-o", "b.json", "--calibration", "old.json"), 2, "not a calibration"),
    ],
)
def test_what_cannot_be_frozen(arguments, code, words, here, cli):
    answer = cli("baseline", *arguments, "--by", "me")
    assert answer.code == code, answer.err
    assert words in answer.err
    assert not (here / "b.json").exists()


def calibration(run, **changes):
    info = load_run(run).info
    fields = {
        "schema": 2,
        "kind": "hotart-bench calibration",
        "suite": "fake",
        "protocol_digest": info.protocol_digest,
        "prompts": 40,
        "samples": 2,
        "machine": info.machine,
        "packages": info.packages,
        "noise": (),
        "session_noise": (SessionNoise(name="end_to_end", sd_log_ratio=0.01, sessions=3),),
        "notes": (),
        "time": "2025-01-01T00:00:00+00:00",
    }
    return Calibration(**{**fields, **changes})


def test_the_noise_between_sessions_comes_along(here, cli, tmp_path):
    one = calibration("old")
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(one))
    answer = cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--calibration", tmp_path / "c.json")
    assert answer.code == 0, answer.err
    assert read_baseline(tmp_path / "b.json").session_noise == one.session_noise


def test_noise_of_another_suite_or_machine_does_not(here, cli, tmp_path):
    machine = replace(load_run("old").info.machine, cpu="Another CPU", threads=7)
    other = calibration("old", protocol_digest="0" * 64, machine=machine)
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(other))
    answer = cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--calibration", tmp_path / "c.json")
    assert answer.code == 4
    for words in ("another protocol", "the CPU is Another CPU there", "the number of threads is 7 there and 2"):
        assert words in answer.err


def test_noise_of_another_torch_driver_or_device_memory_is_refused_with_every_difference(here, cli, tmp_path):
    info = load_run("old").info
    machine = replace(info.machine, driver="570.1", device_memory_bytes=80 * 2**30)
    other = calibration("old", machine=machine, packages={**info.packages, "torch": "9.9", "transformers": "9.8"})
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(other))
    answer = cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--calibration", tmp_path / "c.json")
    assert answer.code == 4
    for words in (
        "torch is 9.9 there and 2.8.0 in the run",
        "transformers is 9.8 there",
        "the driver is 570.1 there and not set in the run",
        "the device memory in GiB is 80 there and not set in the run",
    ):
        assert words in " ".join(answer.err.split())
    assert "protocol" not in answer.err
    assert "hotart-bench calibrate" in answer.err
    assert not (tmp_path / "b.json").exists()


def test_a_calibration_without_timed_sessions_is_refused(here, cli, tmp_path):
    none = calibration("old", session_noise=())
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(none))
    answer = cli("baseline", "old", "-o", tmp_path / "b.json", "--by", "me", "--calibration", tmp_path / "c.json")
    assert answer.code == 2
    assert "no sessions of timing" in answer.err
    assert Path(tmp_path / "b.json").exists() is False


def test_pictures_are_kept_only_where_they_are_asked_for(cli, tmp_path, tmp_path_factory):
    run_folder, file = tmp_path_factory.mktemp("run"), tmp_path / "b.json"
    write_run(with_suite(make_run(run_folder, prompts=12), limits=parse_limits(LIMITS)), run_folder)
    assert cli("baseline", run_folder, "-o", file, "--by", "me").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json"]
    answer = cli("baseline", run_folder, "-o", file, "--by", "me", "--replace", "--why", "again", "--pictures")
    assert answer.code == 0, answer.err
    assert f"36 pictures in {tmp_path / 'b-pictures'}, " in answer.err
    assert len(list((tmp_path / "b-pictures").rglob("*.webp"))) == 36
    answer = cli("baseline", run_folder, "-o", file, "--by", "me", "--replace", "--why", "again")
    assert "b-pictures: stays as it is" in answer.err
