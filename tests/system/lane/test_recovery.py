"""A new start with what the world looks like now: files that are gone, workflows that are gone, a damaged record."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

from tests.support.scene import Scene
from tests.support.testbed import Testbed, until


def test_a_rendered_task_whose_files_are_gone_is_rendered_again(scene: Scene) -> None:
    scene.begin("rendered")
    scene.testbed.worker.kill()
    scene.held.drop()
    shutil.rmtree(scene.testbed.folder / "engine" / "output" / "xalora")
    scene.testbed.restart_worker()
    assert scene.ended()["status"] == "finished"


def test_a_task_whose_workflow_was_taken_out_is_answered(scene: Scene) -> None:
    scene.begin("prepared")
    testbed = scene.testbed
    testbed.worker.kill()
    scene.held.drop()
    config = testbed.folder / "config.toml"
    there = f'folders = ["{testbed.workflows}"]'
    config.write_text(config.read_text().replace('"gated"', '"upscaler-lanczos"').replace(there, "folders = []"))
    testbed.restart_worker()
    assert scene.ended()["status"] == "failed"


def test_a_record_that_cannot_be_read_costs_its_task_a_failure_and_no_other_one_anything(scene: Scene) -> None:
    scene.begin("prepared")
    testbed = scene.testbed
    testbed.worker.kill()
    scene.held.drop()
    with closing(sqlite3.connect(scene.state / "journal.db", isolation_level=None)) as journal:
        journal.execute("UPDATE tasks SET record = substr(record, 1, length(record) / 2)")
    testbed.restart_worker()
    assert scene.ended()["status"] == "failed"
    (good,) = testbed.ended(testbed.create(parameters={"image": f"{scene.inputs.url}/cell-1.png"}))
    assert good["status"] == "finished"


def test_a_result_is_uploaded_though_comfyui_is_down_where_its_folder_is_shared(testbed: Testbed) -> None:
    """The file is on this disk, so nobody has to be asked for it."""
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
