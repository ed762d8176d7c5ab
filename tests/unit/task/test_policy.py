"""The decisions of `policy`, as tables."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from miner.task import policy
from miner.task.policy import Allowance
from miner.task.stages import Hold, Leased
from tests.support.sample_tasks import WAY, task


@pytest.mark.parametrize(
    ("stage", "crashes", "late", "expected"),
    [
        ("leased", 0, False, "continue"),
        ("leased", 1, False, "continue"),
        ("leased", 2, False, "crashed"),
        ("leased", 0, True, "too late"),
        ("prepared", 0, False, "continue"),
        ("prepared", 0, True, "too late"),
        ("prepared", 2, False, "crashed"),
        ("prompted", 0, False, "continue"),
        ("prompted", 0, True, "continue"),  # the render loop cancels it in ComfyUI
        ("prompted", 2, False, "crashed"),
        ("rendered", 1, True, "continue"),  # finished work is delivered
        ("rendered", 2, False, "crashed"),
        ("uploaded", 2, True, "answer"),
        ("answered", 2, True, "submit"),
    ],
)
def test_after_a_restart(stage, crashes, late, expected):
    left = task(next(one for one in WAY if one.name == stage), crashes=crashes)
    deadline = policy.deadline_of(left.job or left.lease)
    assert policy.after_restart(left, now=deadline + (1.0 if late else -1.0)) == expected


class TestBackoff:
    def test_grows_to_its_cap_and_stays_there(self):
        rng = random.Random(1)
        most = [max(policy.backoff(n, rng=rng, base=0.5, cap=60.0) for _ in range(500)) for n in range(1, 12)]
        assert most[0] <= 0.5
        assert all(a < b for a, b in itertools.pairwise(most[:8]))
        assert 50.0 < most[-1] <= 60.0

    def test_has_full_jitter(self):
        rng = random.Random(1)
        waits = [policy.backoff(10, rng=rng, cap=60.0) for _ in range(2000)]
        assert min(waits) < 1.0
        assert 28.0 < sum(waits) / len(waits) < 32.0

    def test_is_at_least_retry_after(self):
        rng = random.Random(1)
        assert all(policy.backoff(1, rng=rng, at_least=7.0) >= 7.0 for _ in range(100))

    def test_a_long_outage_does_not_overflow(self):
        assert policy.backoff(10**6, rng=random.Random(1)) <= 60.0


def test_an_idle_miner_polls_once_per_interval_on_average():
    rng = random.Random(1)
    waits = [policy.idle_delay(1.0, rng=rng) for _ in range(4000)]
    assert 0.98 < sum(waits) / len(waits) < 1.02
    assert min(waits) >= 0.5
    assert max(waits) <= 1.5


def said(*replies: str | None, holds: tuple[Hold, ...] = (Hold(task_id="a"),), canceled=()):
    for running in replies:
        holds = policy.observe(holds, running=running, canceled=canceled)
    return {hold.task_id: hold.taken_away for hold in holds}


class TestSilence:
    def test_does_not_count_before_the_first_running(self):
        assert said(None, None, None, None) == {"a": False}

    def test_once_is_not_enough(self):
        assert said("a", None) == {"a": False}

    def test_twice_in_a_row_takes_the_task_away(self):
        assert said("a", None, None) == {"a": True}

    def test_twice_but_not_in_a_row_is_not_enough(self):
        assert said("a", None, "a", None) == {"a": False}

    def test_naming_another_task_is_silence_about_this_one(self):
        assert said("a", "b", "b") == {"a": True}

    @pytest.mark.parametrize(
        ("replies", "lost"),
        [
            ("abb", ""),  # it may name them in turn
            ("abbb", "a"),  # a was canceled
            ("aaaa", ""),  # it names the older one, and nothing of the other
            ("bbbb", ""),  # … the newer one
            ("ababababbbbb", ""),  # in turn, and later at random
            ("a--", "ab"),  # b was never named, but would be, now that a is not
            ("---", ""),  # never `running`
            ("a-a-", ""),
            ("a-b-", ""),
            ("ab-bb", "a"),
        ],
    )
    def test_two_tasks_are_told_apart(self, replies, lost):
        two = (Hold(task_id="a"), Hold(task_id="b"))
        told = said(*(None if one == "-" else one for one in replies), holds=two)
        assert {task_id for task_id, gone in told.items() if gone} == set(lost)

    @pytest.mark.parametrize("tasks", ["ab", "abc", "abcd"])
    def test_turns_are_no_silence(self, tasks):
        assert not any(said(*(tasks * 3), holds=tuple(Hold(task_id=one) for one in tasks)).values())

    def test_an_order_of_its_own_is_no_silence(self):
        holds = (Hold(task_id="a"), Hold(task_id="b"))
        for running in "abbbbb":
            holds = policy.observe(holds, running=running, canceled=(), eclipses=False)
        assert not any(hold.taken_away for hold in holds)

    def test_the_second_of_two_is_lost_once_it_is_alone_and_not_named(self):
        both = policy.observe((Hold(task_id="a"), Hold(task_id="b")), running="a", canceled=())
        assert said(None, None, holds=both[1:]) == {"b": True}

    def test_a_cancellation_counts_at_once(self):
        assert said("a", holds=(Hold(task_id="a"), Hold(task_id="b")), canceled=("a",)) == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("leased_at", "hold", "due"),
    [
        (90.0, {}, 110.0),
        (100.0, {}, 100.2),  # leased by that request: speak at once, so that a cancel shows
        (90.0, {"heard": True, "silences": 1}, 102.0),
        (90.0, {"named": True, "eclipses": 1}, 102.0),
        (90.0, {"named": True, "eclipses": 1, "takes_turns": True}, 110.0),
        (90.0, {"silences": 2}, 110.0),  # taken away already
    ],
)
def test_the_next_heartbeat(leased_at, hold, due):
    one = task(Leased())
    one = replace(one, lease=replace(one.lease, leased_at=leased_at), hold=Hold(task_id="a", **hold))
    assert policy.next_beat([one], asked_at=100.0, interval=10.0) == due
    assert policy.next_beat([], asked_at=100.0, interval=10.0) is None


class TestAllowance:
    def test_is_one_more_than_prefetch_until_the_sequencer_refuses(self):
        assert Allowance().now(prefetch=1, now=0.0) == 2
        assert Allowance().now(prefetch=0, now=0.0) == 1

    def test_is_the_number_in_hand_at_running(self):
        learned = policy.learn(Allowance(), held=1, running=True, leased=False, now=5.0)
        assert learned.now(prefetch=3, now=6.0) == 1

    def test_expires(self):
        learned = policy.learn(Allowance(), held=1, running=True, leased=False, now=5.0)
        assert learned.now(prefetch=3, now=5.0 + Allowance.RELEARN_AFTER) == 4

    def test_grows_after_an_unexpected_lease(self):
        learned = policy.learn(Allowance(), held=1, running=True, leased=False, now=5.0)
        assert policy.learn(learned, held=1, running=False, leased=True, now=6.0).now(prefetch=1, now=6.0) == 2

    def test_is_unchanged_when_nothing_was_in_hand(self):
        assert policy.learn(Allowance(), held=0, running=True, leased=False, now=5.0) == Allowance()


def test_only_workflows_that_finish_in_time_are_prefetched():
    seconds, timeouts = {"a": 10.0, "b": 100.0}, {"a": 60.0, "b": 60.0, "c": 60.0}
    assert policy.prefetchable(["a", "b", "c"], seconds=seconds, timeouts=timeouts, busy_for=20.0) == ("a",)
    assert policy.prefetchable(["a"], seconds=seconds, timeouts=timeouts, busy_for=50.0) == ()
