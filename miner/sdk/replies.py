"""What the sequencer says to a consumer, parsed strictly: a field is of its type or the reply is refused.

A field that is not known is ignored, since a sequencer may know more than this SDK. Nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from miner.sdk.errors import APIError, AuthenticationError, InvalidReply


class TaskStatus(StrEnum):
    """The status of a task."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running task is, if its miner and the sequencer tell."""

    stage: str
    percent: float
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTaskResult:
    """The state of a task. `result` is set once it is finished: the object's key in the network's store, its URL, or an
    object with its `url`."""

    task_id: str
    status: TaskStatus
    result: Any = None
    msg: str = ""  # why it failed, if the sequencer says so
    result_url: str | None = field(default=None, repr=False)  # where to download it, if told; may contain a secret
    progress: Progress | None = None

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in (TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinerResponse:
    """A miner that could take a task."""

    miner_id: str
    msg: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCancelResponse:
    """The answer to a cancellation."""

    task_id: str
    msg: str


class Reply:
    """The JSON object of a 2xx reply, read by field. Every method raises InvalidReply and names the call."""

    def __init__(self, body: bytes, *, call: str, status: int) -> None:
        self._call, self._status = call, status
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._wrong("it is not JSON") from error
        if not isinstance(parsed, dict):
            raise self._wrong("it is not a JSON object")
        self._fields: Mapping[str, Any] = parsed

    def miner(self) -> MinerResponse:
        return MinerResponse(miner_id=self.text("miner_id"), msg=self.text("msg", default=""))

    def task_id(self) -> str:
        return self.text("task_id")

    def canceled(self, task_id: str) -> TaskCancelResponse:
        self._same_task(task_id)
        return TaskCancelResponse(task_id=task_id, msg=self.text("msg", default=""))

    def result(self, task_id: str) -> WorkflowTaskResult:
        self._same_task(task_id)
        try:
            status = TaskStatus(self.text("status"))
        except ValueError as error:
            raise self._wrong("unknown status") from error
        result = self._fields.get("result")
        return WorkflowTaskResult(
            task_id=task_id,
            status=status,
            result=result,
            msg=self.text("msg", default="") or (_reason(result) if status == TaskStatus.FAILED else ""),
            result_url=self.text("result_url", default="") or _url(result),
            progress=_progress(self._fields.get("progress")),
        )

    def text(self, name: str, *, default: str | None = None) -> str:
        """A text field; must not be empty unless it has a default."""
        value = self._fields.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (not value and default is None):
            raise self._wrong(f"{name} is {'missing' if value in (None, '') else 'not a string'}")
        return value

    def _same_task(self, task_id: str) -> None:
        """A reply need not repeat the id."""
        if self.text("task_id", default=task_id) != task_id:
            raise self._wrong("task_id is another task's")

    def _wrong(self, reason: str) -> InvalidReply:
        return InvalidReply(
            f"{self._call} answered {self._status} against the protocol: {reason}; is this the URL of a sequencer?",
            status=self._status,
        )


def _url(result: Any) -> str | None:
    """The URL in a result, in each form that the network's documentation shows."""
    said = result.get("url") if isinstance(result, dict) else result
    return said if isinstance(said, str) and said.lower().startswith(("http://", "https://")) else None


def _reason(result: Any) -> str:
    """The reason in the result of a failed task: the network's types have no other place for it."""
    said = (result.get("error") or result.get("message")) if isinstance(result, dict) else result
    return said if isinstance(said, str) else ""


def _progress(said: Any) -> Progress | None:
    """What is told of the progress; nothing of it is needed, so what is not understood is left out."""
    if not isinstance(said, dict) or not isinstance(said.get("stage"), str) or not _is_number(said.get("percent")):
        return None
    eta = said.get("eta_seconds")
    return Progress(stage=said["stage"], percent=said["percent"], eta_seconds=eta if _is_number(eta) else None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def refusal(body: bytes, *, call: str, status: int, retry_after: str | None, reason: str = "") -> APIError:
    """The error for a reply other than 2xx: `message` or `error` of its JSON, else its first words, else `reason`.

    `retry_after` is the header; seconds count, a date is ignored, since the interval of asking serves as well.
    """
    kind = AuthenticationError if status in (401, 403) else APIError
    seconds = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    return kind(call=call, status=status, detail=_words(body) or reason or "no reason given", retry_after=seconds)


def _words(body: bytes) -> str:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(body[:300].decode("utf-8", errors="replace").split())
    if not isinstance(parsed, dict):
        return ""
    found = parsed.get("message") or parsed.get("error")
    return " ".join(str(found).split())[:300] if found else ""
