"""Ways of a task × kinds of ComfyUI: some seconds after the answer, nothing that its consumer sent is in any file.

By bytes, in the state folder (journal and its log, temporary files, ComfyUI's log), the miner's log and ComfyUI's
folders, history and queue.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support import flows
from tests.support.canary_secrets import marked
from tests.support.files import files_under
from tests.support.testbed import Testbed, free_port, until

PROMPT = f"a lighthouse 'called' {marked('prompt')}\nby the sea"
PICTURE_MARK = marked("picture").encode()
SIGNATURE = b"signature="  # of devnet's upload URLs

PARAMETERS = f"""{flows.IMAGE}
[parameters.prompt]
type = "string"
default = ""
max_length = 200
bind = ["middle.%s"]
"""


def picture() -> str:
    """A data: URL of a PNG with a mark in it."""
    info, out = PngInfo(), io.BytesIO()
    info.add_text("Comment", PICTURE_MARK.decode())
    Image.linear_gradient("L").resize((32, 24)).save(out, "PNG", pnginfo=info)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


@dataclass
class Place:
    """A worker with its ComfyUI, and where to look."""

    testbed: Testbed
    comfyui: Path | None  # its folders
    url: str
    reachable: bool  # whether the worker can delete there

    def create(self, workflow_id: str = "4", **parameters: Any) -> str:
        return self.testbed.create(
            workflow_id=workflow_id, parameters={"image": picture(), "prompt": PROMPT, **parameters}
        )

    def left(self) -> list[str]:
        """What is left of the tasks that have ended."""
        needles = {
            "prompt": marked("prompt").encode(),
            "picture": PICTURE_MARK,
            "picture as text": picture()[60:100].encode(),
            "signature": SIGNATURE,
        }
        state = self.testbed.folder / "state"
        files = [*files_in(state), self.testbed.folder / "worker.log"]
        found = [f"{what} in {path}" for path in files for what, needle in needles.items() if needle in read(path)]
        found += [str(path) for path in files_in(state) if path.parent.parent.name.startswith("lane-")]
        if self.comfyui is not None:
            kept = [path for kind in ("input", "output") for path in files_in(self.comfyui / kind)]
            found += [str(path) for path in kept if self.reachable or path.stat().st_size]
        history = self.testbed.session.get(f"{self.url}/history", timeout=30).text
        queue = self.testbed.session.get(f"{self.url}/queue", timeout=30).text
        return found + [text for text in (history, queue) if "prompt" in text and marked("prompt") in text]


def files_in(folder: Path) -> list[Path]:
    return files_under(folder)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # just deleted
        return b""


@pytest.fixture(params=["managed", "external, folders shared", "external"])
def place(request: pytest.FixtureRequest, testbed: Testbed, managed: dict[str, Any]) -> Place:
    kind, state = request.param, testbed.folder / "state"
    fails, waits = flows.fail("error", loads=True), flows.wait(0.0, loads=True, until="")
    ids = {
        "4": [testbed.add_workflow("done", waits, parameters=PARAMETERS % "until")],
        "5": [testbed.add_workflow("fails", fails, parameters=PARAMETERS % "says")],
        "6": [testbed.add_workflow("lasts", flows.wait(600.0, loads=True, until=""), parameters=PARAMETERS % "until")],
        "7": [
            testbed.add_workflow("retried", flows.fail("error", loads=True, times=1), parameters=PARAMETERS % "says")
        ],
    }
    testbed.start_devnet()
    comfyui, url, settings = state / "comfyui-default", f"http://127.0.0.1:{managed['comfyui__port']}", managed
    if kind != "managed":
        comfyui, settings = testbed.folder / "engine", {}
        url = testbed.start_engine(port=free_port())
    if "shared" in kind:
        settings = {f"comfyui__{name}_dir": str(comfyui / name) for name in ("input", "output")}
    testbed.start_worker("" if kind == "managed" else url, workflows=ids, **settings)
    return Place(testbed=testbed, comfyui=comfyui, url=url, reachable=kind != "external")


def done(place: Place) -> None:
    assert place.testbed.ended(place.create())[0]["status"] == "finished"


def refused(place: Place) -> None:
    (task,) = place.testbed.ended(place.create(prompt=PROMPT * 10))
    assert task["status"] == "failed"


def broken_picture(place: Place) -> None:
    broken = base64.b64encode(b"\x89PNG" + PICTURE_MARK).decode()
    (task,) = place.testbed.ended(place.create(image=f"data:image/png;base64,{broken}"))
    assert task["status"] == "failed"


def failed(place: Place) -> None:
    assert place.testbed.ended(place.create("5"))[0]["status"] == "failed"


def retried(place: Place) -> None:
    (task,) = place.testbed.ended(place.create("7"))
    assert task["status"] == "finished"
    assert place.testbed.logged("render_spoiled")


def upload_refused(place: Place) -> None:
    place.testbed.devnet.fault("fail", "store_put", status=403)
    assert place.testbed.ended(place.create())[0]["status"] == "failed"


def in_render(place: Place) -> str:
    task_id = place.create("6")
    until(lambda: place.testbed.logged("task_step", task_id=task_id, step="prompted"), why="the render")
    return task_id


def canceled(place: Place) -> None:
    task_id = in_render(place)
    place.testbed.cancel(task_id)
    until(lambda: place.testbed.logged("task_lost", task_id=task_id), why="the loss")


def canceled_while_waiting(place: Place) -> None:
    first, second = in_render(place), place.create()
    place.testbed.cancel(second)
    place.testbed.cancel(first)
    until(lambda: place.testbed.logged("task_lost", task_id=first), why="the loss")
    place.testbed.ended(second)


def killed_in_the_render(place: Place) -> None:
    task_id = in_render(place)
    place.testbed.worker.kill()
    place.testbed.restart_worker()
    until(lambda: place.testbed.logged("task_picked_up", task_id=task_id), why="the new start")
    place.testbed.cancel(task_id)
    until(lambda: place.testbed.logged("task_lost", task_id=task_id), why="the loss")


def killed_before_the_acknowledgement(place: Place) -> None:
    place.testbed.devnet.fault("hang", "miner_submit", times=1)
    task_id = place.create()
    until(lambda: place.testbed.logged("task_step", task_id=task_id, step="rendered"), why="the render")
    until(lambda: place.testbed.devnet.faults()[0]["hits"], why="the answer")
    place.testbed.worker.kill()
    place.testbed.restart_worker()
    place.testbed.ended(task_id)


def journal_lost(place: Place) -> None:
    """Somebody deletes the journal of a miner that was killed."""
    task_id = in_render(place)
    place.testbed.worker.kill()
    for path in (place.testbed.folder / "state").glob("journal.db*"):
        path.unlink()
    place.testbed.session.post(f"{place.url}/interrupt", json={}, timeout=30)
    until(
        lambda: not place.testbed.session.get(f"{place.url}/queue", timeout=30).json()["queue_running"], why="the end"
    )
    place.testbed.restart_worker()
    place.testbed.ended(task_id)


def record_unreadable(place: Place) -> None:
    import sqlite3
    from contextlib import closing

    task_id = in_render(place)
    place.testbed.worker.kill()
    with closing(sqlite3.connect(place.testbed.folder / "state" / "journal.db", isolation_level=None)) as journal:
        journal.execute("UPDATE tasks SET record = substr(record, 1, 20)")
    place.testbed.restart_worker()
    place.testbed.ended(task_id)


WAYS: list[Callable[[Place], None]] = [
    *(done, refused, broken_picture, failed, retried, upload_refused, canceled, canceled_while_waiting),
    *(killed_in_the_render, killed_before_the_acknowledgement, record_unreadable, journal_lost),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_left(place: Place, way: Callable[[Place], None]) -> None:
    way(place)
    until(lambda: not place.left(), why=f"the end of {place.left()}", patience=20.0)
    assert place.testbed.worker.alive
