"""How long a task waits for a ComfyUI that has gone, and what its output may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from miner.comfy.client import ComfyClient, OutputGone
from miner.comfy.events import EventStream
from miner.comfy.host import ComfyHost
from miner.task.stages import OutputFile
from tests.support.scripted_server import ScriptedServer, whole


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def make_host(url: str, *, time: Time | None = None, output_dir: Path | None = None) -> ComfyHost:
    stream = EventStream(url, client_id="c")
    return ComfyHost(ComfyClient(url, client_id="c"), stream, clock=time or Time(), output_dir=output_dir)


@pytest.mark.parametrize(
    ("left", "patience"),
    [(10.0, 20.0), (60.0, 20.0), (120.0, 40.0), (300.0, 100.0), (600.0, 120.0), (3600.0, 120.0)],
)
def test_a_task_waits_for_a_third_of_its_time(left: float, patience: float) -> None:
    """`left` when ComfyUI went."""
    time = Time()
    host = make_host("http://127.0.0.1:1", time=time)
    host.ready.set()
    assert not host.gone_for_good(left=left)
    host.suspect("gone")
    for waited in (0.0, patience - 0.1, patience + 0.1):
        time.now = 1000.0 + waited
        assert host.gone_for_good(left=left - waited) == (waited > patience)
    host.ready.set()
    assert not host.gone_for_good(left=left)
    host.close()


@pytest.fixture
def viewer() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


FILE = OutputFile(filename="out.png", subfolder="xalora/id", kind="output")


@pytest.mark.parametrize("where", ["local", "remote"])
def test_an_empty_output_is_the_disks_fault(tmp_path: Path, viewer: ScriptedServer, where: str) -> None:
    """ComfyUI said success; the disk was full."""
    viewer.serve(whole(b""), "/view")
    folder = tmp_path / "output" / "xalora" / "id"
    folder.mkdir(parents=True)
    (folder / "out.png").write_bytes(b"")
    host = make_host(viewer.url, output_dir=tmp_path / "output" if where == "local" else None)
    with pytest.raises(OutputGone, match="empty") as caught:
        host.fetch(FILE, tmp_path)
    assert caught.value.fault == "disk"
    host.close()


def test_a_missing_output_is_this_machines_fault(tmp_path: Path, viewer: ScriptedServer) -> None:
    host = make_host(viewer.url, output_dir=tmp_path)
    with pytest.raises(OutputGone):
        host.fetch(FILE, tmp_path)
    host.close()
