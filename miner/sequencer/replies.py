"""The sequencer's replies, validated and typed. Pure.

The client bounds a reply in bytes, this module in nesting. A reply that is not a JSON object raises Retryable.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from miner.task.errors import Retryable
from miner.task.stages import Lease, PresignedPut, TemporaryS3, UploadTarget

MAX_REPLY_DEPTH = 64
MAX_ID_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The sequencer's reply to one request; all empty if it has no task."""

    lease: Lease | None = None
    running: str | None = None  # a task that it believes this miner id is running
    canceled: tuple[str, ...] = ()
    msg: str = ""
    held_for: float = 0.0  # seconds that it agreed to hold the request; after that, ask again at once


def parse_reply(data: bytes, *, leased_at: float) -> Reply:
    """Parse a reply to `/miner_request`. Raises Retryable unless it is a JSON object within bounds.

    A task with an invalid field is a lease all the same and must be answered; `Lease.fault` names the problem.
    """
    reply = parse_object(data)
    msg = reply["msg"][:1000] if isinstance(reply.get("msg"), str) else ""
    canceled = reply.get("canceled")
    gone = tuple(c for c in canceled if isinstance(c, str)) if isinstance(canceled, list) else ()
    task_id = reply.get("task_id")
    if task_id is None or task_id == "":
        return Reply(msg=msg, canceled=gone)
    if not _is_name(task_id):
        raise Retryable("the sequencer sent a task_id that is not a printable string of at most 256 characters")
    if "running" in msg.lower() and "task_details" not in reply:
        return Reply(running=task_id, msg=msg, canceled=gone)
    return Reply(lease=_parse_lease(task_id, reply, leased_at), msg=msg, canceled=gone)


def _parse_lease(task_id: str, reply: Mapping[str, Any], leased_at: float) -> Lease:
    parameters, fault = _parse_parameters(reply.get("task_details"))
    timeout = reply.get("timeout_seconds")
    if timeout is not None and not (_is_number(timeout) and 0 < timeout <= 7 * 86400):
        timeout, fault = None, fault or "timeout_seconds must be a number of seconds above 0"
    names = {key: reply.get(key) for key in ("task_type", "workflow_id")}
    for key, name in names.items():
        if name is not None and not _is_name(name):
            names[key], fault = "", fault or f"{key} must be a short printable string"
    return Lease(
        task_id=task_id,
        task_type=_text(names["task_type"]),
        workflow_id=_text(names["workflow_id"]),
        parameters=parameters,
        target=_parse_target(reply),
        timeout_seconds=float(timeout) if timeout is not None else None,
        leased_at=leased_at,
        fault=fault,
    )


def _parse_parameters(details: Any) -> tuple[Mapping[str, Any], str]:
    """The parameters in `task_details`: an object, or one as a JSON string, with `parameters` or just a `prompt`."""
    if isinstance(details, str):
        try:
            details = parse_object(details.encode())
        except (Retryable, UnicodeEncodeError):
            return {}, "task_details is a string, but not a JSON object"
    if not isinstance(details, dict):
        return {}, "task_details must be an object"
    parameters = details.get("parameters")
    if parameters is None and isinstance(details.get("prompt"), str):
        return {"prompt": details["prompt"]}, ""
    if not isinstance(parameters, dict):
        return {}, "task_details must have an object `parameters`"
    return parameters, ""


def _parse_target(reply: Mapping[str, Any]) -> UploadTarget | None:
    url, credential = reply.get("upload_url"), reply.get("credential")
    if isinstance(url, str) and url:
        headers = reply.get("upload_headers")
        pairs = headers.items() if isinstance(headers, dict) else ()
        return PresignedPut(url=url, headers={k: v for k, v in pairs if isinstance(v, str)})
    if isinstance(credential, dict):
        keys = ("access_key_id", "secret_access_key", "session_token")
        parts = {key: credential.get(key) for key in keys}
        if all(isinstance(part, str) and part for part in parts.values()):
            return TemporaryS3(**parts)  # type: ignore[arg-type]  # just checked
    return None


def parse_object(data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, a number of over 4,300 digits
        raise Retryable("the sequencer's reply is not JSON") from error
    if not isinstance(parsed, dict):
        raise Retryable("the sequencer's reply is not a JSON object")
    level: list[Any] = [parsed]
    for _ in range(MAX_REPLY_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return parsed
    raise Retryable(f"the sequencer's reply is nested deeper than {MAX_REPLY_DEPTH} levels")


def _children(node: Any) -> Collection[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ID_LENGTH and value.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
