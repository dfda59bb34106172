"""Variants with runtimes in one run of the embedded family: what is drawn, recorded and shown; what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import tiny
from PIL import Image

from bench.errors import MachineError
from bench.records import Run, RunOptions, Suite
from bench.report.tables import made_of
from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite, runtimes

ON_CPU = RunOptions(device="cpu")
FAST = {"cached": "deepcache:2", "int8": "torchao-int8"}


def suite_of(folder: Path, fast: dict[str, str]) -> Suite:
    """The tiny suite on two of its prompts: base, then a variant a runtime with the LoRA of ``spo``."""
    suite = load_suite(str(tiny.write_tiny(folder, "samples = 2", "samples = 1")), limit=2)
    base, spo = suite.variants
    faster = [msgspec.structs.replace(spo, name=name, runtime=runtime) for name, runtime in fast.items()]
    return msgspec.structs.replace(suite, variants=(base, spo, *faster), metrics=("ssim-to-base",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runtimes")
    run_stage("render", suite_of(folder, FAST), folder / "run", ON_CPU)
    return load_run(folder / "run")


def hashes(run: Run, variant: str) -> list[str | None]:
    return [one.pixels_sha256 for one in run.renders if one.variant == variant]


def test_each_runtime_draws_other_pictures_and_the_others_are_as_without(run: Run, tmp_path: Path) -> None:
    run_stage("render", suite_of(tmp_path, {}), tmp_path / "run", ON_CPU)
    plain = load_run(tmp_path / "run")
    for name in ("base", "spo"):
        assert hashes(run, name) == hashes(plain, name)
    drawn = [hashes(run, name) for name in ("base", "spo", *FAST)]
    assert all(one is not None for row in drawn for one in row)
    assert len({one for row in drawn for one in row}) == 2 * 4
    ours, theirs = ({one.name: one.digest for one in side.info.variants} for side in (run, plain))
    assert (ours["base"], ours["spo"]) == (theirs["base"], theirs["spo"])
    assert len(set(ours.values())) == 4


def test_the_order_of_the_variants_changes_no_picture(run: Run, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, FAST)
    run_stage("render", msgspec.structs.replace(suite, variants=suite.variants[::-1]), tmp_path / "run", ON_CPU)
    other = load_run(tmp_path / "run")
    assert all(hashes(run, name) == hashes(other, name) for name in ("base", "spo", *FAST))


def test_run_json_names_runtime_package_and_version_and_what_was_quantised(run: Run) -> None:
    known = {one.name: one for one in run.info.variants}
    versions = {name: runtimes.package_version(name) for name in ("torchao", "DeepCache")}
    assert known["base"].runtime == known["spo"].runtime == ""
    assert known["cached"].runtime == f"deepcache:2 (DeepCache {versions['DeepCache']})"
    assert known["int8"].runtime == f"torchao-int8 (torchao {versions['torchao']})"
    assert known["cached"].audit.quantized is None
    assert known["int8"].audit.quantized.layers == 84
    assert known["spo"].audit.fused_against_unfused is not None, "with the first variant that has the file"
    line = made_of(run, run.info.suite.variants[3])[-1]
    assert line == f"runs by {known['int8'].runtime}: 84 linear layers, 40 % of the UNet's weights"


def test_pictures_say_the_runtime_that_they_were_drawn_with(run: Run) -> None:
    for name, told in {"base": None, "cached": '"deepcache:2"', "int8": "torchao-int8"}.items():
        path = Path(run.path) / str(next(one.image for one in run.renders if one.variant == name))
        with Image.open(path) as image:
            fields = str(image.text["parameters"]).splitlines()[-1]
        assert (f", Runtime: {told}, " in fields) if told else ("Runtime" not in fields)


def test_a_machine_without_the_package_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "package_version", lambda _: None)
    with pytest.raises(MachineError, match="Variant cached has the runtime deepcache:2: the package DeepCache is not"):
        run_stage("render", suite_of(tmp_path, FAST), tmp_path / "run", ON_CPU)
    assert not (tmp_path / "run" / "images").exists()


def test_a_device_that_cannot_is_told_before_the_first_variant_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="Variant float8 has the runtime torchao-fp8: products of 8-bit floats need"):
        run_stage("render", suite_of(tmp_path, {"float8": "torchao-fp8"}), tmp_path / "run", ON_CPU)
    assert not (tmp_path / "run" / "images").exists()
