"""What a consumer may do: create a task, ask for it, cancel it, ask for a miner.

It promises the protocol's status words, and that a task is seen only with the key that created it. Nothing here waits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from miner.devnet.database import transaction
from miner.devnet.options import DetailsForm, DevnetOptions, Target
from miner.devnet.sequencer import Sequencer
from miner.devnet.wire import (
    PUBLIC_WORKFLOWS,
    Refusal,
    ResourceRequest,
    TaskCancel,
    TaskCreate,
    TaskQuery,
    as_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How one task differs from the devnet's options; for programs that embed devnet."""

    target: Target | None = None
    details_form: DetailsForm | None = None
    any_miner: bool = False  # lease it to a miner that does not offer its workflow
    extra: dict[str, Any] = field(default_factory=dict)  # fields of the reply to `/miner_request`, over our own


ORDINARY = Variation()


class Consumers:
    """The consumer's side of the state. `clock` returns Unix seconds."""

    def __init__(
        self, db: sqlite3.Connection, sequencer: Sequencer, options: DevnetOptions, *, clock: Callable[[], float]
    ) -> None:
        self._db = db
        self._sequencer = sequencer
        self._options = options
        self._clock = clock

    def authorise(self, consumer_id: str | None, api_key: str) -> None:
        """Check a key, and the consumer id if the call has one. Raises Refusal with 401."""
        known = self._options.api_keys or ((self._options.token,) if self._options.token else ())
        if not known:
            return
        if not any(_opens(entry, consumer_id, api_key) for entry in known):
            raise Refusal(401, "unknown API key, or another consumer's")

    def create(self, call: TaskCreate, variation: Variation = ORDINARY) -> str:
        """Create a waiting task; returns its id. Raises Refusal."""
        self.authorise(call.consumer_id, call.api_key)
        return self.insert(call, as_json(call.task_details), variation)

    def insert(self, call: TaskCreate, details: str, variation: Variation) -> str:
        """Create a task whose `task_details` are the JSON text `details`, unchecked."""
        task_id = uuid.uuid4().hex
        self._db.execute(
            "INSERT INTO tasks (task_id, status, consumer_id, key_hash, job_id, task_type, workflow_id, any_miner,"
            " details, timeout, target, details_form, extra, created_at)"
            " VALUES (?, 'waiting', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                task_id,
                call.consumer_id,
                _hash(call.api_key),
                call.job_id,
                call.task_type,
                call.workflow_id,
                variation.any_miner,
                details,
                call.timeout_seconds or self._options.task_timeout,
                variation.target or self._options.target,
                variation.details_form or self._options.details,
                as_json(variation.extra),
                self._clock(),
            ),
        )
        return task_id

    def query(self, call: TaskQuery) -> dict[str, Any]:
        """How a task stands: `task_id`, `status`, `progress` while it runs, and `result` or `msg` once it ended.

        The network's SDKs know no `msg`: the reason of a failure is in `result` too. Raises Refusal.
        """
        task = self._task_of(call)
        reply = {"task_id": task["task_id"], "status": task["status"]}
        ended = {key: task[key] for key in ("result", "msg", "inference_latency", "upload_latency")}
        if task["status"] == "failed":
            ended["result"] = {"error": task["msg"]}
        elif task["status"] == "running":
            ended["progress"] = self._sequencer.progress_of(task["task_id"])
        return reply | {key: value for key, value in ended.items() if value is not None}

    def cancel(self, call: TaskCancel) -> str:
        """Cancel a task unless it ended; returns a sentence for the consumer. Raises Refusal."""
        task = self._task_of(call)
        if task["status"] not in ("waiting", "running"):
            return f"the task is already {task['status']}"
        with transaction(self._db):
            self._sequencer.end_lease_of(task["task_id"], "canceled")
            self._db.execute(
                "UPDATE tasks SET status = 'canceled', ended_at = ? WHERE task_id = ?", (self._clock(), task["task_id"])
            )
        return "the task is canceled"

    def find_miner(self, call: ResourceRequest) -> str:
        """The miner last heard from that can run this. Raises Refusal with 404 if there is no such miner."""
        self.authorise(call.consumer_id, call.api_key)
        miners = self._db.execute(
            "SELECT miner_id, workflow_ids FROM miners WHERE seen_at > ? ORDER BY seen_at DESC",
            (self._clock() - self._options.lease_ttl,),
        )
        for miner in miners:
            if any(_fits(workflow_id, call) for workflow_id in json.loads(miner["workflow_ids"])):
                miner_id: str = miner["miner_id"]
                return miner_id
        raise Refusal(404, "no miner offers this workflow now", counted=False)

    def _task_of(self, call: TaskQuery) -> sqlite3.Row:
        self.authorise(None, call.api_key)
        task: sqlite3.Row | None = self._db.execute("SELECT * FROM tasks WHERE task_id = ?", (call.task_id,)).fetchone()
        if task is None or not hmac.compare_digest(task["key_hash"], _hash(call.api_key)):
            raise Refusal(404, f"this key has no task {call.task_id}")
        return task


def _opens(entry: str, consumer_id: str | None, api_key: str) -> bool:
    """Whether a configured key, plain or combined, matches the call's consumer id and key."""
    owner, _, key = entry.rpartition("#")
    same_key = hmac.compare_digest(key.encode(), api_key.encode())
    return same_key and (not owner or consumer_id is None or owner == consumer_id)


def _fits(workflow_id: str, call: ResourceRequest) -> bool:
    if call.workflow_id is not None and workflow_id != call.workflow_id:
        return False
    public = PUBLIC_WORKFLOWS.get(workflow_id)
    return call.task_type is None or public is None or public.task_type == call.task_type


def _hash(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
