"""Low disk stops leasing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from miner.machine.disk import LOOK_EVERY, Disk
from tests.support.testbed import Testbed, until

GB = 10**9


def test_disk_is_low_below_the_limit(tmp_path: Path) -> None:
    now = 0.0
    ballast = tmp_path / "ballast"
    free = shutil.disk_usage(tmp_path).free
    disk = Disk(folders=[tmp_path, tmp_path / "not there"], least_gb=(free - 0.5 * GB) / GB, clock=lambda: now)
    assert not disk.low()
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, GB)
    assert not disk.low()  # cached
    now += LOOK_EVERY
    assert disk.low()
    ballast.unlink()
    now += LOOK_EVERY
    assert not disk.low()


def test_no_task_is_leased_and_the_log_says_why(testbed: Testbed) -> None:
    testbed.start_devnet()
    task_id = testbed.create()
    testbed.start_worker(testbed.start_engine(), miner__min_free_disk_gb=1e6)
    until(lambda: testbed.logged("not_leasing", reason="less than 1e+06 GB of free disk"), why="the reason")
    assert testbed.task(task_id)["status"] == "waiting"
    assert testbed.worker.stop() == 0
