"""A campaign that is short enough for every run of the tests."""

from __future__ import annotations

from tests.campaigns.chaos.__main__ import in_words
from tests.campaigns.chaos.campaign import run


def test_no_task_is_lost_or_answered_twice_the_right_one_is_blamed_and_nothing_is_left_behind() -> None:
    report = run(tasks=30, seed=1, every=5)
    assert report.good, in_words(report)
    assert report.tasks == 30
    assert report.answered + report.taken_away + report.never_leased >= 30
    assert sum(report.faults.values()) >= 4
