"""A campaign that is short enough for every run of the tests."""

from __future__ import annotations

from tests.campaigns.chaos.__main__ import in_words
from tests.campaigns.chaos.campaign import run


def test_no_task_is_lost_or_answered_twice_and_the_right_one_is_blamed() -> None:
    report = run(tasks=30, seed=1, every=5)
    wrong = (report.lost, report.answered_after_the_acknowledgement, report.wrongly_blamed, report.bugs)
    assert not any(wrong), in_words(report)
    assert report.ready_again, in_words(report)
    assert report.tasks == 30
    assert report.answered + report.taken_away + report.never_leased >= 30
    assert sum(report.faults.values()) >= 4
