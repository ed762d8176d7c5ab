"""New models are advertised without a restart, and without disturbing a render."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from miner.comfy.client import ComfyClient
from miner.comfy.events import EventStream
from miner.comfy.host import ComfyHost
from miner.config.bundled import WORKFLOWS
from miner.machine.disk import Disk
from miner.models.folder_watch import FolderWatch
from miner.models.folders import ModelFolders
from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Lease
from miner.telemetry.liveness import Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.refresh import ASK_EVERY, ASK_EVERY_WHILE_IDLE, MAX_DELAY, RETRY, Refresh
from miner.worker.lane.shutdown import Shutdown
from miner.workflows import load_library
from tests.support.engine import make_home
from tests.support.paths import ROOT
from tests.support.relay import Relay
from tests.support.testbed import Process, Testbed, free_port, until

WEIGHTS = b"\2\0\0\0\0\0\0\0{}"  # a safetensors file without tensors
PAGE = b"<!doctype html><html>Sign in</html>"
MODEL = Path("upscale_models") / "RealESRGAN_x4plus.safetensors"


@dataclass
class Bench:
    """A refresh loop run step by step, with an empty models folder."""

    models: Path
    relay: Relay
    host: ComfyHost
    ledger: Ledger
    capabilities: Capabilities
    refresh: Refresh
    now: float = 1000.0

    def at(self, now: float) -> int:
        """How often ComfyUI is asked when the loop turns at `now`."""
        self.now = now
        before = self._asked()
        self.refresh.look()
        return self._asked() - before

    def put_model(self, data: bytes = WEIGHTS) -> None:
        (self.models / MODEL).parent.mkdir(parents=True, exist_ok=True)
        (self.models / MODEL).write_bytes(data)

    def take_a_task(self) -> None:
        lease = Lease(
            task_id="t",
            task_type="upscaler",
            workflow_id="4",
            parameters={},
            target=None,
            timeout_seconds=None,
            leased_at=self.now,
        )
        self.ledger.take(lease)

    def _asked(self) -> int:
        return sum(line.startswith(b"GET /object_info") for line in self.relay.seen)


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL, and its models folder."""
    base = tmp_path_factory.mktemp("engine")
    command = [sys.executable, "-m", "tests.system.lane.with_models", "--port", "0", "--base-directory", str(base)]
    process = Process(command, base / "engine.log", env={"PYTHONPATH": str(ROOT)}).start()
    yield process.first_line(), base / "models"
    process.kill()


@pytest.fixture
def bench(comfyui: tuple[str, Path], tmp_path: Path) -> Iterator[Bench]:
    url, models = comfyui
    shutil.rmtree(models, ignore_errors=True)
    with ExitStack() as stack:
        relay = stack.enter_context(closing(Relay(url)))
        journal = stack.enter_context(closing(Journal(tmp_path)))
        ledger = Ledger(miner_id="m", journal=journal, folder=tmp_path)
        capabilities = Capabilities(
            load_library([WORKFLOWS], ids={}),
            enabled=["upscaler"],
            refuse_unknown=False,
            on_cpu=["upscaler"],
            model_folders=ModelFolders(models),
            clock=lambda: bench.now,
        )
        disk = Disk(folders=[], least_gb=0.0)
        host = ComfyHost(
            ComfyClient(relay.url, client_id="x"),
            EventStream(relay.url, client_id="x"),
            on_ready=lambda nodes, stats: capabilities.refresh(nodes, stats) and None,
        )
        stack.callback(host.close)
        refresh = Refresh(
            ledger=ledger,
            host=host,
            capabilities=capabilities,
            disk=disk,
            folder_watch=FolderWatch([models]),
            shutdown=Shutdown(),
            ask_anew=ledger.wake,
            liveness=Liveness(),
            clock=lambda: bench.now,
        )
        bench = Bench(models=models, relay=relay, host=host, ledger=ledger, capabilities=capabilities, refresh=refresh)
        host.ensure(Event())
        yield bench


def test_a_new_model_makes_one_request_and_one_log_line(bench: Bench) -> None:
    version = bench.ledger.version
    bench.put_model()
    with capture_logs() as lines:
        assert [bench.at(now) for now in (1001, 1002, 1003, 1004)] == [0, 1, 0, 0]
    assert bench.capabilities.runnable == ("upscaler",)
    assert [(line["event"], line["came"]) for line in lines] == [("workflows_advertised", ["upscaler"])]
    assert bench.ledger.version > version  # so that the lane asks for it at once


def test_a_removed_model_is_no_longer_advertised(bench: Bench) -> None:
    bench.put_model()
    assert [bench.at(now) for now in (1001, 1002)] == [0, 1]
    (bench.models / MODEL).unlink()
    with capture_logs() as lines:
        assert [bench.at(now) for now in (1003, 1004)] == [0, 1]
    assert bench.capabilities.runnable == ()
    assert [line["event"] for line in lines] == ["workflow_not_runnable", "workflows_advertised"]


def test_a_change_without_new_capabilities_is_not_logged(bench: Bench) -> None:
    bench.put_model()
    assert [bench.at(now) for now in (1001, 1002)] == [0, 1]
    (bench.models / MODEL.parent / "unused.pth").write_bytes(b"")
    with capture_logs() as lines:
        assert [bench.at(now) for now in (1003, 1004)] == [0, 1]
    assert lines == []


def test_unknown_folders_are_asked_for_every_five_minutes_and_every_minute_if_nothing_is_runnable(bench: Bench) -> None:
    """For models folders on other machines."""
    bench.refresh.folder_watch = FolderWatch([])
    assert bench.at(1000 + ASK_EVERY_WHILE_IDLE - 1) == 0
    bench.put_model()
    asked_at = 1000 + ASK_EVERY_WHILE_IDLE
    assert bench.at(asked_at) == 1
    assert bench.capabilities.runnable == ("upscaler",)
    assert [bench.at(asked_at + after) for after in (ASK_EVERY_WHILE_IDLE, ASK_EVERY - 1, ASK_EVERY)] == [0, 0, 1]


def test_comfyui_is_not_asked_while_a_task_waits_or_renders(bench: Bench) -> None:
    bench.take_a_task()
    assert bench.at(1000 + 10 * ASK_EVERY) == 0
    bench.put_model()
    assert [bench.at(5000), bench.at(5001)] == [0, 0]
    bench.ledger.note("t", rendered_at=5001.5)  # the result may still be on its way
    assert bench.at(5002) == 1


def test_a_busy_lane_asks_about_known_changes_after_max_delay(bench: Bench) -> None:
    bench.take_a_task()
    bench.put_model()
    assert [bench.at(now) for now in (1001, 1002, 1001 + MAX_DELAY, 1002 + MAX_DELAY)] == [0, 0, 0, 1]


def test_a_model_is_not_advertised_while_it_is_copied(bench: Bench) -> None:
    bench.put_model()
    with (bench.models / MODEL).open("r+b", buffering=0) as file:
        for now in range(1000, 2000, 100):
            file.write(WEIGHTS[:1])  # its size tells nothing: some programs reserve it at once
            file.seek(0)
            bench.at(now)
            assert bench.capabilities.runnable == ()
    assert "is still being written" in bench.capabilities.verdicts["upscaler"][0].text
    assert bench.at(2000) == 1
    assert bench.capabilities.runnable == ("upscaler",)


def test_a_broken_model_is_not_advertised_until_it_is_replaced(bench: Bench) -> None:
    bench.put_model(PAGE)
    with capture_logs() as lines:
        assert [bench.at(now) for now in (1001, 1002, 1003)] == [0, 1, 0]
    assert bench.capabilities.runnable == ()
    (reason,) = bench.capabilities.verdicts["upscaler"]
    assert reason.kind == "model"
    assert reason.text == f"the model {MODEL.name} is broken: it is a web page, not weights"
    assert reason.cure == "run `xalora-miner models pull --replace upscaler`"
    assert [(line["event"], line["reason"]) for line in lines] == [("workflow_not_runnable", reason.text)]
    bench.put_model()
    with capture_logs() as lines:
        assert [bench.at(now) for now in (1004, 1005)] == [0, 1]
    assert bench.capabilities.runnable == ("upscaler",)
    assert [line["event"] for line in lines] == ["workflows_advertised"]


def test_a_folder_under_the_name_of_a_model_is_told(bench: Bench) -> None:
    (bench.models / MODEL).mkdir(parents=True)
    bench.capabilities.refresh(bench.host.client.object_info(), bench.host.client.stats())
    assert [reason.text for reason in bench.capabilities.verdicts["upscaler"]] == [
        f"the model {MODEL.name} is broken: it is a folder"
    ]


def test_a_name_that_no_workflow_has_is_not_allowed_on_a_cpu() -> None:
    library = load_library([WORKFLOWS], ids={})
    with pytest.raises(ConfigError, match="unknown workflow 'upscalr'"):
        Capabilities(library, enabled=["upscaler"], refuse_unknown=False, on_cpu=["upscalr"])


def test_a_broken_lora_is_not_offered_and_told_once(bench: Bench) -> None:
    loras = bench.models / "loras" / "mine"
    loras.mkdir(parents=True)
    (loras / "good.safetensors").write_bytes(WEIGHTS)
    (loras / "cut.safetensors").write_bytes(WEIGHTS[:9])
    listed = {"required": {"lora_name": [["mine/cut.safetensors", "mine/good.safetensors"], {}]}}
    nodes = bench.host.client.object_info() | {"LoraLoader": {"input": listed, "output": ["MODEL", "CLIP"]}}
    with capture_logs() as lines:
        for _ in range(2):
            bench.capabilities.refresh(nodes, bench.host.client.stats())
    assert bench.capabilities.loras == ("mine/good.safetensors",)
    (broken,) = [line for line in lines if line["event"] == "lora_broken"]
    assert (broken["lora"], broken["reason"]) == ("mine/cut.safetensors", "it is not a safetensors file")


def test_weights_that_failed_to_load_are_looked_at_again(bench: Bench) -> None:
    """Even where neither size nor time say that the file changed, as with a bad disk."""
    bench.put_model()
    assert [bench.at(now) for now in (1001, 1002)] == [0, 1]
    path = bench.models / MODEL
    then = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(len(WEIGHTS)))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert bench.at(1003) == 0
    fault = MachineFault("ComfyUI could not load its weights", fault="weights")
    bench.capabilities.pauses.failed("upscaler", fault, task_id="t", attempts=1)
    assert bench.at(1004) == 1
    assert "begins with zeros" in bench.capabilities.verdicts["upscaler"][0].text


def test_a_comfyui_that_does_not_answer_is_asked_again_and_not_restarted(bench: Bench) -> None:
    bench.put_model()
    assert bench.at(1001) == 0
    with bench.relay.away(), capture_logs() as lines:
        bench.at(1002)
        bench.at(1003)
    assert [line["event"] for line in lines] == ["capabilities_not_refreshed"]
    assert bench.host.ready.is_set()
    assert [bench.at(1002 + RETRY - 1), bench.at(1002 + RETRY)] == [0, 1]


def test_a_refresh_keeps_the_warm_workflow(bench: Bench) -> None:
    bench.put_model()
    assert [bench.at(now) for now in (1001, 1002)] == [0, 1]
    bench.capabilities.rendered("upscaler", seconds=1.0)
    (bench.models / MODEL.parent / "unused.pth").write_bytes(b"")
    assert [bench.at(now) for now in (1003, 1004)] == [0, 1]
    assert bench.capabilities.warm_ids(["4", "another"]) == ("4",)
    bench.capabilities.cold()
    assert bench.capabilities.warm_ids(["4", "another"]) == ()


# ---- the disk ---------------------------------------------------------------------------------------------------


def test_a_workflow_that_lacks_disk_is_refused_until_disk_is_free(bench: Bench, tmp_path: Path) -> None:
    """It needs 1 GB, by its manifest."""
    bench.put_model()
    stats, nodes = bench.host.client.stats(), bench.host.client.object_info()
    bench.capabilities.refresh(nodes, stats, free_disk=9 * 10**8)
    (reason,) = bench.capabilities.verdicts["upscaler"]
    assert (reason.kind, "900 MB of disk are free" in reason.text) == ("disk", True)
    assert "models prune" in reason.cure
    bench.refresh.folder_watch = FolderWatch([bench.models])
    assert bench.at(1001) == 0  # it is not known how much is free
    bench.refresh.disk = Disk(folders=[tmp_path], least_gb=0.0)  # a test's disk has a gigabyte
    assert [bench.at(1002), bench.at(1003)] == [1, 0]
    assert bench.capabilities.runnable == ("upscaler",)


# ---- the whole way ----------------------------------------------------------------------------------------------


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[tuple[Testbed, dict[str, Any]]]:
    """A testbed, and settings for a ComfyUI that the worker starts."""
    home = make_home(tmp_path / "home", "tests.system.lane.with_models")
    settings = {"comfyui__home": str(home), "comfyui__python": sys.executable, "comfyui__port": free_port()}
    with Testbed(tmp_path) as testbed:
        yield testbed, settings


def test_a_model_copied_by_hand_is_advertised_without_a_restart(managed: tuple[Testbed, dict[str, Any]]) -> None:
    testbed, settings = managed
    testbed.start_devnet()
    testbed.start_worker("", workflows={"4": ["upscaler"]}, **settings, models__dir=str(testbed.folder / "models"))
    until(
        lambda: testbed.logged("not_leasing", reason="no enabled workflow can run on this machine"), why="the preflight"
    )
    target = testbed.folder / "models" / MODEL
    target.parent.mkdir(parents=True)
    target.write_bytes(WEIGHTS)
    until(lambda: testbed.logged("workflows_advertised", came=["upscaler"]), why="the offer")
    until(lambda: offered(testbed, "4"), why="a request with it")
    assert len(testbed.logged("comfyui_started")) == 1
    assert testbed.worker.stop() == 0


def test_broken_weights_are_advertised_once_they_are_replaced(managed: tuple[Testbed, dict[str, Any]]) -> None:
    """They are where ComfyUI's own file says."""
    testbed, settings = managed
    nas = testbed.folder / "nas"
    home = Path(settings["comfyui__home"])
    (home / "extra_model_paths.yaml").write_text(f"nas:\n  base_path: {nas}\n  upscale_models: ESRGAN\n")
    settings["comfyui__args"] = [
        "--extra-model-paths-config",
        str(home / "extra_model_paths.yaml"),
    ]
    target = nas / "ESRGAN" / MODEL.name
    target.parent.mkdir(parents=True)
    target.write_bytes(PAGE)
    testbed.start_devnet()
    testbed.start_worker("", workflows={"4": ["upscaler"]}, **settings)
    until(lambda: testbed.logged("workflow_not_runnable", workflow="upscaler"), why="the preflight")
    (line,) = testbed.logged("workflow_not_runnable")
    assert line["reason"].endswith("is broken: it is a web page, not weights")
    assert not offered(testbed, "4")
    target.write_bytes(WEIGHTS)
    until(lambda: testbed.logged("workflows_advertised", came=["upscaler"]), why="the offer")
    until(lambda: offered(testbed, "4"), why="a request with it")
    target.write_bytes(WEIGHTS[:-1])
    until(lambda: testbed.logged("workflows_advertised", went=["upscaler"]), why="the end of the offer")
    assert len(testbed.logged("comfyui_started")) == 1
    assert testbed.worker.stop() == 0


def offered(testbed: Testbed, workflow_id: str) -> bool:
    """Whether the worker's last request advertised this workflow."""
    asked = {"consumer_id": "c", "api_key": "k", "workflow_id": workflow_id}
    return bool(
        testbed.session.post(f"{testbed.devnet.url}/resource_request", json=asked, timeout=30).status_code == 200
    )
