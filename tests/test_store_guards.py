"""What must not mix in one run folder is refused, with every fact that differs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.comparability import check_same_machine, refuse_other_protocol
from bench.errors import IncomparableError
from bench.records import Run

replace = msgspec.structs.replace


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", prompts=3, samples=2, variants=("base", "spo"))


def test_another_protocol_is_refused_with_every_difference(run: Run) -> None:
    suite = run.info.suite
    prompts = (replace(suite.prompts[0], text="other"), replace(suite.prompts[1], id="new"))
    other = replace(
        suite, prompts=prompts, seed=9, limit=2, settings=replace(suite.settings, steps=30, sampler="euler")
    )
    with pytest.raises(IncomparableError) as caught:
        refuse_other_protocol(Path("runs/mini"), run.info, other)
    assert caught.value.message.startswith("runs/mini: holds a run of another protocol: ")
    for fact in (
        "seed is 0 there and 9 here",
        "limit is not set there and 2 here",
        "settings.steps is 20 there and 30 here",
        "settings.sampler is ddim there and euler here",
        "prompts only there: case-001, case-002",
        "prompts only here: new",
        "prompts with another prompt: case-000",
    ):
        assert fact in caught.value.message
    assert "samples" not in caught.value.message
    assert "-o" in caught.value.hint
    assert "--fresh" in caught.value.hint
    with pytest.raises(IncomparableError, match="the order of the prompts"):
        refuse_other_protocol(Path("runs/mini"), run.info, replace(suite, prompts=suite.prompts[::-1]))


def test_the_same_machine_may_continue_whatever_else_changed(run: Run) -> None:
    info = replace(run.info, machine=replace(run.info.machine, device="cuda:0", device_name="H200"))
    here = replace(info.machine, device="cuda:1", cores=64, driver="999", os="other")
    check_same_machine(info, here, {**info.packages, "numpy": "9", "peft": "9", "python": "3.14"})


def test_another_number_of_threads_is_other_ground_on_a_cpu_alone(run: Run) -> None:
    info = replace(run.info, machine=replace(run.info.machine, threads=2))
    with pytest.raises(IncomparableError, match="threads is 2 there and 8 here"):
        check_same_machine(info, replace(info.machine, threads=8), info.packages)
    on_cuda = replace(info.machine, device="cuda:0")
    check_same_machine(replace(info, machine=on_cuda), replace(on_cuda, threads=8), info.packages)


def test_other_ground_is_refused_with_every_difference(run: Run) -> None:
    machine = replace(run.info.machine, device="cuda:0", device_name="H200")
    with pytest.raises(IncomparableError) as caught:
        check_same_machine(run.info, machine, {"torch": "9.9"})
    assert caught.value.exit_code == 4
    for fact in (
        "device is cpu there and cuda here",
        "device name is A CPU of two cores there and H200 here",
        "torch is 2.8.0 there and 9.9 here",
        "diffusers is 0.36.0 there and not set here",
    ):
        assert fact in caught.value.message
