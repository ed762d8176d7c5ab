"""The unit: what systemd thinks of it, and a real `xalora-miner run` under the environment that it would give."""

from __future__ import annotations

import re
import signal
import socket
from collections import defaultdict

import pytest

from miner.config import Settings
from miner.task.errors import ConfigError
from tests.support.testbed import until
from tests.system.shipping.tools import DOCKER, output, program

UNIT = DOCKER / "systemd" / "xalora-miner.service"


def directives() -> dict[str, list[str]]:
    found = defaultdict(list)
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[key].append(value)
    return found


# ---- the file ---------------------------------------------------------------------------------------------------


def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    analyze = program("systemd-analyze", package="apt install systemd")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/xalora-miner/bin/xalora-miner", "/bin/sh"))  # one that is here
    assert output(analyze, "verify", "--man=no", unit) == ""


def test_the_unit_is_exposed_to_two_of_ten_at_most():
    analyze = program("systemd-analyze", package="apt install systemd")
    report = output(analyze, "security", "--offline=true", "--threshold=20", UNIT)
    assert "Overall exposure level" in report


def test_a_stop_leaves_time_to_drain_and_to_answer():
    drain = Settings(state={"dir": "/state"}).miner.drain_timeout
    assert int(directives()["TimeoutStopSec"][0]) >= drain + 60
    assert directives()["KillMode"] == ["mixed"]  # ComfyUI renders on while the miner drains


def test_the_watchdog_bites_only_after_several_missed_signs_of_life():
    assert int(directives()["WatchdogSec"][0]) >= 6 * 10  # the worker gives one every 10 s


def test_wrong_settings_are_not_tried_again():
    assert directives()["Restart"] == ["on-failure"]  # `xalora-miner drain` ends it for good
    assert str(ConfigError.exit_code) in directives()["RestartPreventExitStatus"][0].split()


# ---- the service ------------------------------------------------------------------------------------------------


class Manager:
    """systemd's ear: hears what the service tells through NOTIFY_SOCKET."""

    def __init__(self, folder):
        self.address = folder / "notify"
        self.heard: list[dict[str, str]] = []
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(self.address))
        self._ear.settimeout(0.02)

    def close(self):
        self._ear.close()

    def told(self, field):
        """How often the field was told so far."""
        try:
            while True:
                message = self._ear.recv(4096).decode()
                self.heard.append(dict(line.split("=", 1) for line in message.splitlines()))
        except TimeoutError:
            return sum(field in message for message in self.heard)

    def states(self):
        """READY, RELOADING and STOPPING, in the order that they were told."""
        return [field for message in self.heard for field in ("READY", "RELOADING", "STOPPING") if field in message]


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def start_as_service(testbed, manager, **settings):
    """The unit's environment: its watchdog, its credentials."""
    credentials = testbed.folder / "credentials"
    credentials.mkdir(exist_ok=True)
    for name in directives()["LoadCredential"]:
        (credentials / name.partition(":")[0]).write_text("devnet\n")
    return testbed.start_worker(
        testbed.start_engine(),
        environ={
            "NOTIFY_SOCKET": str(manager.address),
            "WATCHDOG_USEC": str(int(directives()["WatchdogSec"][0]) * 1_000_000),
            "CREDENTIALS_DIRECTORY": str(credentials),
        },
        **settings,
    )


def test_a_service_is_ready_lives_reloads_and_stops(testbed, manager):
    testbed.start_devnet()
    worker = start_as_service(testbed, manager)
    until(lambda: manager.told("READY"), why="READY")
    until(lambda: manager.told("WATCHDOG"), why="WATCHDOG")
    until(lambda: testbed.logged("started"), why="the start")
    assert directives()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]

    config = testbed.folder / "config.toml"
    right = config.read_text()
    config.write_text("[miner\n")  # refused, and so no reload
    worker.send(signal.SIGHUP)
    until(lambda: testbed.logged("configuration_refused"), why="the refusal")
    assert manager.told("RELOADING") == 0

    config.write_text(right.replace("poll_interval = 0.1", "poll_interval = 0.2"))
    worker.send(signal.SIGHUP)
    until(lambda: manager.told("READY") == 2, why="READY after the reload")
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"

    worker.send(signal.SIGTERM)
    assert worker.stop() == 0
    assert manager.told("STOPPING")
    assert manager.states()[:3] == ["READY", "RELOADING", "READY"]
    assert set(manager.states()[3:]) == {"STOPPING"}
