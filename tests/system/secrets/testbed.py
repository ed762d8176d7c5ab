"""A worker at DEBUG among servers that know its secrets and repeat them: everything that a task brings has a mark.

The sequencer follows a script, the store and the web server answer by path, and ComfyUI's errors quote the prompt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from miner.task.stages import Graph
from tests.support.canary_secrets import API_KEY, PROMPT, marked
from tests.support.devnet import Running
from tests.support.script import ScriptedTestbed, a_task
from tests.support.scripted_comfyui import ScriptedComfyUI, error, failure, png, success
from tests.support.scripted_server import Request, Said, ScriptedServer, reply
from tests.support.systemd import Manager
from tests.support.testbed import free_port, until

GRAPH = {
    "load": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "text": {"class_type": "Words", "inputs": {"text": ""}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "out"}},
}
PAGES = (
    *("/", "/metrics", "/healthz", "/readyz"),
    *(f"/api/{name}" for name in ("now", "past", "history", "workflows", "health")),
)
PARAMETERS = """
[parameters.image]
type = "image"
bind = ["load.image"]
[parameters.prompt]
type = "string"
required = true
max_length = 500
bind = ["text.text"]
[parameters.steps]
type = "int"
default = 5
min = 1
max = 10
description = "without effect"
"""
WORDS = {"Words": {"input": {"required": {"text": ["STRING", {}]}}, "output": []}}
FAILS, LINGERS = "the renderer fails", "the renderer lingers"
"""In a prompt: what becomes of it in ComfyUI."""


def web(request: Request) -> Said:
    """The consumer's web server."""
    if request.path == "/gone.png":
        return reply(f"no such file: {marked('webbody')}".encode(), status=404)
    return reply(png())


class Store:
    """Presigned and S3 uploads; what it refuses, it refuses with a body that repeats the secrets."""

    def __init__(self) -> None:
        self.puts: Counter[str] = Counter()

    def __call__(self, request: Request) -> Said:
        self.puts[request.path] += 1
        said = b"<Error><Message>" + request.head + b"</Message></Error>"
        if "forbidden" in request.path:
            return reply(said, status=403)
        if "busy" in request.path and self.puts[request.path] == 1:
            return reply(said, status=500)
        if "broken" in request.path and self.puts[request.path] == 1:
            return None
        if "redirect" in request.path:
            return reply(said, f"Location: {self.elsewhere}", status=307)
        odd = "X-Odd header without a colon" if "odd" in request.path else "X-Plain: yes"
        return reply(b"", 'ETag: "0"', odd)

    elsewhere = f"http://127.0.0.1:1/x?{marked('location')}"


def refuses(request: Request) -> Said:
    """A sequencer that knows nobody, and repeats the key."""
    said = request.head.decode("latin-1").replace("\r\n", " ")  # with its Authorization
    return reply({"message": f"unknown key {API_KEY} in {said}"}, status=401)


def ends(graph: Graph) -> Any:
    text = str(graph["text"]["inputs"]["text"])
    if FAILS in text:
        said = f"cannot encode {text!r}: {json.dumps(graph)} in /home/me/ComfyUI/nodes.py"
        return failure(error(exception_type="ValueError", exception_message=said, node_type="Words"))
    return None if LINGERS in text else success()


class SecretsTestbed(ScriptedTestbed):
    """The worker and what it talks to; it also hears what systemd is told. The worker starts with `start`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        enter = self.stack.enter_context
        self.store_says = Store()
        self.web, self.store, self.comfyui = (
            enter(ScriptedServer(web)),
            enter(ScriptedServer(self.store_says)),
            enter(ScriptedComfyUI()),
        )
        self.comfyui.end = ends
        self.comfyui.nodes |= WORDS
        self.status = f"http://127.0.0.1:{free_port()}"
        self.systemd = enter(Manager(folder))

    def start(self) -> None:
        (self.folder / "tmp").mkdir()
        self.devnet = Running(url=self.sequencer.url, session=self.session)
        name = self.add_workflow("words", GRAPH, parameters=PARAMETERS)
        self.start_worker(
            f"http://operator:{marked('comfyuipassword')}@{self.comfyui.host}",
            workflows={"4": [name]},
            sequencer__poll_interval=0.01,
            upload__bucket="bucket",
            upload__endpoint=self.store.url,
            status__enabled=True,
            status__port=int(self.status.rpartition(":")[2]),
            network__allow=[self.web.host, self.store.host],
            environ={
                "XALORA_API_KEY": API_KEY,
                "XALORA_STATUS_TOKEN": marked("statustoken"),
                "NOTIFY_SOCKET": str(self.systemd.address),
                "WATCHDOG_USEC": "200000",
                "TMPDIR": str(self.folder / "tmp"),
            },
        )

    # ---- tasks --------------------------------------------------------------------------------------------------

    def task(
        self, task_id: str, *, prompt: str = PROMPT, image: str = "/in.png", put: str = "", **fields: Any
    ) -> bytes:
        """A task in which everything that is secret has a mark; `put` is where its result goes to in the store."""
        target = {
            "upload_url": f"{self.store.url}/{put or task_id}?X-Amz-Signature={marked('presigned')}",
            "upload_headers": {"x-amz-meta-note": marked("uploadheader")},
        }
        parameters = {"prompt": prompt, "image": f"{self.web.url}{image}?key={marked('imagequery')}"}
        details = {"parameters": parameters | fields.pop("parameters", {})}
        return a_task(task_id, **{**target, "task_details": details, "msg": marked("sequencermsg"), **fields})

    def s3_task(self, task_id: str) -> bytes:
        names = ("access_key_id", "secret_access_key", "session_token")
        return self.task(task_id, upload_url="", credential={name: marked(name.replace("_", "")) for name in names})

    def pages(self) -> dict[str, str]:
        """What the dashboard shows now, page by page, and the first words of its stream."""
        shown = {"Authorization": f"Bearer {marked('statustoken')}"}
        get = partial(self.session.get, headers=shown, timeout=30)
        until(lambda: self.logged("dashboard"), why="the dashboard")
        pages = {path: get(self.status + path).text for path in PAGES}
        with get(f"{self.status}/api/events", stream=True) as stream:
            pages["/api/events"] = next(stream.iter_content(1 << 20)).decode()
        return pages


def wrong_tasks(testbed: SecretsTestbed) -> Iterator[bytes]:
    """One for each way to fail."""
    yield testbed.task("input-404", image="/gone.png")
    yield testbed.task(
        "userinfo", parameters={"image": f"http://u:{marked('userinfo')}@127.0.0.1/x?{marked('imagequery')}"}
    )
    yield testbed.task("private", parameters={"image": f"http://127.0.0.1/x?{marked('imagequery')}"})
    yield testbed.task("no-prompt", parameters={"prompt": None})
    yield testbed.task("mixed-up", parameters={"steps": PROMPT})
    yield testbed.task("ok-between")
    yield testbed.task("long-prompt", prompt=PROMPT * 100)
    yield testbed.task("control", prompt=f"{PROMPT}\0")
    yield testbed.task("unknown-parameter", parameters={"negative": PROMPT})
    yield testbed.task("target", upload_url=f"https://10.0.0.1/x?{marked('presigned')}")
    yield testbed.task("target-header", upload_headers={"Host": marked("uploadheader")})
    yield testbed.task("upload-403", put="forbidden")
    yield testbed.task("upload-redirect", put="redirect")
    yield testbed.task("render-error", prompt=f"{PROMPT}, {FAILS}")


RIGHT = ("ok", "upload-500", "upload-cut", "odd-header", "s3-ok", "ok-between", "unknown-parameter")
"""Those that succeed."""


def all_tasks(testbed: SecretsTestbed) -> list[bytes]:
    return [
        testbed.task("ok"),
        testbed.task("upload-500", put="busy"),
        testbed.task("upload-cut", put="broken"),
        testbed.task("odd-header", put="odd"),
        testbed.s3_task("s3-ok"),
        *wrong_tasks(testbed),
    ]
