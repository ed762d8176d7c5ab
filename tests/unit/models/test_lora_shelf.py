from __future__ import annotations

import pytest

from miner.models.lora_shelf import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, PROBE, Breaker, Kept, to_evict


def kept(name: str, used_at: float, size: int = 10) -> Kept:
    key = frozenset({name})
    return Kept(sha256=name, size=size, base="", keys=key, origin=name, used_at=used_at, fetched_at=0.0)


SHELF = [kept("new", 9.0), kept("old", 1.0), kept("mid", 5.0), kept("big", 3.0, size=40)]  # 70 bytes


@pytest.mark.parametrize(
    ("room", "taken", "quota", "needed", "going"),
    [
        (10, 0, 100, (), []),
        (30, 0, 100, (), []),
        (31, 0, 100, (), ["old"]),
        (30, 1, 100, (), ["old"]),  # what others download counts
        (41, 0, 100, (), ["old", "big"]),
        (31, 0, 100, ("old",), ["big"]),  # the least recently used that no task needs
        (31, 0, 100, ("old", "big"), ["mid"]),
        (31, 0, 100, ("old", "big", "mid", "new"), None),
        (60, 0, 100, ("big",), ["old", "mid", "new"]),
        (61, 0, 100, ("big",), None),  # nothing goes where that is not enough
        (100, 0, 100, (), ["old", "big", "mid", "new"]),
        (101, 0, 100, (), None),
    ],
)
def test_the_least_recently_used_go_and_none_that_is_needed(
    room: int, taken: int, quota: int, needed: tuple[str, ...], going: list[str] | None
) -> None:
    found = to_evict(SHELF, needed=needed, room=room, taken=taken, quota=quota)
    assert (None if found is None else [one.origin for one in found]) == going


def test_a_host_is_left_alone_after_some_failures_and_then_tried_by_one() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        assert not breaker.failed("h", "it stalls", now=0.0)
    assert breaker.refusal("h", now=0.0) == ""
    assert breaker.failed("h", "it stalls", now=0.0)
    assert breaker.refusal("h", now=FIRST_PAUSE - 1) == "it stalls, and is left alone for a while"
    assert breaker.refusal("other", now=0.0) == ""
    assert breaker.refusal("h", now=FIRST_PAUSE) == ""  # the one
    assert breaker.refusal("h", now=FIRST_PAUSE + 1) != ""
    assert breaker.refusal("h", now=FIRST_PAUSE + PROBE) == ""  # it never told
    assert breaker.failed("h", "it stalls", now=200.0)
    assert breaker.refusal("h", now=200.0 + FIRST_PAUSE) != ""  # longer each time
    for _ in range(20):
        breaker.failed("h", "it stalls", now=200.0)
    assert breaker.refusal("h", now=200.0 + LONGEST_PAUSE) == ""
    breaker.worked("h")
    assert not breaker.failed("h", "it stalls", now=300.0)


def test_a_host_that_refuses_all_is_left_alone_at_once() -> None:
    breaker = Breaker()
    assert breaker.failed("h", "it is blocked", now=0.0, for_all=True)
