"""ComfyUI over HTTP: submit a prompt, ask for the truth about it, fetch what it wrote.

It translates ComfyUI's answers and the HTTP library's errors into ours, once. It never waits for a prompt to end (see
`follow`), never retries, and never starts or stops a process. ComfyUI's behaviour is described in docs/comfyui.md;
0.3.64 and 0.33.0 are the versions it was written against.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode, urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.filepost import encode_multipart_formdata

from miner.comfy.replies import History, Queue, Stats, parse_history, parse_queue, parse_stats, refusal_reasons
from miner.net.errors import answered, in_words
from miner.task.errors import JobFault, MachineFault
from miner.task.stages import Graph, OutputFile

CHUNK = 1 << 20  # bytes read at a time
POOL = 4  # connections that are kept: the loops of a lane, and one to spare
MAX_REPLY = 64 << 20  # bytes of JSON; a history with a large graph is far below
MAX_OUTPUT = 8 << 30  # bytes of one output file


class ComfyDown(MachineFault):
    """ComfyUI does not answer, or not as ComfyUI would."""


class DiskFault(MachineFault):
    """This machine's disk did not take a file; when there is room again, it may."""


class OutputGone(MachineFault):
    """A file that ComfyUI named is not there any more."""


class PromptRefused(JobFault):
    """ComfyUI refused the graph. `details` is for the log: it may name local models."""

    def __init__(self, message: str, *, details: str) -> None:
        super().__init__(message)
        self.details = details


class ComfyClient:
    """One ComfyUI. Methods block for at most `timeout` seconds a read, and raise ComfyDown when it does not answer.

    May be called from any thread.
    """

    def __init__(self, url: str, *, client_id: str, timeout: float = 10.0) -> None:
        self.url, headers = without_user(url)
        self.client_id = client_id
        self._timeout = timeout
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._pools = urllib3.PoolManager(maxsize=POOL, ca_certs=DEFAULT_CA_BUNDLE_PATH)

    def close(self) -> None:
        self._pools.clear()

    def stats(self) -> Stats:
        return parse_stats(self._json("GET", "/system_stats"))

    def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs: 0.5 MB and slow, so for preflight, not for health."""
        return self._json("GET", "/object_info", timeout=60.0)

    def queue(self) -> Queue:
        return parse_queue(self._json("GET", "/queue"))

    def history(self, prompt_id: str) -> History | None:
        """The prompt's end, or None: pending, unknown, evicted or lost in a restart, and only the queue tells which."""
        entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
        return parse_history(entry) if isinstance(entry, dict) else None

    def submit(self, graph: Graph, prompt_id: str) -> None:
        """Queue a prompt under an id of our own. Raises PromptRefused; ComfyUI never removes duplicates."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        status, data = self._post("/prompt", body)
        if status == 400:
            raise _refusal(_parse(data, "/prompt"))
        if status != 200:
            raise ComfyDown(f"{answered('ComfyUI', status)} to /prompt")
        reply = _parse(data, "/prompt")
        if reply.get("node_errors"):
            # one output of several was dropped, and it may be ours
            self.cancel(prompt_id)
            raise _refusal(reply)

    def cancel(self, prompt_id: str) -> None:
        """The gentle end of a prompt, waiting or running. It takes effect between nodes or sampler steps, or never."""
        status, _ = self._send("POST", f"/api/jobs/{prompt_id}/cancel")
        if status != 200:  # an older one has no jobs
            self._post("/queue", {"delete": [prompt_id]})
            self._post("/interrupt", {"prompt_id": prompt_id})

    def free(self) -> None:
        """Ask it to unload its models, which it does between two prompts."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def upload_image(self, data: bytes, name: str, *, subfolder: str) -> str:
        """Put an input image there; gives the name for LoadImage. ComfyUI takes 100 MB at most."""
        form = {"type": "input", "subfolder": subfolder, "overwrite": "true"}
        body, kind = encode_multipart_formdata({"image": (name, data, "application/octet-stream"), **form})
        status, answer = self._send("POST", "/upload/image", body=body, kind=kind, timeout=60.0)
        reply = _parse(answer, "/upload/image") if status == 200 else {}
        if not isinstance(reply.get("name"), str):
            raise ComfyDown(f"{answered('ComfyUI', status)} to /upload/image")
        folder = reply.get("subfolder") or ""
        return f"{folder}/{reply['name']}" if folder else str(reply["name"])

    def download(self, file: OutputFile, target: Path) -> None:
        """Stream one of its files to `target`. Raises MachineFault when it is not there any more."""
        query = urlencode({"filename": file.filename, "subfolder": file.subfolder, "type": file.kind})
        with self._exchange("GET", f"/view?{query}", timeout=60.0) as response:
            if response.status == 404:
                raise OutputGone("ComfyUI does not have the output any more")
            if response.status != 200:
                raise ComfyDown(f"{answered('ComfyUI', response.status)} for an output")
            _save(response, target)

    def _json(self, method: str, path: str, *, timeout: float | None = None) -> dict[str, Any]:
        status, data = self._send(method, path, timeout=timeout)
        if status != 200:
            raise ComfyDown(f"{answered('ComfyUI', status)} to {path}")
        return _parse(data, path)

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        return self._send("POST", path, body=json.dumps(body).encode(), kind="application/json")

    def _send(
        self, method: str, path: str, *, body: bytes | None = None, kind: str = "", timeout: float | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one exchange; `kind` is the content type of what is sent."""
        with self._exchange(method, path, body=body, kind=kind, timeout=timeout) as response:
            return response.status, _read(response)

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
                timeout=urllib3.Timeout(connect=self._timeout, read=timeout or self._timeout),
                redirect=False,
                retries=False,
                preload_content=False,
            ) as response:
                yield response
        except urllib3.exceptions.HTTPError as error:
            hint = "check that it runs and that XALORA_COMFYUI_URL is its address"
            raise ComfyDown(in_words(error, f"ComfyUI at {self.url}"), hint=hint) from error


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """A URL without its user part, and the headers that say the same: no message or page can show what is not in it."""
    parts = urlsplit(url.rstrip("/"))
    user, _, place = parts.netloc.rpartition("@")
    if not user:
        return parts.geturl(), {}
    words = unquote_to_bytes(user if ":" in user else f"{user}:")
    return parts._replace(netloc=place).geturl(), {"Authorization": f"Basic {base64.b64encode(words).decode()}"}


def _save(response: urllib3.BaseHTTPResponse, target: Path) -> None:
    """Stream a body to a file; half a file does not stay."""
    try:
        with target.open("wb") as out:
            size = 0
            for chunk in response.stream(CHUNK, decode_content=False):
                size += len(chunk)
                if size > MAX_OUTPUT:
                    raise MachineFault(f"an output is larger than {MAX_OUTPUT >> 30} GiB")
                out.write(chunk)
    except (urllib3.exceptions.HTTPError, MachineFault):
        target.unlink(missing_ok=True)
        raise
    except OSError as error:
        target.unlink(missing_ok=True)
        raise DiskFault(f"an output cannot be written here: {error.strerror}", hint="free some disk space") from error


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """A body within its bound; what answers on that port may not be ComfyUI."""
    data = bytearray()
    while chunk := response.read1(CHUNK, decode_content=False):
        data += chunk
        if len(data) > MAX_REPLY:
            raise ComfyDown(f"ComfyUI sent more than {MAX_REPLY >> 20} MiB in one reply")
    response.release_conn()  # urllib3 keeps the connection of an empty body otherwise
    return bytes(data)


def _parse(data: bytes, path: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ComfyDown(f"what answers to {path} is not ComfyUI: it sent no JSON") from error
    if not isinstance(parsed, dict):
        raise ComfyDown(f"what answers to {path} is not ComfyUI: it sent no JSON object")
    return parsed


def _refusal(reply: dict[str, Any]) -> PromptRefused:
    said = refusal_reasons(reply)
    return PromptRefused(f"the renderer refused the graph: {said}", details=json.dumps(reply)[:2000])
