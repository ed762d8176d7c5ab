"""The ComfyUI that the miner starts: none of the miner's secrets in its process or its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.comfy.process_tree import all_processes, find_process, members
from tests.support.canary_secrets import Findings, leaks, marked
from tests.support.testbed import Testbed, free_port

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


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path) as testbed:
        yield testbed


def test_the_comfyui_of_ours_gets_none_of_the_environments_secrets(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.start_worker("", comfyui__port=free_port(), environ=ENVIRONMENT)
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
    findings.look_in(testbed.folder / "state")
    assert findings.found == {}
    assert leaks((testbed.folder / "worker.log").read_text()) == []


def test_what_a_consumer_sent_is_gone_from_comfyuis_folders_once_it_is_answered(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.start_worker("", comfyui__port=free_port())
    testbed.ended(testbed.create())
    assert testbed.worker.stop() == 0
    comfyui = testbed.folder / "state" / "comfyui-embedded"
    assert [
        path for name in ("input", "output", "temp") for path in (comfyui / name).rglob("*") if path.is_file()
    ] == []
    assert (testbed.folder / "state").stat().st_mode & 0o077 == 0
