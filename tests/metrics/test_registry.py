"""Plug-ins as packages are: found by their entry points, registered whole or not at all."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.metrics import Registry, facts_for, registry_of
from bench.metrics.registry import GROUP, OWN_MODULES, build, find_plugins

ROOT = Path(__file__).parents[2]
OWN = ("bench.metrics.pixels",)

DECLARE = """
from bench.metrics import metric, encoder
from bench.records import MetricFacts

def declare(name, encoder=None):
    facts = MetricFacts(
        name=name, version="1", summary="A test's.", unit="share", higher_is_better=True, low=None, high=None,
        category="aesthetic", encoder=encoder, trained_on=(), training_data="nothing", licence="none",
        reference="none",
    )
    return metric(facts)(lambda inputs: inputs.pixels.mean(dim=(1, 2, 3)))
"""


class Site:
    """A folder of installed packages, each with one module of metrics."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "declaring.py").write_text(DECLARE)

    def install(self, package: str, module: str, body: str) -> None:
        (self.path / f"{module}.py").write_text(f"from declaring import declare, encoder\n{body}\n")
        info = self.path / f"{package}-2.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nmetrics = {module}\n")

    def entries(self) -> list[EntryPoint]:
        installed = distributions(path=[str(self.path)])
        return [entry for package in installed for entry in package.entry_points if entry.group == GROUP]

    def registry(self) -> Registry:
        importlib.invalidate_caches()
        return build(OWN, self.entries())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("declaring", "one", "two", "three"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return Site(tmp_path)


OURS = {"saturation", "contrast", "sharpness", "clipped", "blur", "diversity", "ssim-to-base"}


def test_a_plugin_adds_its_metrics_and_encoders_to_ours(site: Site) -> None:
    site.install(
        "nice-judges",
        "one",
        "vit = encoder('vit')(print)\nfirst = declare('first', 'vit')\nsecond = declare('second')",
    )
    registry = site.registry()
    assert set(registry.metrics) == OURS | {"first", "second"}
    assert list(registry.metrics)[:4] == ["saturation", "contrast", "sharpness", "clipped"]
    assert set(registry.encoders) == {"vit"}
    assert registry.problems == ()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("good = declare('good')\nraise RuntimeError('no CUDA')", "RuntimeError: no CUDA"),
        ("good = declare('good')\nraise SystemExit(3)", "SystemExit: 3"),
        ("good = declare('good')\nimport package_that_is_not_there", "ModuleNotFoundError: No module named"),
        ("good = declare('good'", "SyntaxError: '\\(' was never closed"),
        ("good = declare('good')\ntaken = declare('contrast')", "'contrast' is declared twice"),
        ("good = declare('good')\nagain = declare('good')", "'good' is declared twice"),
        ("good = declare('good', 'vit')", "'good' names the unknown encoder 'vit'"),
        ("good = declare('good')\nbad = declare('Not A Name')", "Metric name 'Not A Name'"),
        ("a = encoder('t')(print)\nb = encoder('t')(print)", "The encoder 't' is declared twice"),
        ("nothing = 1", "declares no metric and no encoder"),
    ],
)
def test_a_broken_plugin_is_left_out_whole_and_named(site: Site, body: str, why: str) -> None:
    site.install("broken-judges", "one", body)
    site.install("nice-judges", "two", "fine = declare('fine')")
    registry = site.registry()
    assert set(registry.metrics) == OURS | {"fine"}
    assert registry.encoders == {}
    (problem,) = registry.problems
    assert problem.startswith("The metric plug-in one of broken-judges 2.1 was left out: ")
    with pytest.raises(UsageError, match=why):
        facts_for(["good"], registry)


def test_two_plugins_with_one_name_are_both_left_out(site: Site) -> None:
    site.install("a-judges", "one", "mine = declare('beauty')\nother = declare('other')")
    site.install("b-judges", "two", "theirs = declare('beauty')")
    site.install("c-judges", "three", "fine = declare('fine')")
    registry = site.registry()
    assert set(registry.metrics) == OURS | {"fine"}
    both = "the metric 'beauty' is declared by one of a-judges 2.1 and by two of b-judges 2.1."
    assert [problem.endswith(both) for problem in registry.problems] == [True, True]


def test_a_plugin_may_share_another_ones_encoder_by_importing_it(site: Site) -> None:
    site.install("a-judges", "one", "vit = encoder('vit')(lambda device: None)\nfirst = declare('first', 'vit')")
    site.install("b-judges", "two", "from one import vit\nsecond = declare('second', 'vit')")
    registry = site.registry()
    assert registry.problems == ()
    assert set(registry.metrics) == OURS | {"first", "second"}
    assert set(registry.encoders) == {"vit"}


def test_our_own_entries_are_not_registered_twice() -> None:
    entries = [EntryPoint(name=name.rpartition(".")[2], value=name, group=GROUP) for name in OWN]
    registry = build(OWN, entries)
    assert set(registry.metrics) == OURS
    assert registry.problems == ()


def test_an_own_module_that_fails_is_our_bug_and_raises(site: Site) -> None:
    site.install("irrelevant", "one", "raise RuntimeError('a bug')")
    with pytest.raises(RuntimeError, match="a bug"):
        build(("one",), ())


def test_every_module_of_ours_that_declares_metrics_is_listed() -> None:
    files = [
        *(ROOT / "bench/metrics").glob("*.py"),
        ROOT / "bench/faces/metrics.py",
        ROOT / "bench/mini/metrics.py",
        ROOT / "bench/mini/judge.py",
        *(ROOT / "bench/faces").glob("*.py"),
        *(ROOT / "bench/steps").glob("*.py"),
    ]
    declares = re.compile(r"^(@(metric|encoder|step_metric|set_metric)\(|\w+, \w+ = question_metrics\()", re.MULTILINE)
    declaring = [file for file in files if declares.search(file.read_text("utf-8"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in declaring}
    assert names == set(OWN_MODULES)


def test_facts_come_in_the_order_asked_for_and_unknown_names_get_a_near_match() -> None:
    registry = build(OWN, ())
    assert [facts.name for facts in facts_for(["clipped", "contrast"], registry)] == ["clipped", "contrast"]
    with pytest.raises(UsageError, match=r"no metric 'sharpnes'.*did you mean 'sharpness'") as unknown:
        facts_for(["contrast", "sharpnes"], registry)
    assert "hotart-bench list metrics" in unknown.value.hint
    with pytest.raises(UsageError, match="'contrast' is named 2 times"):
        facts_for(["contrast", "contrast"], registry)


def test_a_registry_of_given_metrics_counts_each_object_once() -> None:
    saturation = build(OWN, ()).metrics["saturation"]
    assert list(registry_of(saturation, saturation).metrics) == ["saturation"]


def test_every_fact_of_ours_is_filled_in() -> None:
    for name, metric in build(OWN, ()).metrics.items():
        facts = metric.facts
        assert facts.name == name
        assert all((facts.version, facts.summary, facts.unit, facts.training_data, facts.licence, facts.reference))
        assert facts.summary.endswith(".")


def test_facts_need_no_torch() -> None:
    code = (
        "import sys; from bench.metrics import all_facts, plugin_problems;"
        "print([facts.name for facts in all_facts()], plugin_problems());"
        "print(sorted({'torch', 'torchmetrics', 'transformers', 'safetensors', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, heavy = done.stdout.splitlines()
    assert "ssim-to-base" in names
    assert "mini-preference" in names
    assert heavy == "[]"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("class Stop(BaseException): pass\nraise Stop('no licence')", "Stop: no licence"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise RuntimeError('x' * 100_000)", "RuntimeError: xxx"),
    ],
)
def test_whatever_a_plugin_raises_it_alone_is_left_out(site: Site, body: str, said: str) -> None:
    site.install("odd-judges", "one", body)
    site.install("nice-judges", "two", "second = declare('second')")
    registry = site.registry()
    assert set(registry.metrics) == OURS | {"second"}
    [problem] = registry.problems
    assert f"one of odd-judges 2.1 was left out: {said}" in problem
    assert len(problem) < 500


def test_ctrl_c_while_a_plugin_is_imported_stops(site: Site) -> None:
    site.install("slow-judges", "one", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.registry()


def test_what_a_plugin_prints_does_not_stand_among_the_results(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("loud-judges", "one", "print('Welcome!')\nfirst = declare('first')")
    registry = site.registry()
    assert "first" in registry.metrics
    assert capsys.readouterr().out == ""
    [problem] = registry.problems
    assert "one of loud-judges 2.1 prints when it is imported ('Welcome!" in problem


def test_a_package_whose_entry_points_cannot_be_read_is_named_and_the_others_count(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("nice-judges", "one", "first = declare('first')")
    site.install("torn-judges", "two", "second = declare('second')")
    (site.path / "torn-judges-2.1.dist-info" / "entry_points.txt").write_bytes(
        b"[hotart_bench.metrics]\nx = \xff\xfe\n"
    )
    found, problems = find_plugins()
    assert "one" in {entry.value for entry in found}
    [problem] = problems
    assert "torn-judges-2.1.dist-info: its entry_points.txt cannot be read (UnicodeDecodeError)" in problem
