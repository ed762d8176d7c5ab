"""A consumer and a miner that say just what a test tells them to, over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.devnet import Running

MINER = "0x" + "a1" * 20
OTHER = "0x" + "b2" * 20 + "-rig_2"
WORKFLOW = "4"
DETAILS = {"parameters": {"image": "https://example.com/a.png"}}
VARIANT: dict[str, Any] = {
    "details": "string",
    "nothing": "absent",
    "name_canceled": False,
    "wait": False,
    "public_url": "http://devnet.example:9/",
}
"""Options that all differ from the public network's behavior."""
NARROW: dict[str, Any] = {
    "max_wait": 1,
    "max_object_mb": 0.01,
    "upload_headers": {"Content-Type": "image/png", "x-amz-acl": "private"},
}
"""Options that all set a limit."""
DEADLINE = 10.0  # seconds; far above what anything here takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Calls of the protocol with good defaults; each gives the reply as it came."""

    devnet: Running
    session: requests.Session
    state: Path  # the devnet's folder

    def post(self, call: str, body: object, **headers: str) -> requests.Response:
        headers = {"Content-Type": "application/json", **headers}
        # json.dumps writes infinities too, which requests refuses to send.
        return self.session.post(f"{self.devnet.url}/{call}", json.dumps(body), headers=headers, timeout=DEADLINE)

    def create(self, **fields: Any) -> str:
        reply = self.post("task_create", creation(**fields))
        assert reply.status_code == 200, reply.text
        task_id: str = reply.json()["task_id"]
        return task_id

    def query(self, task_id: str, api_key: str = "key") -> dict[str, Any]:
        reply = self.post("task_result_query", {"task_id": task_id, "api_key": api_key})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def cancel(self, task_id: str) -> requests.Response:
        return self.post("task_cancel", {"task_id": task_id, "api_key": "key"})

    def ask(
        self, miner: str = MINER, ids: Sequence[str] = (WORKFLOW,), *, wait: int | None = None
    ) -> requests.Response:
        prefer = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self.post("miner_request", {"erc20_address": miner, "workflow_ids": list(ids)}, **prefer)

    def lease(self, miner: str = MINER, ids: Sequence[str] = (WORKFLOW,)) -> dict[str, Any]:
        """A task; there must be one."""
        reply: dict[str, Any] = self.ask(miner, ids).json()
        assert reply.get("task_id"), reply
        assert "task_details" in reply, reply
        return reply

    def upload(self, task: dict[str, Any], data: bytes = b"a picture") -> str:
        """Put a result to the task's `upload_url`. Gives its key."""
        reply = self.session.put(task["upload_url"], data=data, timeout=DEADLINE)
        assert reply.status_code == 200, reply.text
        return key_of(task)

    def answer(self, task: dict[str, Any], **fields: Any) -> requests.Response:
        return self.post("miner_submit", success(task["task_id"], **fields))

    def fail(self, task: dict[str, Any], **fields: Any) -> requests.Response:
        return self.answer(task, **{"success": False, "result": "", "msg": "it cannot be done", **fields})

    def files(self) -> list[Path]:
        """The store's files."""
        return [path for path in (self.state / "store").rglob("*") if path.is_file()]

    def violations(self) -> list[str]:
        return [violation["reason"] for violation in self.devnet.stats()["violation_list"]]


def creation(**fields: Any) -> dict[str, Any]:
    """The body of a good `/task_create`."""
    return {
        "consumer_id": "consumer",
        "api_key": "key",
        "task_type": "upscaler",
        "task_details": DETAILS,
        "job_id": "sdk-workflow-0123456789",
        "workflow_id": WORKFLOW,
    } | fields


def success(task_id: str, /, **fields: Any) -> dict[str, Any]:
    """The body of a good `/miner_submit`, but for the key in `result`."""
    return {
        "success": True,
        "task_id": task_id,
        "miner_id": MINER,
        "result": "key",
        "inference_latency": 1.5,
        "upload_latency": 0.25,
        "msg": "",
    } | fields


def key_of(task: dict[str, Any]) -> str:
    path: str = task["upload_url"].partition("?")[0]
    return path.partition("/store/results/")[2]


def until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds; fail where it does not within the deadline."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        threading.Event().wait(0.005)
