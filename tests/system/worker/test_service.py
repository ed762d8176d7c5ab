"""The worker as a service: what it tells systemd, and how it takes a new configuration."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.testbed import MINER_ID, until


@pytest.fixture
def ear(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(0.02)
        yield ear


def hear(ear, heard):
    try:
        heard.append(dict(line.split("=", 1) for line in ear.recv(4096).decode().splitlines()))
    except TimeoutError:
        return


def test_systemd_hears_of_start_life_and_end(testbed, ear, tmp_path):
    heard = []

    def told(*fields):
        hear(ear, heard)
        return any(set(fields) <= set(message) for message in heard)

    testbed.start_devnet()
    worker = testbed.start_worker(
        testbed.start_engine(), environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    )
    until(lambda: told("READY"), why="READY")
    until(lambda: told("WATCHDOG", "STATUS"), why="WATCHDOG")
    until(lambda: told() or any("waiting for a task" in m.get("STATUS", "") for m in heard), why="a sentence")
    worker.send(signal.SIGTERM)
    until(lambda: told("STOPPING"), why="STOPPING")
    assert worker.stop() == 0


def test_sighup_takes_a_new_configuration_and_finishes_what_is_in_hand(testbed):
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
def test_a_wrong_new_configuration_changes_nothing(testbed, change, reason):
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
