"""Run folders with limits, for the verbs that gate and freeze them."""

import msgspec
from fake_tables import EFFECT
from fakes import make_run, write_run
from msgspec.structs import replace

from bench.suite.limits import parse_limits

LIMITS = {"mini-clip": "0.5sd", "mini-aesthetic": "0.5sd"}
LOSS = 0.08
"""More than twice what 0.5 standard deviations of the prompts allow."""
PLANTED = {**EFFECT, "spo": {**EFFECT["spo"], "mini-clip": -LOSS}}


def make_folder(path, limits=LIMITS, **arguments):
    """A run folder of base and spo with limits, and no images: no gate opens one."""
    run = make_run(path, **{"variants": ("base", "spo"), "prompts": 40, **arguments})
    run = replace(run, info=replace(run.info, suite=replace(run.info.suite, limits=parse_limits(limits))))
    write_run(replace(run, renders=()), path)
    lines = b"".join(msgspec.json.encode(render) + b"\n" for render in run.renders)
    (path / "renders.jsonl").write_bytes(lines)
    return path
