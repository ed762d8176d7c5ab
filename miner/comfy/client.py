"""ComfyUI over HTTP: submit a prompt, ask for the truth about it, fetch what it wrote.

It translates ComfyUI's answers and the HTTP library's errors into ours, once. It never waits for a prompt to end (see
`follow`), never retries, and never starts or stops a process. ComfyUI's behaviour is described in docs/comfyui.md;
0.3.64 and 0.33.0 are the versions it was written against.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import requests
import urllib3

from miner.errors import JobFault, MachineFault
from miner.job import Graph, OutputFile

CHUNK = 1 << 20  # bytes read at a time from /view


class ComfyDown(MachineFault):
    """ComfyUI does not answer, or not as ComfyUI would."""


class PromptRefused(JobFault):
    """ComfyUI refused the graph. `details` is for the log: it may name local models."""

    def __init__(self, message: str, *, details: str) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run ended without success, from its history."""

    exception_type: str
    exception_message: str
    node_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The end of a prompt as ComfyUI's history has it."""

    status: Literal["success", "error", "interrupted"]
    outputs: dict[str, tuple[OutputFile, ...]]  # node id → its files, under whatever key they were
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Prompt ids, in ComfyUI's order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def has(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """From `/system_stats`. Memory in bytes; zeros where ComfyUI does not say."""

    version: str
    device: str
    on_gpu: bool
    vram_total: int
    vram_free: int


class ComfyClient:
    """One ComfyUI. Methods block for at most `timeout` seconds a read, and raise ComfyDown when it does not answer.

    May be called from any thread.
    """

    def __init__(self, url: str, *, client_id: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.client_id = client_id
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def stats(self) -> Stats:
        reply = self._json("GET", "/system_stats")
        device: dict[str, Any] = next(iter(reply.get("devices") or []), {})
        return Stats(
            version=str(reply.get("system", {}).get("comfyui_version", "")),
            device=str(device.get("name", "")),
            on_gpu=device.get("type", "cpu") != "cpu",
            vram_total=int(device.get("vram_total") or 0),
            vram_free=int(device.get("vram_free") or 0),
        )

    def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs: 0.5 MB and slow, so for preflight, not for health."""
        return self._json("GET", "/object_info", timeout=60.0)

    def queue(self) -> Queue:
        reply = self._json("GET", "/queue")
        return Queue(running=_ids(reply.get("queue_running")), pending=_ids(reply.get("queue_pending")))

    def history(self, prompt_id: str) -> History | None:
        """The prompt's end, or None: pending, unknown, evicted or lost in a restart, and only the queue tells which."""
        entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
        return parse_history(entry) if isinstance(entry, dict) else None

    def submit(self, graph: Graph, prompt_id: str) -> None:
        """Queue a prompt under an id of our own. Raises PromptRefused; ComfyUI never removes duplicates."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        response = self._send("POST", "/prompt", data=json.dumps(body).encode(), json_body=True)
        if response.status_code == 400:
            raise _refusal(_parse(response))
        if response.status_code != 200:
            raise ComfyDown(f"ComfyUI answered {response.status_code} to /prompt")
        reply = _parse(response)
        if reply.get("node_errors"):
            # one output of several was dropped, and it may be ours
            self.cancel(prompt_id)
            raise _refusal(reply)

    def cancel(self, prompt_id: str) -> None:
        """The gentle end of a prompt, waiting or running. It takes effect between nodes or sampler steps, or never."""
        if self._send("POST", f"/api/jobs/{prompt_id}/cancel").status_code == 200:
            return
        self._send("POST", "/queue", data=json.dumps({"delete": [prompt_id]}).encode(), json_body=True)
        self._send("POST", "/interrupt", data=json.dumps({"prompt_id": prompt_id}).encode(), json_body=True)

    def free(self) -> None:
        """Ask it to unload its models, which it does between two prompts."""
        body = json.dumps({"unload_models": True, "free_memory": True}).encode()
        self._send("POST", "/free", data=body, json_body=True)

    def upload_image(self, data: bytes, name: str, *, subfolder: str) -> str:
        """Put an input image there; gives the name for LoadImage. ComfyUI takes 100 MB at most."""
        files = {"image": (name, data, "application/octet-stream")}
        form = {"type": "input", "subfolder": subfolder, "overwrite": "true"}
        with self._translated("/upload/image"):
            response = self._session.post(
                self.url + "/upload/image", files=files, data=form, timeout=(self._timeout, 60.0)
            )
        reply = _parse(response) if response.status_code == 200 else {}
        if not isinstance(reply.get("name"), str):
            raise ComfyDown(f"ComfyUI answered {response.status_code} to /upload/image")
        folder = reply.get("subfolder") or ""
        return f"{folder}/{reply['name']}" if folder else str(reply["name"])

    def download(self, file: OutputFile, target: Path) -> None:
        """Stream one of its files to `target`. Raises MachineFault when it is not there any more."""
        params = {"filename": file.filename, "subfolder": file.subfolder, "type": file.kind}
        with (
            self._translated("/view"),
            self._session.get(
                self.url + "/view", params=params, timeout=(self._timeout, 60.0), stream=True
            ) as response,
        ):
            if response.status_code != 200:
                raise MachineFault(f"ComfyUI answered {response.status_code} for the output {file.filename}")
            with target.open("wb") as out:
                for chunk in response.iter_content(CHUNK):
                    out.write(chunk)

    def _json(self, method: str, path: str, *, timeout: float | None = None) -> dict[str, Any]:
        response = self._send(method, path, timeout=timeout)
        if response.status_code != 200:
            raise ComfyDown(f"ComfyUI answered {response.status_code} to {path}")
        return _parse(response)

    def _send(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        json_body: bool = False,
        timeout: float | None = None,
    ) -> requests.Response:
        headers = {"Content-Type": "application/json"} if json_body else {}
        with self._translated(path):
            return self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=timeout or self._timeout
            )

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ComfyDown(
                f"ComfyUI at {self.url} did not answer {path}: {type(error).__name__}",
                hint="see that it runs and that XALORA_COMFYUI_URL is its address",
            ) from error


def parse_history(entry: dict[str, Any]) -> History:
    """A history entry, typed. An interrupt has `status_str: "error"` too; only its messages tell."""
    raw = entry.get("outputs")
    outputs = {str(node): _files(output) for node, output in raw.items()} if isinstance(raw, dict) else {}
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return History(status="success", outputs=outputs)
    messages = {m[0]: m[1] for m in status.get("messages") or [] if isinstance(m, list) and len(m) == 2}
    if "execution_interrupted" in messages:
        return History(status="interrupted", outputs=outputs)
    return History(status="error", outputs=outputs, error=parse_run_error(messages.get("execution_error") or {}))


def parse_run_error(data: dict[str, Any]) -> RunError:
    """The data of an `execution_error`, with defaults for what is missing."""
    return RunError(
        exception_type=str(data.get("exception_type", "unknown")),
        exception_message=str(data.get("exception_message", "")),
        node_type=str(data.get("node_type", "")),
    )


def _files(output: Any) -> tuple[OutputFile, ...]:
    """The files of one node's output, under whatever key: `images`, `gifs`, `video`, `audio`, …"""
    lists = [items for items in output.values() if isinstance(items, list)] if isinstance(output, dict) else []
    return tuple(
        OutputFile(
            filename=item["filename"], subfolder=str(item.get("subfolder") or ""), kind=str(item.get("type") or "")
        )
        for items in lists
        for item in items
        if isinstance(item, dict) and isinstance(item.get("filename"), str)
    )


def _ids(items: Any) -> tuple[str, ...]:
    """A queue item is [number, prompt_id, graph, extra_data, outputs, …]."""
    return tuple(str(item[1]) for item in items or () if isinstance(item, list) and len(item) > 1)


def _parse(response: requests.Response) -> dict[str, Any]:
    try:
        parsed = json.loads(response.content)
    except ValueError as error:
        raise ComfyDown(f"what answers at {response.url.split('?')[0]} is not ComfyUI: it sent no JSON") from error
    if not isinstance(parsed, dict):
        raise ComfyDown(f"what answers at {response.url.split('?')[0]} is not ComfyUI: it sent no JSON object")
    return cast("dict[str, Any]", parsed)


def _refusal(reply: dict[str, Any]) -> PromptRefused:
    """ComfyUI's 400, in words for a consumer (kinds and names of the graph only) and in full for the log."""
    reasons = [
        f"{error.get('type', 'error')} at {node.get('class_type', 'a node')}"
        for node in (reply.get("node_errors") or {}).values()
        for error in node.get("errors") or []
    ]
    error = reply.get("error") or {}
    kind = error.get("type", "refused") if isinstance(error, dict) else "refused"
    said = ", ".join(reasons[:3]) or str(kind)
    return PromptRefused(f"the renderer refused the graph: {said}", details=json.dumps(reply)[:2000])
