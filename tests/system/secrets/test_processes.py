"""The ComfyUI that the miner starts: none of the miner's secrets in its process or its files."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from miner.comfy.process_tree import all_processes, find_process, members
from tests.support import flows
from tests.support.canary_secrets import Findings, marked
from tests.support.testbed import Testbed, free_port, until

ENVIRONMENT = {
    "XALORA_API_KEY": marked("apikey"),
    "XALORA_STATUS_TOKEN": marked("statustoken"),
    "AWS_SECRET_ACCESS_KEY": marked("aws"),
    "HF_TOKEN": marked("huggingface"),
    "NVIDIA_API_KEY": marked("nvidia"),
    "GITHUB_TOKEN": marked("github"),
    "HTTPS_PROXY": f"http://user:{marked('proxy')}@127.0.0.1:9",
    "SSH_AUTH_SOCK": f"/tmp/{marked('ssh')}",
    "COMFYUI_PASSWORD": marked("comfyui"),
    "PYTHONPATH_SECRET": marked("prefix"),
}


def test_the_comfyui_of_ours_gets_none_of_the_environments_secrets(testbed: Testbed) -> None:
    testbed.start_devnet()
    temporary = testbed.folder / "tmp"
    temporary.mkdir()
    testbed.start_worker("", comfyui__port=free_port(), environ={**ENVIRONMENT, "TMPDIR": str(temporary)})
    good, bad = testbed.create(), testbed.create(parameters={"image": f"http://127.0.0.1/x?{marked('imagequery')}"})
    testbed.ended(good, bad)
    findings = Findings()
    comfyui = find_process(testbed.logged("comfyui_started")[0]["pid"])
    assert comfyui is not None
    started = members(comfyui, all_processes())
    assert started
    for process in started:
        with contextlib.suppress(FileNotFoundError):  # one that has just ended
            findings.look_at(process.pid)
    findings.look("/proc/cmdline", Path(f"/proc/{testbed.worker.popen.pid}/cmdline").read_bytes())
    findings.look_in(testbed.folder / "state" / "comfyui-embedded")
    assert findings.found == {}
    assert testbed.worker.stop() == 0
    shutil.rmtree(testbed.folder / "devnet")  # it keeps what its consumer said
    findings.look_in(testbed.folder)
    assert findings.found == {}


@pytest.mark.parametrize("external", [False, True], ids=["managed", "external"])
def test_what_a_consumer_sent_is_gone_from_every_folder_however_the_task_ended(
    testbed: Testbed, managed: dict[str, Any], *, external: bool
) -> None:
    """ComfyUI's folders, the state and the temporary files, after a success, three failures and a cancelation."""
    ids = {
        "4": ["upscaler-lanczos"],
        "5": [testbed.add_workflow("fails", flows.fail("error", loads=True), parameters=flows.IMAGE)],
        "6": [testbed.add_workflow("waits", flows.wait(600.0, loads=True), parameters=flows.IMAGE)],
    }
    temporary = testbed.folder / "tmp"
    temporary.mkdir()
    testbed.start_devnet()
    comfyui, url, settings = testbed.folder / "state" / "comfyui-default", "", managed
    if external:
        comfyui, url = testbed.folder / "engine", testbed.start_engine()
        settings = {f"comfyui__{name}_dir": str(comfyui / name) for name in ("input", "output")}
    testbed.start_worker(url, workflows=ids, environ={"TMPDIR": str(temporary)}, **settings)
    good = testbed.create()
    refused = testbed.create(parameters={"image": testbed.picture().replace("in.png", "none.png")})
    failed = testbed.create(workflow_id="5")
    assert [task["status"] for task in testbed.ended(good, refused, failed)] == ["finished", "failed", "failed"]
    testbed.devnet.fault("fail", "store_put", status=403)
    assert testbed.ended(testbed.create())[0]["status"] == "failed"
    canceled = testbed.create(workflow_id="6")
    until(lambda: testbed.logged("task_step", task_id=canceled, step="prompted"), why="the render")
    assert files_in(comfyui / "input")
    testbed.cancel(canceled)
    until(lambda: testbed.logged("task_lost", task_id=canceled), why="the loss")
    assert testbed.worker.stop() == 0
    assert [path for name in ("input", "output", "temp") for path in files_in(comfyui / name)] == []
    assert files_in(temporary) == []
    assert (testbed.folder / "state").stat().st_mode & 0o077 == 0


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
