"""The unit: what systemd thinks of it, and a real `xalora-miner run` under the environment that it would give."""

from __future__ import annotations

import re
import signal
from collections import defaultdict

from miner.config import Settings
from miner.task.errors import ConfigError
from miner.worker.supervisor import EXIT_NO_COMFYUI
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


def test_a_comfyui_that_the_kernel_ends_for_memory_leaves_the_miner_alive():
    assert directives()["OOMPolicy"] == ["continue"]  # by default systemd stops the whole service


def test_a_miner_that_gave_its_comfyui_up_is_started_again():
    assert str(EXIT_NO_COMFYUI) not in directives()["RestartPreventExitStatus"][0].split()


# ---- the service ------------------------------------------------------------------------------------------------


def states(manager):
    """READY, RELOADING and STOPPING, in the order that they were told."""
    return [field for message in manager.heard for field in ("READY", "RELOADING", "STOPPING") if field in message]


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
    until(lambda: any("waiting for a task" in says for says in manager.told("STATUS")), why="a sentence")
    until(lambda: testbed.logged("started"), why="the start")
    assert directives()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]

    config = testbed.folder / "config.toml"
    right = config.read_text()
    config.write_text("[miner\n")  # refused, and so no reload
    worker.send(signal.SIGHUP)
    until(lambda: testbed.logged("configuration_refused"), why="the refusal")
    assert not manager.told("RELOADING")

    config.write_text(right.replace("poll_interval = 0.1", "poll_interval = 0.2"))
    worker.send(signal.SIGHUP)
    until(lambda: len(manager.told("READY")) == 2, why="READY after the reload")
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"

    worker.send(signal.SIGTERM)
    assert worker.stop() == 0
    assert manager.told("STOPPING")
    assert states(manager)[:3] == ["READY", "RELOADING", "READY"]
    assert set(states(manager)[3:]) == {"STOPPING"}
