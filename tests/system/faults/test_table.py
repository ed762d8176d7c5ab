"""Every fault at every step: what the sequencer must end up with. A new one is a line here, and maybe a fault there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from tests.support.relayed_testbed import STEPS, RelayedTestbed, Step
from tests.system.faults.breaking import FAULTS

DONE = ("finished", "")
LOST = ("failed", "the miner lost this task in a restart before it could start; please create it again")
NOT_HEARD = ("failed", "the reply that handed this task out did not reach the miner; please create it again")
REFUSED = ("failed", "the upload target refused the file (403)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault at a step. `expect`: the status of the task, and the message of its answer."""

    fault: str
    at: Step
    expect: tuple[str, str] = DONE
    acted: bool = False  # the other side has acted on the call that is held, and its reply is under way
    target: str = "presigned"

    def __str__(self) -> str:
        acted = ", which had arrived" if self.acted else ""
        return f"{self.fault}, {self.at}{acted}{'' if self.target == 'presigned' else ', s3'}"


def everywhere(fault: str, expect: tuple[str, str] = DONE, **exceptions: tuple[str, str]) -> Iterator[Case]:
    """The fault at every step; `exceptions` are steps that end in another way."""
    return (Case(fault=fault, at=step, expect=exceptions.get(step, expect)) for step in STEPS)


CASES = [
    # what the miner never saw, or no longer knows, it answers with a failure
    *everywhere("miner killed", leased=LOST),
    *everywhere("miner killed, journal cut off", LOST),
    *everywhere("engine and miner killed", leased=LOST),
    Case(fault="miner killed", at="prompted", acted=True),
    Case(fault="miner killed", at="answered", acted=True),
    Case(fault="miner killed, back before it goes on", at="rendering"),
    Case(fault="miner killed one record earlier", at="prepared"),
    Case(fault="miner killed one record earlier", at="answered"),
    *(Case(fault="disk full", at=step) for step in STEPS if step not in ("uploaded", "answered")),
    *everywhere("engine killed"),
    *everywhere("engine restarted"),
    *everywhere("engine stopped"),
    Case(fault="engine killed", at="prompted", acted=True),
    *everywhere("websocket dropped"),
    *everywhere("sequencer killed"),
    *everywhere("sequencer away", leased=NOT_HEARD),
    *everywhere("sequencer resets", leased=NOT_HEARD),
    *everywhere("sequencer says garbage", leased=NOT_HEARD),
    *everywhere("sequencer says 500", leased=NOT_HEARD),
    *everywhere("sequencer says 429", leased=NOT_HEARD),
    *(
        Case(fault=f"sequencer {what}", at="answered", acted=True)
        for what in ("away", "resets", "says garbage", "says 500", "says 429")
    ),
    *(
        Case(fault=f"upload {what}", at="rendered", target=target, expect=expect)
        for (what, expect), target in product(
            (("says 403", REFUSED), ("says 500", DONE), ("says 429", DONE), ("hangs", DONE), ("is cut", DONE)),
            ("presigned", "s3"),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_task_is_answered_once(case: Case, testbed: RelayedTestbed) -> None:
    before = testbed.devnet.stats()["violations"]
    testbed.begin(case.at, acted=case.acted, target=case.target)
    with FAULTS[case.fault](testbed):
        testbed.held.release()
    task = testbed.end()
    stats = testbed.devnet.stats()
    verdicts = [answer["verdict"] for answer in task["answers"]]
    assert (task["status"], task["msg"]) == case.expect
    assert verdicts.count("first") == 1
    assert set(verdicts) <= {"first", "repeat"}
    assert stats["violations"] == before, stats["violation_list"]
    if case.expect == DONE:
        assert len(testbed.result(task)) > 0
