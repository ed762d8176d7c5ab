"""A campaign that is short enough for every run of the tests."""

from __future__ import annotations

from tests.campaigns.chaos.__main__ import in_words
from tests.campaigns.chaos.campaign import run


def test_no_task_is_lost_and_none_is_answered_twice() -> None:
    report = run(tasks=30, seed=1, every=5)
    assert report.good, in_words(report)
    assert report.tasks == 30
    assert report.answered + report.taken_away + report.never_leased >= 30
    assert sum(report.faults.values()) >= 4
