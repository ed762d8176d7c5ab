"""Recovery after a restart: missing files, missing workflows, damaged records."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

from miner.worker.lane.recover import CRASHED
from tests.support.relayed_testbed import RelayedTestbed
from tests.support.testbed import Testbed, until


def test_a_rendered_task_whose_files_are_gone_is_rendered_again(relayed: RelayedTestbed) -> None:
    relayed.begin("rendered")
    relayed.worker.kill()
    relayed.held.drop()
    shutil.rmtree(relayed.folder / "engine" / "output" / "xalora")
    relayed.restart_worker()
    assert relayed.end()["status"] == "finished"


def test_a_task_whose_workflow_was_removed_is_answered(relayed: RelayedTestbed) -> None:
    relayed.begin("prepared")
    relayed.worker.kill()
    relayed.held.drop()
    config = relayed.folder / "config.toml"
    there = f'folders = ["{relayed.workflows}"]'
    config.write_text(config.read_text().replace('"gated"', '"upscaler-lanczos"').replace(there, "folders = []"))
    relayed.restart_worker()
    assert relayed.end()["status"] == "failed"


def test_an_unreadable_record_fails_only_its_task(relayed: RelayedTestbed) -> None:
    relayed.begin("prepared")
    relayed.worker.kill()
    relayed.held.drop()
    with closing(sqlite3.connect(relayed.state / "journal.db", isolation_level=None)) as journal:
        journal.execute("UPDATE tasks SET record = substr(record, 1, length(record) / 2)")
    relayed.restart_worker()
    assert relayed.end()["status"] == "failed"
    (good,) = relayed.ended(relayed.create(parameters={"image": f"{relayed.inputs.url}/cell-1.png"}))
    assert good["status"] == "finished"


def test_with_a_shared_folder_a_result_is_uploaded_while_comfyui_is_down(testbed: Testbed) -> None:
    """The file is on this disk."""
    testbed.start_devnet()
    engine = testbed.start_engine()
    testbed.start_worker(engine, comfyui__output_dir=str(testbed.folder / "engine" / "output"))
    testbed.devnet.fault("fail", "store_put")
    task_id = testbed.create()
    until(lambda: testbed.logged("upload_failed"), why="an upload in vain")
    testbed.worker.kill()
    testbed.engine.kill()
    testbed.devnet.clear_faults()
    testbed.restart_worker()
    (task,) = testbed.ended(task_id, patience=25.0)
    assert task["status"] == "finished"


def test_a_start_that_is_refused_counts_as_no_crash_of_a_task(relayed: RelayedTestbed) -> None:
    relayed.begin("rendering")
    relayed.worker.kill()
    config = relayed.folder / "config.toml"
    right = config.read_text()
    config.write_text(right.replace("[miner]\n", '[miner]\nsuffixes = ["a", "b"]\n'))
    for _ in range(3):
        relayed.restart_worker()
        assert relayed.worker.popen is not None
        assert relayed.worker.popen.wait(30) == 78
        relayed.worker.kill()
    config.write_text(right)
    relayed.restart_worker()
    until(lambda: relayed.logged("task_picked_up"), why="the new start")
    relayed.held.release()
    assert relayed.end()["status"] == "finished"


def test_a_task_that_crashed_two_runs_is_answered_and_not_retried(relayed: RelayedTestbed) -> None:
    relayed.begin("rendering")
    for run in range(2):
        relayed.worker.kill()
        relayed.restart_worker()
        until(lambda count=run + 1: len(relayed.logged("task_picked_up")) == count, why="the new start")
    task = relayed.end()
    assert (task["status"], task["msg"]) == ("failed", CRASHED)
    until(lambda: not relayed.queue()["queue_running"], why="the end of its prompt in ComfyUI")
    (good,) = relayed.ended(relayed.create(parameters={"image": f"{relayed.inputs.url}/cell-1.png"}))
    assert good["status"] == "finished"
