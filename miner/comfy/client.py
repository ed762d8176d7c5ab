"""ComfyUI over HTTP: submit a prompt, query its state, fetch its outputs.

ComfyUI's answers and urllib3's errors are translated into ours here. It never waits for a prompt to end (see `follow`),
never retries, and never starts or stops a process. docs/comfyui.md describes ComfyUI's behavior, as of 0.3.64 and
0.33.0.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

import urllib3
from urllib3.filepost import encode_multipart_formdata

from miner.comfy.replies import (
    History,
    Names,
    Queue,
    Stats,
    in_its_words,
    one_slash,
    parse_history,
    parse_queue,
    parse_stats,
    refusal_reasons,
    with_one_slash,
)
from miner.net.errors import answered, in_words, is_passing
from miner.net.pools import operators_pools, read_bounded
from miner.task.errors import MachineFault
from miner.task.stages import Graph, OutputFile
from miner.telemetry.sizes import GIGABYTE, MEGABYTE, gb

CHUNK = 1 << 20  # bytes read at a time
POOL = 4  # connections that are kept: the loops of a lane, and a spare one
BRIEF = 3.0  # seconds for a request that nothing depends on
MAX_REPLY = 64 * MEGABYTE  # bytes of JSON; a history with a large graph is far smaller
MAX_OUTPUT = 8 * GIGABYTE  # bytes of one output file


NO_PREVIEWS = {"preview_method": "none"}
"""A prompt's `extra_data` (`latent_preview.py` of 0.33.0, `set_preview_method`)."""


class ComfyFault(MachineFault):
    """ComfyUI did not do what it was asked to."""


class ComfyDown(ComfyFault):
    """ComfyUI does not answer, or the answer is not from a ComfyUI."""


class ComfyRefused(ComfyFault):
    """ComfyUI answered a request with an error: it is not down. `passing`: the same request may succeed later."""

    def __init__(self, status: int, what: str, *, hint: str = "", told: str = "") -> None:
        super().__init__(f"{answered('ComfyUI', status)} to {what}", hint=hint or "see ComfyUI's log", told=told)
        self.passing = is_passing(status)


class DiskFault(MachineFault):
    """A file could not be written to this machine's disk; with more free space it may succeed."""

    fault = "disk"


class OutputGone(MachineFault):
    """A file that ComfyUI named no longer exists."""


class PromptRefused(ComfyFault):
    """ComfyUI rejected the graph, although preflight expected it to accept it. `details` is for the log: it may name
    local models, and quotes the task's values."""

    fault = "refused"

    def __init__(self, reply: dict[str, Any]) -> None:
        super().__init__(f"ComfyUI rejected the graph: {refusal_reasons(reply)}", hint="see graph_refused in the log")
        self.details = json.dumps(reply, ensure_ascii=False)


class ComfyClient:
    """One ComfyUI. Methods block for at most `timeout` seconds per read, and raise ComfyDown if it does not answer,
    ComfyRefused if it answers with an error.

    Any thread may call them.
    """

    def __init__(self, url: str, *, client_id: str, timeout: float = 10.0) -> None:
        self.url, headers = without_user(url)
        self.client_id = client_id
        self._timeout = timeout
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._names: Names = {}  # of the last `object_info`; replaced as a whole
        self._pools = operators_pools(self.url, kind=None, maxsize=POOL)

    def close(self) -> None:
        self._pools.clear()

    def stats(self) -> Stats:
        return parse_stats(self._json("GET", "/system_stats"))

    def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs: 0.5 MB and slow, so for preflight, not for health checks.

        Files have `/` in their names; `submit` sends the names that this ComfyUI lists (Windows: `sub\\name`).
        """
        nodes, self._names = with_one_slash(self._json("GET", "/object_info", timeout=60.0))
        return nodes

    def node(self, class_type: str) -> dict[str, Any]:
        """The same for one class: small and quick. Lists a folder again if it changed."""
        nodes, names = with_one_slash(self._json("GET", f"/object_info/{quote(class_type, safe='')}"))
        self._names = {**self._names, **names}
        return nodes

    def queue(self, *, timeout: float | None = None) -> Queue:
        """What it runs and what waits: small and quick, so it serves as a health check, too."""
        reply = self._json("GET", "/queue", timeout=timeout)
        if not isinstance(reply.get("queue_running"), list):
            raise ComfyDown("the answer to /queue is not from ComfyUI: it has no queue")
        return parse_queue(reply)

    def history(self, prompt_id: str) -> History | None:
        """How the prompt ended. None: pending, unknown, evicted or lost in a restart; the queue tells which."""
        entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
        return parse_history(entry) if isinstance(entry, dict) else None

    def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """A prompt's whole entry in the history."""
        entry = self._json("GET", f"/history/{prompt_id}", timeout=BRIEF).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    def ended(self, most: int) -> list[str]:
        """The prompts in its history, at most the latest `most`."""
        return list(self._json("GET", f"/history?max_items={most}", timeout=BRIEF))

    def forget(self, prompts: Collection[str]) -> None:
        """Delete prompts from the history; those that it does not have do not matter."""
        status, _ = self._post("/history", {"delete": list(prompts)}, timeout=BRIEF)
        if status != 200:
            raise ComfyRefused(status, "/history")

    def has(self, file: OutputFile) -> bool:
        """Whether one of its files exists."""
        with self._exchange("HEAD", _view(file), timeout=BRIEF) as response:
            return response.status == 200

    def blank(self, file: OutputFile) -> None:
        """Make one of its files empty: there is no request to delete one."""
        form = {"type": file.kind, "subfolder": file.subfolder, "overwrite": "true"}
        body, kind = encode_multipart_formdata({"image": (file.filename, b"", "application/octet-stream"), **form})
        status, _ = self._send("POST", "/upload/image", body=body, kind=kind, timeout=BRIEF)
        if status != 200:
            raise ComfyRefused(status, "/upload/image", hint="check the permissions of its folders")

    def submit(self, graph: Graph, prompt_id: str, *, previews: bool = False) -> None:
        """Queue a prompt under our own id. Raises PromptRefused. ComfyUI does not reject duplicates.

        `previews`: as it was started to send them. Without, 0.33.0 sends none; 0.3.64 ignores this.
        """
        body = {"prompt": in_its_words(graph, self._names), "prompt_id": prompt_id, "client_id": self.client_id}
        if not previews:
            body["extra_data"] = dict(NO_PREVIEWS)
        status, data = self._post("/prompt", body)
        if status == 400:
            raise PromptRefused(_parse(data, "/prompt"))
        if status != 200:
            raise ComfyRefused(status, "/prompt")
        reply = _parse(data, "/prompt")
        if reply.get("node_errors"):
            # ComfyUI dropped one of several outputs, which may be ours
            self.cancel(prompt_id)
            raise PromptRefused(reply)

    def resubmit(self, prompt_id: str) -> bool:
        """Queue a waiting prompt again with previews, in its place. False if ComfyUI does not know the prompt (yet).

        Does nothing to one that runs or has ended. Raises ComfyFault; the prompt may then be lost.
        """
        waiting = [entry for entry in self._waiting() if entry[1] == prompt_id]
        if not waiting:
            return self.queue().has(prompt_id) or self.history(prompt_id) is not None
        number, _, graph, *_ = waiting[0]
        self._post("/queue", {"delete": [prompt_id]})
        if self.queue().has(prompt_id) or self.history(prompt_id) is not None:
            return True  # it has started meanwhile
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id, "number": number}
        status, _ = self._post("/prompt", body)
        if status != 200:
            raise ComfyRefused(status, "/prompt")
        return True

    def _waiting(self) -> list[list[Any]]:
        """`/queue`'s entries: number, prompt id, graph and more."""
        entries = self._json("GET", "/queue").get("queue_pending")
        return [entry for entry in entries or () if isinstance(entry, list) and len(entry) > 2]

    def cancel(self, prompt_id: str) -> None:
        """Cancel a prompt, waiting or running. It takes effect between nodes or sampler steps, or never."""
        status, _ = self._send("POST", f"/api/jobs/{prompt_id}/cancel")
        if status != 200:  # older versions have no jobs API
            self._post("/queue", {"delete": [prompt_id]})
            self._post("/interrupt", {"prompt_id": prompt_id})

    def free(self) -> None:
        """Ask it to unload its models. It does so between prompts."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def upload_image(self, data: bytes, name: str, *, subfolder: str) -> str:
        """Upload an input image, at most 100 MB (ComfyUI's limit). Returns its name for LoadImage."""
        form = {"type": "input", "subfolder": subfolder, "overwrite": "true"}
        body, kind = encode_multipart_formdata({"image": (name, data, "application/octet-stream"), **form})
        status, answer = self._send("POST", "/upload/image", body=body, kind=kind, timeout=60.0)
        if status == 413:
            size = gb(len(data))
            raise ComfyRefused(
                status,
                f"an input image of {size}",
                hint="raise its --max-upload-size",
                told=f"this miner's renderer does not accept the input image: as PNG it has {size}",
            )
        if status != 200:
            raise ComfyRefused(status, "/upload/image", hint="check the disk and the permissions of its input folder")
        reply = _parse(answer, "/upload/image")
        if not isinstance(reply.get("name"), str):
            raise ComfyDown("the answer to /upload/image is not from ComfyUI: it names no file")
        return one_slash(f"{reply.get('subfolder') or ''}/{reply['name']}")

    def download(self, file: OutputFile, target: Path) -> None:
        """Stream one of its files to `target`. Raises OutputGone, or another MachineFault."""
        with self._exchange("GET", _view(file), timeout=60.0) as response:
            if response.status == 404:
                raise OutputGone("ComfyUI no longer has the output")
            if response.status != 200:
                raise ComfyRefused(response.status, "a request for an output")
            _save(response, target)

    def _json(self, method: str, path: str, *, timeout: float | None = None) -> dict[str, Any]:
        status, data = self._send(method, path, timeout=timeout)
        if status != 200:
            raise ComfyRefused(status, f"/{path.split('/')[1]}")
        return _parse(data, path)

    def _post(self, path: str, body: dict[str, Any], *, timeout: float | None = None) -> tuple[int, bytes]:
        return self._send("POST", path, body=json.dumps(body).encode(), kind="application/json", timeout=timeout)

    def _send(
        self, method: str, path: str, *, body: bytes | None = None, kind: str = "", timeout: float | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one exchange; `kind` is the content type of `body`."""
        with self._exchange(method, path, body=body, kind=kind, timeout=timeout) as response:
            data = read_bounded(response, MAX_REPLY)
            if data is None:  # another program may be listening on that port
                raise ComfyDown(f"ComfyUI sent more than {gb(MAX_REPLY)} in one reply")
            return response.status, data

    @contextmanager
    def _exchange(
        self, method: str, path: str, *, body: bytes | None = None, kind: str = "", timeout: float | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        try:
            with self._pools.urlopen(
                method,
                self.url + path,
                body=body,
                headers={**self._headers, **({"Content-Type": kind} if kind else {})},
                timeout=urllib3.Timeout(
                    connect=min(self._timeout, timeout or self._timeout), read=timeout or self._timeout
                ),
                redirect=False,
                retries=False,
                preload_content=False,
            ) as response:
                yield response
        except urllib3.exceptions.HTTPError as error:
            hint = "check that it runs and that XALORA_COMFYUI_URL is its address"
            raise ComfyDown(in_words(error, f"ComfyUI at {self.url}"), hint=hint) from error


def _view(file: OutputFile) -> str:
    return f"/view?{urlencode({'filename': file.filename, 'subfolder': file.subfolder, 'type': file.kind})}"


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """A URL without its user part, and the headers that replace it, so that no message or page can show a password."""
    parts = urlsplit(url.rstrip("/"))
    user, _, place = parts.netloc.rpartition("@")
    if not user:
        return parts.geturl(), {}
    words = unquote_to_bytes(user if ":" in user else f"{user}:")
    return parts._replace(netloc=place).geturl(), {"Authorization": f"Basic {base64.b64encode(words).decode()}"}


def _save(response: urllib3.BaseHTTPResponse, target: Path) -> None:
    """Stream a body to a file; a partial file is removed."""
    try:
        with target.open("wb") as out:
            size = 0
            for chunk in response.stream(CHUNK, decode_content=False):
                size += len(chunk)
                if size > MAX_OUTPUT:
                    raise MachineFault(f"an output is larger than {gb(MAX_OUTPUT)}")
                out.write(chunk)
    except (urllib3.exceptions.HTTPError, MachineFault):
        target.unlink(missing_ok=True)
        raise
    except OSError as error:
        target.unlink(missing_ok=True)
        raise DiskFault(f"cannot write an output: {error.strerror}", hint="free some disk space") from error


def _parse(data: bytes, path: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ComfyDown(f"the answer to {path} is not from ComfyUI: it is not JSON") from error
    if not isinstance(parsed, dict):
        raise ComfyDown(f"the answer to {path} is not from ComfyUI: it is not a JSON object")
    return parsed
