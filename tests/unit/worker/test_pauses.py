"""What stops the leasing."""

from __future__ import annotations

import pytest

from miner.media.s3 import TargetFault
from miner.net.egress import NetworkFault
from miner.task.blame import Health
from miner.task.errors import MachineFault
from miner.worker.lane.pauses import Pauses


@pytest.mark.parametrize(
    ("fault", "faults", "others_too"),
    [
        (TargetFault("no such bucket"), 1, True),  # every task with credentials would end alike
        (NetworkFault("away"), Health.FAULTS_UNTIL_TRIAL, True),
        (MachineFault("odd"), Health.FAULTS_UNTIL_TRIAL, False),
    ],
)
def test_how_many_faults_pause_what(fault: MachineFault, faults: int, others_too: bool) -> None:
    pauses = Pauses(clock=lambda: 1000.0)
    for number in range(faults):
        assert pauses.awake(["a", "b"], in_hand=()) == ("a", "b")
        pauses.failed("a", fault, task_id=f"t{number}", attempts=0)
    assert pauses.awake(["a", "b"], in_hand=()) == (() if others_too else ("b",))
    assert pauses.reason("a") == fault.message
