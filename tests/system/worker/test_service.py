"""Reloading the configuration."""

from __future__ import annotations

import signal

import pytest

from tests.support.testbed import MINER_ID, until


def test_sighup_reloads_after_finishing_the_tasks_in_hand(testbed):
    testbed.start_devnet()
    worker = testbed.start_worker(testbed.start_engine())
    testbed.ended(testbed.create())
    config = testbed.folder / "config.toml"
    config.write_text(config.read_text().replace(MINER_ID, MINER_ID + "-second"))
    worker.send(signal.SIGHUP)
    until(lambda: len(testbed.logged("started")) == 2, why="the second start")
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"
    assert task["leases"][0]["miner_id"] == MINER_ID + "-second"
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("[miner]\n", "[miner]\nprefetsch = 1\n"), "prefetsch"),
        (('level = "DEBUG"', 'level = "LOUD"'), "level"),
        (("[miner]\n", "[miner\n"), "config.toml"),
        (('"4" = ["upscaler-lanczos"]', '"4" = ["nosuch"]'), "nosuch"),
    ],
)
def test_an_invalid_new_configuration_changes_nothing(testbed, change, reason):
    testbed.start_devnet()
    worker = testbed.start_worker(testbed.start_engine())
    until(lambda: testbed.logged("started"), why="the start")
    config = testbed.folder / "config.toml"
    assert change[0] in config.read_text()
    config.write_text(config.read_text().replace(*change))
    worker.send(signal.SIGHUP)
    (refusal,) = until(lambda: testbed.logged("configuration_refused"), why="the refusal")
    assert reason in refusal["reason"]
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"
    assert worker.stop() == 0
