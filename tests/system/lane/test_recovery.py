"""A new start with what the world looks like now: files that are gone, workflows that are gone, a damaged record."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

from tests.support.scene import Scene
from tests.support.testbed import Rig, until


def test_a_rendered_task_whose_files_are_gone_is_rendered_again(scene: Scene) -> None:
    scene.begin("rendered")
    scene.rig.worker.kill()
    scene.held.drop()
    shutil.rmtree(scene.rig.folder / "engine" / "output" / "xalora")
    scene.rig.restart_worker()
    assert scene.ended()["status"] == "finished"


def test_a_task_whose_workflow_was_taken_out_is_answered(scene: Scene) -> None:
    scene.begin("prepared")
    rig = scene.rig
    rig.worker.kill()
    scene.held.drop()
    config = rig.folder / "config.toml"
    there = f'folders = ["{rig.workflows}"]'
    config.write_text(config.read_text().replace('"gated"', '"upscaler-lanczos"').replace(there, "folders = []"))
    rig.restart_worker()
    assert scene.ended()["status"] == "failed"


def test_a_record_that_cannot_be_read_costs_its_task_a_failure_and_no_other_one_anything(scene: Scene) -> None:
    scene.begin("prepared")
    rig = scene.rig
    rig.worker.kill()
    scene.held.drop()
    with closing(sqlite3.connect(scene.state / "journal.db", isolation_level=None)) as journal:
        journal.execute("UPDATE tasks SET record = substr(record, 1, length(record) / 2)")
    rig.restart_worker()
    assert scene.ended()["status"] == "failed"
    (good,) = rig.ended(rig.create(parameters={"image": f"{scene.inputs.url}/cell-1.png"}))
    assert good["status"] == "finished"


def test_a_result_is_uploaded_though_comfyui_is_down_where_its_folder_is_shared(rig: Rig) -> None:
    """The file is on this disk, so nobody has to be asked for it."""
    rig.start_devnet()
    engine = rig.start_engine()
    rig.start_worker(engine, comfyui__output_dir=str(rig.folder / "engine" / "output"))
    rig.devnet.fault("fail", "store_put")
    task_id = rig.create()
    until(lambda: rig.logged("upload_failed"), why="an upload in vain")
    rig.worker.kill()
    rig.engine.kill()
    rig.devnet.clear_faults()
    rig.restart_worker()
    (task,) = rig.ended(task_id, patience=25.0)
    assert task["status"] == "finished"
