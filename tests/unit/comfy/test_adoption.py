"""A ComfyUI that outlived its miner is kept or replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miner.comfy.process_tree import boot_id, find_process
from tests.support.testbed import free_port
from tests.unit.comfy.owner import standin
from tests.unit.comfy.processes import GO_ON, Make, Orphan, is_running, killed


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_one_whose_miner_was_killed_is_kept_and_its_end_is_noticed(
    make: Make, orphan: Orphan, tmp_path: Path, ending: str
) -> None:
    port = free_port()
    pid = orphan(port)
    process = make(standin(port, tmp_path))
    process.start(GO_ON)
    assert process.pid == pid
    assert process.alive()
    assert process.rss_bytes() > 1_000_000
    if ending == "stopped":
        process.stop()
        assert not is_running(pid)
        return
    killed(pid)
    assert not process.alive()
    process.start(GO_ON)
    assert process.pid not in (None, pid)


def test_one_is_found_even_if_its_miner_was_killed_before_it_wrote_the_pid_down(
    make: Make, orphan: Orphan, tmp_path: Path
) -> None:
    port = free_port()
    pid = orphan(port)
    process = make(standin(port, tmp_path))
    (process.log_path.parent / "pid").unlink()
    process.start(GO_ON)
    assert process.pid == pid


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "boot": ""}'])
def test_a_torn_pid_file_stops_nothing(make: Make, tmp_path: Path, torn: str) -> None:
    process = make(standin(free_port(), tmp_path))
    (process.log_path.parent / "pid").write_text(torn)
    process.start(GO_ON)
    assert process.alive()


def test_one_that_does_not_answer_any_more_is_replaced(make: Make, orphan: Orphan, tmp_path: Path) -> None:
    port = free_port()
    pid = orphan(port, "--deaf-to-sigterm")
    os.kill(pid, signal.SIGSTOP)
    process = make(standin(port, tmp_path, "--deaf-to-sigterm"), adopt_timeout=0.3, stop_grace=0.05)
    process.start(GO_ON)
    assert not is_running(pid)
    assert process.alive()


def test_one_with_other_arguments_is_replaced(make: Make, orphan: Orphan, tmp_path: Path) -> None:
    pid = orphan(free_port())
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    assert not is_running(pid)
    assert process.alive()


@pytest.mark.parametrize("lie", [{"started": 1}, {"boot": "another"}], ids=["recycled id", "before a reboot"])
def test_a_process_that_only_has_the_same_id_is_left_alone(make: Make, tmp_path: Path, lie: dict[str, object]) -> None:
    process = make(standin(free_port(), tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as bystander:
        seen = find_process(bystander.pid)
        assert seen is not None
        record = {"pid": seen.pid, "started": seen.started, "boot": boot_id()} | lie
        (process.log_path.parent / "pid").write_text(json.dumps(record))
        process.start(GO_ON)
        assert bystander.poll() is None
        assert process.pid != bystander.pid
        bystander.kill()
