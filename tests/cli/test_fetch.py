"""``fetch``: everything a suite needs, what fails told at the end, and what ``doctor`` says of metrics' weights."""

from __future__ import annotations

import json

import pytest
from huggingface_hub.utils.tqdm import enable_progress_bars

import bench.published_files
from bench.checkpoints import locate as sources
from bench.errors import WeightsError
from bench.metrics import Encoder, metric, registry_of
from bench.metrics.catalogue import CATALOGUE
from bench.metrics.pixels import saturation, sharpness
from bench.published_files import Entry, File
from bench.records import MetricFacts

HEAD = Entry(
    name="head",
    what="A head",
    host="github",
    repository="owner/heads",
    files=(File(name="head.pth", about_bytes=4_000),),
)
ENCODER = Entry(
    name="encoder",
    what="An encoder",
    host="github",
    repository="owner/encoder",
    files=(File(name="t.pt", about_bytes=9_000),),
)


def needing(name, encoder, weights):
    facts = MetricFacts(
        name=name,
        version="1",
        summary="For a test.",
        unit="points",
        higher_is_better=True,
        low=None,
        high=None,
        category="aesthetic",
        encoder=encoder,
        trained_on=(),
        training_data="nothing",
        licence="none",
        reference="none",
    )
    return metric(facts, weights=weights)(lambda inputs: inputs.image_embeds)


@pytest.fixture
def with_weights(home, monkeypatch, tmp_path):
    """A suite with two metrics on one encoder, one with a head of its own; its checkpoints are there."""
    for entry in (HEAD, ENCODER):
        monkeypatch.setitem(CATALOGUE, entry.name, entry)
    registry = registry_of(
        saturation,
        sharpness,
        needing("pretty", "conv", ("head",)),
        needing("fitting", "conv", ()),
        Encoder("conv", lambda place: pytest.fail("fetch loads nothing"), ("encoder",)),
    )
    for module in ("bench.cli.lists", "bench.metrics.registry", "bench.metrics", "bench.questions.registry"):
        monkeypatch.setattr(f"{module}.installed", lambda: registry)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "locks" / "lock.json"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    suite = (home / "own.toml").read_text("utf-8")
    lines = ['metrics = ["pretty", "fitting"]' if line.startswith("metrics") else line for line in suite.splitlines()]
    (home / "own.toml").write_text("\n".join(lines), "utf-8")
    return home


@pytest.fixture
def network(monkeypatch):
    """Answers every address with its last part as the file; notes what was fetched."""
    urls = []

    def fake(url, target):
        urls.append(url.rsplit("/", 1)[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"\x80\x02" + url.encode())
        return True

    monkeypatch.setattr("bench.published_files.download_url", fake)
    yield urls
    enable_progress_bars()  # --quiet silences the Hub's client for the whole process


def test_fetch_gets_each_file_once_and_says_what_is_unpinned(cli, with_weights, network):
    answer = cli("fetch", "own.toml")
    assert answer.code == 0, answer.err
    assert sorted(network) == ["head.pth", "t.pt"]
    (encoder,) = [line for line in answer.out.splitlines() if "owner/encoder/t.pt" in line]
    assert "pretty, fitting" in encoder
    assert "locked: as first seen here" in encoder
    assert "lock.json" in answer.out
    assert answer.err.splitlines()[-1] == "Ready: hotart-bench run own.toml"
    again = cli("fetch", "own.toml", "--quiet")
    assert again.code == 0, again.err
    assert len(network) == 2


def test_weights_are_fetched_for_metrics_that_no_suite_names(cli, with_weights, network):
    answer = cli("fetch", "own.toml", "--metrics", "fitting")
    assert answer.code == 0, answer.err
    assert network == ["t.pt"]
    assert "owner/encoder/t.pt" in answer.out
    unknown = cli("fetch", "own.toml", "--metrics", "fiting")
    assert unknown.code == 2
    assert "did you mean 'fitting'?" in unknown.err


def test_what_fails_keeps_nothing_else_from_coming(cli, with_weights, network, monkeypatch):
    good = bench.published_files.download_url

    def fake(url, target):
        if "t.pt" in url:
            raise WeightsError("t.pt: could not be downloaded (URLError).", "the same command again continues")
        return good(url, target)

    monkeypatch.setattr("bench.published_files.download_url", fake)
    answer = cli("fetch", "own.toml")
    assert answer.code == 3
    assert network == ["head.pth"]
    assert "t.pt: could not be downloaded" in answer.err
    assert "  next: the same command again continues" in answer.err


def test_fetch_gets_checkpoints_too(cli, with_weights, network, monkeypatch):
    found = []
    monkeypatch.setattr(sources, "fetch", lambda place: found.append(place.what) or place)
    assert cli("fetch", "own.toml").code == 0
    assert "mini" in found


def test_hashes_of_a_checkpoint_of_the_hub_are_recorded(cli, with_weights, network, monkeypatch, tmp_path):
    folder = sources.find_checkpoint("mini", None, None).path
    place = sources.Place(what="owner/mini", path=folder, repository="owner/mini")
    monkeypatch.setattr("bench.cli.fetch.every_place", lambda *_: (place,))
    answer = cli("fetch", "own.toml")
    assert answer.code == 0, answer.err
    (line,) = [line for line in answer.out.splitlines() if line.startswith("owner/mini")]
    assert "locked: as first seen here" in line
    assert "a run with other bytes is refused" in answer.out
    lock = json.loads((tmp_path / "locks" / "lock.json").read_text("utf-8"))
    assert "unet/diffusion_pytorch_model.safetensors" in lock["sources"]["owner/mini@unpinned"]["files"]


def test_doctor_lists_the_weights_of_metrics_and_names_the_command(cli, with_weights, network):
    before = cli("doctor", "own.toml")
    assert before.code == 3
    assert "owner/encoder/t.pt" in before.out
    assert before.out.count("trusted at first sight, then locked") == 2
    assert "next: hotart-bench fetch own.toml" in before.err
    assert network == []
    cli("fetch", "own.toml")
    after = cli("doctor", "own.toml", "--json")
    assert after.code == 0, after.err
    files = json.loads(after.out)["metric_files"]
    assert [row["file"]["what"] for row in files] == ["owner/encoder/t.pt", "owner/heads/head.pth"]
    assert [row["metrics"] for row in files] == [["pretty", "fitting"], ["pretty"]]
    assert {row["file"]["trust"] for row in files} == {"locked"}


def test_offline_and_missing_ends_with_3(cli, with_weights, network, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = cli("fetch", "own.toml")
    assert answer.code == 3
    assert "HF_HUB_OFFLINE is set" in answer.err
    assert network == []


def test_what_several_variants_share_is_tried_once_and_told_once(cli, with_weights, network, monkeypatch):
    tried = []

    def fails(place):
        tried.append(place.what)
        raise WeightsError(f"{place.what}: could not be downloaded.", "try again")

    monkeypatch.setattr(sources, "fetch", fails)
    answer = cli("fetch", "own.toml")
    assert answer.code == 3
    assert "mini" in tried
    assert len(tried) == len(set(tried))
    assert answer.err.count("mini, mini:spo: could not be downloaded.") == 1


def test_public_prompt_sets_of_a_suite_come_before_it_is_read(cli, with_weights, network):
    own = with_weights / "own.toml"
    own.write_text(own.read_text("utf-8").replace('prompts = ["two.txt"]', 'prompts = ["parti", "two.txt"]'), "utf-8")
    refused = cli("fetch", "own.toml")
    # The test's network answers with bytes that are no table: they came, and reading the suite says so.
    assert network == ["PartiPrompts.tsv"]
    assert "PartiPrompts.tsv" in refused.err
    assert "Apache-2.0" in refused.out


def test_a_public_set_without_an_address_is_told_apart_from_one_without_network(cli, with_weights, network):
    answer = cli("fetch", "--prompts", "drawbench,parti")
    assert answer.code == 3
    assert "has no address" in answer.err
    assert "put drawbench.csv beside the suite file" in answer.err
    assert network == ["PartiPrompts.tsv"]
