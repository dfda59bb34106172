"""Commands that are interrupted anywhere: a seeded tenth of ``nox -s interrupts``."""

from __future__ import annotations

import interrupts


def test_no_interrupted_command_ends_well_with_its_work_undone_and_each_goes_on_when_given_again() -> None:
    said: list[str] = []
    moments = interrupts.interrupt_all(20, 20, said.append)
    assert len(moments) == 20
    assert {one.verb for one in moments} == set(interrupts.JOBS)
    assert not [one for one in moments if one.problems], "\n".join(said)
    assert any(one.code == 130 for one in moments)
