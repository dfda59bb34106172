"""A gate.json or a baseline that is broken is refused in a sentence, and never ends as if something had regressed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from fake_gates import make_gate, make_verdict, timing_verdict, worst_prompts
from fakes import make_run, write_run
from gate_runs import make_folder

from bench.baseline import freeze, read_baseline, write_baseline
from bench.baseline.file import _checksum
from bench.errors import HotartError
from bench.gate.ci import junit_xml
from bench.gate.summary import summary_markdown
from bench.records import BASELINE_SCHEMA, Acceptance
from bench.report import html, markdown
from bench.report.facts import gate_of
from bench.report.page import build_view
from bench.store import load_run, write_gate

VALUES = (
    None, 0, -1, 1, 0.5, 1e308, -1e308, 1e-320, 2**63, 10**30, "", "x", "\n::error::", "pass", "invalid", "metric",
    "timing", [], [[]], [None], {}, {"a": 1}, True,
)  # fmt: skip
MUTATIONS = 80


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))
    if at:
        yield at


def mutations(table: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    rng, known = random.Random(seed), list(places(table))
    for _ in range(MUTATIONS):
        changed = copy.deepcopy(table)
        *before, last = rng.choice(known)
        owner = changed
        for key in before:
            owner = owner[key]
        if isinstance(owner, dict) and rng.random() < 0.2:
            del owner[last]
        else:
            owner[last] = rng.choice(VALUES)
        yield changed


BROKEN = {
    "empty": (b"", 5),
    "torn": (b'{"schema": 3, "kind": "hotart-', 5),
    "not text": (b"\xff\xfe\x00", 5),
    "a list": (b"[]", 2),
    "a number": (b"1e999", 5),
    "another kind": (b'{"kind": "hotart-bench calibration"}', 2),
    "newer": (b'{"kind": "hotart-bench baseline", "schema": 99}', 4),
    "no schema": (b'{"kind": "hotart-bench baseline"}', 5),
    "edited": (b'{"kind": "hotart-bench baseline", "schema": %d, "checksum": "0"}' % BASELINE_SCHEMA, 5),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_baseline_ends_with_its_own_code(case, cli, tmp_path):
    data, code = BROKEN[case]
    run = make_folder(tmp_path / "run", prompts=10)
    (tmp_path / "b.json").write_bytes(data)
    answer = cli("gate", run, "--baseline", tmp_path / "b.json")
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    assert "b.json" in answer.err


@pytest.mark.parametrize(
    ("data", "code"), [(b"", 5), (b"\xff", 5), (b"[]", 5), (b"{}", 5), (b'{"schema": 99}', 4), (b'{"schema": 2}', 5)]
)
def test_a_broken_gate_json_ends_a_report_with_its_own_code(data, code, cli, tmp_path):
    folder = write_run(make_run(tmp_path / "run", prompts=2), tmp_path / "run")
    (folder / "gate.json").write_bytes(data)
    answer = cli("report", folder)
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    assert "gate.json" in answer.err


def test_a_baseline_with_any_field_changed_reads_as_one_or_is_refused(tmp_path):
    accepted = Acceptance(by="Ada", time="2025-01-01T00:00:00+00:00")
    path = tmp_path / "b.json"
    write_baseline(freeze(load_run(make_folder(tmp_path / "run", prompts=3)), acceptance=accepted), path)
    codes = []
    for table in mutations(json.loads(path.read_bytes()), seed=1):
        path.write_text(json.dumps({**table, "checksum": _checksum(table)}), encoding="utf-8")
        try:
            read_baseline(path)
        except HotartError as error:
            codes.append(error.exit_code)
    assert len(codes) > MUTATIONS / 4
    assert set(codes) <= {2, 4, 5}


def test_a_gate_json_with_any_field_changed_is_shown_or_refused(tmp_path):
    folder = write_run(make_run(tmp_path / "run", prompts=2), tmp_path / "run")
    run = load_run(folder)
    gate = make_gate(
        make_verdict("fail", worst=worst_prompts(2)),
        make_verdict("inconclusive", "mini-clip"),
        timing_verdict("pass"),
        make_verdict("invalid", "sharpness"),
        run_id=run.info.id,
        baseline=str(tmp_path / "gone"),
        baseline_is_run=True,
    )
    write_gate(folder, gate)
    codes = []
    for table in mutations(json.loads((folder / "gate.json").read_bytes()), seed=2):
        (folder / "gate.json").write_text(json.dumps(table), encoding="utf-8")
        try:
            found = gate_of(run)
        except HotartError as error:
            codes.append(error.exit_code)
            continue
        view = build_view(run, (), found)
        assert html(view)
        assert markdown(view)
        if found is not None:
            assert junit_xml(found, inconclusive="fail")
            assert summary_markdown(found, run, None)
    assert len(codes) > MUTATIONS / 4
    assert set(codes) <= {2, 4, 5}
