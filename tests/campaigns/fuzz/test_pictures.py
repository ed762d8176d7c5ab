"""A short round of the campaign: each format, and every mutation."""

from __future__ import annotations

from tests.campaigns.fuzz.pictures import run


def test_a_mutated_picture_is_taken_or_refused_at_a_bounded_cost() -> None:
    tallies = run(count=70, seed=1, folder=None)
    assert len(tallies) == 7
    assert {kind: tally.faults for kind, tally in tallies.items() if tally.faults} == {}
    assert sum(tally.ends["refused"] for tally in tallies.values()) > 10
    assert sum(tally.ends["taken"] for tally in tallies.values()) > 10
