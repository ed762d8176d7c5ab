"""The ComfyUI that the miner starts: none of the miner's secrets in its process or its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.comfy.process_tree import everyone, family, look
from tests.support.canary_secrets import Findings, leaks, marked
from tests.support.testbed import Rig, free_port, rig_in

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
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_in(tmp_path) as rig:
        yield rig


def test_the_comfyui_of_ours_gets_none_of_the_environments_secrets(rig: Rig) -> None:
    rig.start_devnet()
    rig.start_worker("", comfyui__port=free_port(), environ=ENVIRONMENT)
    good, bad = rig.create(), rig.create(parameters={"image": f"http://127.0.0.1/x?{marked('imagequery')}"})
    rig.ended(good, bad)
    findings = Findings()
    comfyui = look(rig.logged("comfyui_started")[0]["pid"])
    assert comfyui is not None
    members = family(comfyui, everyone())
    assert members
    for member in members:
        with contextlib.suppress(FileNotFoundError):  # one that has just ended
            findings.look_at(member.pid)
    findings.look("/proc/cmdline", Path(f"/proc/{rig.worker.popen.pid}/cmdline").read_bytes())
    findings.look_in(rig.folder / "state" / "comfyui-embedded")
    assert findings.found == {}
    assert rig.worker.stop() == 0
    findings.look_in(rig.folder / "state")
    assert findings.found == {}
    assert leaks((rig.folder / "worker.log").read_text()) == []


def test_what_a_consumer_sent_is_gone_from_comfyuis_folders_once_it_is_answered(rig: Rig) -> None:
    rig.start_devnet()
    rig.start_worker("", comfyui__port=free_port())
    rig.ended(rig.create())
    assert rig.worker.stop() == 0
    comfyui = rig.folder / "state" / "comfyui-embedded"
    assert [
        path for name in ("input", "output", "temp") for path in (comfyui / name).rglob("*") if path.is_file()
    ] == []
    assert (rig.folder / "state").stat().st_mode & 0o077 == 0
