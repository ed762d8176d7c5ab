"""Who is blamed when a checked task fails, what its consumer reads, and what the operator sees: class × ComfyUI.

Each row breaks a machine for good, then sends one task after another until its workflow pauses.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from miner.task.blame import told
from tests.support import flows
from tests.support.relay import Relay
from tests.support.testbed import Testbed, free_port, until

MOST = 4  # tasks that a broken machine may have failed before it pauses


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A broken machine, and what must come of it."""

    says: str = ""  # a node fails with these words
    kind: str = "error"  # … or in this way: see `flows.fail`; "": not at all
    request: str = ""  # requests that begin like this are answered with `status`
    status: int = 0
    body: bytes = b"{}"
    fault: str  # how it is counted
    burned: int  # tasks that fail before the pause
    told: str = ""  # what the consumer reads, unless it is the usual text
    shown: str = ""  # what the operator reads of it, unless it is `says`
    everywhere: bool = False  # whether all other workflows pause, too

    @property
    def answer(self) -> bytes:
        head = f"HTTP/1.1 {self.status} Oops\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + self.body


REFUSAL = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "no", "details": "", "extra_info": {}},
    "node_errors": {"save": {"class_type": "SaveImage", "errors": [{"type": "value_not_in_list", "details": "x"}]}},
}

ROWS = {
    "RAM": Row(says="DefaultCPUAllocator: can't allocate memory", fault="memory", burned=3),
    "video memory": Row(kind="out-of-memory", fault="memory", burned=3, shown="Allocation on device"),
    "disk full": Row(says="[Errno 28] No space left on device", fault="disk", burned=1, everywhere=True),
    "disk read-only": Row(says="[Errno 30] Read-only file system", fault="disk", burned=1, everywhere=True),
    "weights cut": Row(says="PytorchStreamReader failed reading zip archive", fault="weights", burned=1),
    "weights are a page": Row(says="Error while deserializing header: HeaderTooLarge", fault="weights", burned=1),
    "model gone": Row(says="[Errno 2] No such file or directory", fault="weights", burned=1),
    "custom node broken": Row(says="module 'x' has no attribute 'y'", fault="unknown", burned=2),
    "CUDA broken": Row(kind="cuda", fault="poisoned", burned=1, shown="illegal memory access"),
    "upload 500": Row(request="POST /upload/image", status=500, fault="machine", burned=3, shown="answered 500"),
    "upload 403": Row(request="POST /upload/image", status=403, fault="machine", burned=3, shown="answered 403"),
    "upload 413": Row(
        request="POST /upload/image",
        status=413,
        fault="machine",
        burned=3,
        told="this miner's renderer does not accept the input image: as PNG it has 270 KB",
        shown="answered 413 to an input image of 270 KB",
    ),
    "prompt 500": Row(request="POST /prompt", status=500, fault="machine", burned=1, shown="answered 500 to /prompt"),
    "prompt refused": Row(
        request="POST /prompt",
        status=400,
        body=json.dumps(REFUSAL).encode(),
        fault="refused",
        burned=3,
        shown="value_not_in_list at SaveImage",
    ),
    "output 500": Row(request="GET /view", status=500, fault="machine", burned=1, shown="answered 500 to a request"),
    "output 403": Row(request="GET /view", status=403, fault="machine", burned=1, shown="answered 403 to a request"),
}


IN_A_NODE = [name for name, row in ROWS.items() if not row.request]


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "external") for name in ROWS), *((name, "managed") for name in IN_A_NODE)]
)
def test_a_broken_machine_is_blamed_and_paused(testbed: Testbed, managed: dict[str, Any], name: str, mode: str) -> None:
    row = ROWS[name]
    page = start(testbed, row, **(managed if mode == "managed" else {}))
    burned = burn(testbed)
    assert [task["msg"] for task in burned] == [row.told or told(row.fault)] * row.burned  # type: ignore[arg-type]
    assert not testbed.logged("task_crashed")
    shown = row.shown or row.says
    assert shown in testbed.logged("workflow_paused", workflow="flow")[-1]["reason"]
    until(lambda: page("workflow_faults").get(f'{{fault="{row.fault}",workflow="flow"}}', 0) > 0, why="the count")
    assert page("workflow_paused") == {'{workflow="flow"}': 1.0, '{workflow="other"}': float(row.everywhere)}
    (mark,) = [mark for mark in page.health() if mark["name"] == "Workflows"]
    assert shown in mark["says"]
    until(lambda: page.ready() is not row.everywhere, why="the readiness")
    other = testbed.create(workflow_id="5")
    if row.everywhere:
        until(lambda: testbed.logged("not_leasing"), why="the reason not to lease")
        assert testbed.task(other)["status"] == "waiting"
    elif not row.request:
        assert testbed.ended(other)[0]["status"] == "finished"


@pytest.mark.parametrize("request_line", ["GET /view", "POST /prompt"])
def test_a_mended_machine_comes_back_and_burns_no_task_meanwhile(testbed: Testbed, request_line: str) -> None:
    """After each pause the miner renders for itself; consumers wait until that succeeds."""
    row = Row(request=request_line, status=403, fault="machine", burned=1)
    page = start(testbed, row, program="tests.support.impatient")
    burn(testbed)
    details = {"parameters": {"image": noise(testbed)}}
    waits = testbed.devnet.create(task_type="upscaler", workflow_id="4", task_details=details)
    until(lambda: len(testbed.logged("workflow_paused", workflow="flow")) >= 3, why="trials")
    assert testbed.task(waits)["leases"] == []
    page.comfyui.pass_on()
    assert testbed.ended(waits)[0]["status"] == "finished"
    assert testbed.logged("trial_passed", workflow="flow")
    until(lambda: testbed.logged("workflow_recovered", workflow="flow"), why="the recovery")


def test_one_bad_task_does_not_pause_the_others_workflow(testbed: Testbed) -> None:
    """An error that names no cause may well be the task's, so it takes several tasks to pause."""
    start(testbed, ROWS["custom node broken"])
    (task,) = testbed.ended(testbed.create())
    assert task["msg"] == told("unknown")
    assert not testbed.logged("workflow_paused")


def test_different_tasks_that_end_alike_pause_whoever_seems_to_blame(testbed: Testbed) -> None:
    start(testbed, Row(kind="", fault="unknown", burned=3))
    testbed.devnet.fault("fail", "store_put", status=403)
    burned = burn(testbed)
    assert [task["msg"] for task in burned] == ["the upload target refused the file (403)"] * 3


def test_a_refused_graph_is_logged_and_checked_again(testbed: Testbed) -> None:
    start(testbed, ROWS["prompt refused"])
    asked = len(testbed.logged("graph_refused"))
    testbed.ended(testbed.create())
    until(lambda: len(testbed.logged("graph_refused")) > asked, why="the details")
    assert "value_not_in_list" in testbed.logged("graph_refused")[-1]["details"]
    testbed.ended(testbed.create())  # so it was checked, and is offered again


@pytest.mark.parametrize("spoil", ["emptied", "cut", "replaced by a page", "deleted"])
def test_a_broken_output_is_rendered_again(testbed: Testbed, spoil: str) -> None:
    testbed.start_devnet()
    testbed.add_workflow("flow", flows.plain(loads=True), parameters=flows.IMAGE)
    with closing(Relay(testbed.start_engine())) as comfyui:
        testbed.start_worker(comfyui.url, workflows={"4": ["flow"]})
        view = comfyui.hold("GET /view")
        task_id = testbed.create()
        view.wait()
        (output,) = (testbed.folder / "engine" / "output").rglob("*.png")
        whole = output.read_bytes()
        if spoil == "deleted":
            output.unlink()
        else:
            output.write_bytes({"emptied": b"", "cut": whole[:60], "replaced by a page": b"<html></html>"}[spoil])
        view.release()
        (task,) = testbed.ended(task_id)
        testbed.worker.kill()
    assert (task["status"], task["msg"]) == ("finished", "")
    assert len(testbed.logged("render_spoiled")) == 1


def test_a_result_that_this_machine_cannot_read_in_time_is_its_fault(testbed: Testbed) -> None:
    """Not the store's, which nobody asked."""
    testbed.start_devnet()
    testbed.add_workflow("flow", flows.plain(loads=True), parameters=flows.IMAGE, timeout=2.0)
    comfyui = testbed.relay(testbed.start_engine())
    comfyui.reply("GET /view", b"")
    testbed.start_worker(comfyui.url, workflows={"4": ["flow"]}, program="tests.system.blame.hasty")
    (task,) = testbed.ended(testbed.create())
    assert testbed.logged("upload_failed")
    assert task["msg"] == told("machine")


@pytest.mark.parametrize("where", ["output", "input"])
def test_a_full_disk_of_comfyuis(testbed: Testbed, mount: Callable[[Path], None], where: str) -> None:
    """Really full: a disk of its own, with nothing but ballast on it."""
    folder = testbed.folder / "engine" / where
    folder.mkdir(parents=True)
    mount(folder)
    (folder / "ballast").write_bytes(os.urandom(192 << 10))
    page = start(testbed, Row(kind="", fault="disk", burned=1))
    burned = burn(testbed)
    assert all(task["msg"].startswith("this miner") for task in burned)
    assert len(burned) <= 3
    assert page("workflow_faults")


# ---- a machine and its page -------------------------------------------------------------------------------------


class Page:
    """The worker's status server. `comfyui`: the relay to its ComfyUI."""

    def __init__(self, port: int, session: requests.Session, comfyui: Relay | None) -> None:
        self.comfyui = comfyui
        self._url = f"http://127.0.0.1:{port}"
        self._session = session

    def __call__(self, metric: str) -> dict[str, float]:
        """A metric's values by labels."""
        lines = self._session.get(f"{self._url}/metrics", timeout=30).text.splitlines()
        found = [line for line in lines if line.startswith((f"xalora_{metric}{{", f"xalora_{metric}_total{{"))]
        return {line[line.index("{") :].rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in found}

    def health(self) -> list[dict[str, Any]]:
        return self._session.get(f"{self._url}/api/health", timeout=30).json()

    def ready(self) -> bool:
        return self._session.get(f"{self._url}/readyz", timeout=30).status_code == 200


def start(testbed: Testbed, row: Row, **rest: Any) -> Page:
    """`flow` is broken as the row says; `other` is as sound as the machine."""
    port = free_port()
    testbed.start_devnet()
    sound = row.request or not row.kind
    graph = flows.plain(loads=True) if sound else flows.fail(row.kind, says=row.says, loads=True)
    testbed.add_workflow("flow", graph, parameters=flows.IMAGE)
    testbed.add_workflow("other", flows.plain(loads=True), parameters=flows.IMAGE)
    comfyui = None if "comfyui__home" in rest else testbed.relay(testbed.start_engine("--disable-metadata"))
    if row.request and comfyui:
        comfyui.reply(row.request, row.answer)
    testbed.start_worker(
        comfyui.url if comfyui else "",
        workflows={"4": ["flow"], "5": ["other"]},
        status__enabled=True,
        status__port=port,
        **rest,
    )
    until(lambda: testbed.logged("dashboard"), why="the page")
    return Page(port, testbed.session, comfyui)


def burn(testbed: Testbed) -> list[dict[str, Any]]:
    """The tasks that failed until the workflow was paused."""
    burned: list[dict[str, Any]] = []
    image = noise(testbed)
    while not testbed.logged("workflow_paused") and len(burned) <= MOST:
        burned += testbed.ended(testbed.create(parameters={"image": image}))
    return burned


def noise(testbed: Testbed) -> str:
    """A picture that does not compress: 270 KB."""
    file = io.BytesIO()
    Image.frombytes("RGB", (300, 300), os.urandom(300 * 300 * 3)).save(file, "PNG")
    reply = testbed.session.put(f"{testbed.devnet.url}/inputs/noise.png", data=file.getvalue(), timeout=30)
    return reply.json()["url"]
