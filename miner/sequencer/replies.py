"""The sequencer's replies, validated and typed. Pure.

The client bounds a reply in bytes, this module in nesting. A reply that is not a JSON object raises Retryable, unless
it is a task whose id can be read: that one is answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from miner.sequencer.salvage import Salvage
from miner.task.errors import Retryable
from miner.task.stages import Lease, PresignedPut, TemporaryS3, UploadTarget

MAX_REPLY_DEPTH = 64
MAX_ID_LENGTH = 256
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_ANSWERED_ID = 4096  # characters of an id that is too long for a task, but can be answered


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
    try:
        reply = parse_object(data)
    except Retryable as flaw:
        salvage = Salvage()
        salvage.feed(data)
        if not salvage.found:
            raise
        return parse_salvage(salvage, flaw.message.replace("the sequencer's reply", "the task"), leased_at=leased_at)
    msg = reply["msg"][:1000] if isinstance(reply.get("msg"), str) else ""
    canceled = reply.get("canceled")
    gone = tuple(c for c in canceled if isinstance(c, str)) if isinstance(canceled, list) else ()
    task_id = reply.get("task_id")
    if task_id is None or task_id == "":
        return Reply(msg=msg, canceled=gone)
    task_id = _parse_id(task_id)
    if "running" in msg.lower() and "task_details" not in reply:
        return Reply(running=task_id, msg=msg, canceled=gone)
    return Reply(lease=_parse_lease(task_id, reply, leased_at), msg=msg, canceled=gone)


def parse_salvage(salvage: Salvage, fault: str, *, leased_at: float) -> Reply:
    """The reply to answer, of which only the id was read. Raises Retryable without one."""
    if not salvage.found:
        raise Retryable("the sequencer's reply is too long, and names no task")
    return Reply(lease=Lease.unknown(_parse_id(salvage.task_id), at=leased_at, fault=fault))


def _parse_id(value: Any) -> str:
    """The id, even one that only serves for an answer. Raises Retryable for one that is of no use."""
    task_id = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(task_id, str) or len(task_id) > MAX_ANSWERED_ID or _is_torn(task_id):
        raise Retryable(f"the sequencer sent a task_id that is not a string of at most {MAX_ANSWERED_ID} characters")
    return task_id


def _is_torn(text: str) -> bool:
    """Whether it has half a character of UTF-16, which no file and no database takes."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _parse_lease(task_id: str, reply: Mapping[str, Any], leased_at: float) -> Lease:
    parameters, fault = _parse_parameters(reply.get("task_details"))
    if not _is_name(task_id):
        fault = f"task_id must be a printable string of at most {MAX_ID_LENGTH} characters"
    target, flaw = _parse_target(reply)
    fault = fault or flaw
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
        target=target,
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


def _parse_target(reply: Mapping[str, Any]) -> tuple[UploadTarget | None, str]:
    """The target, and what is wrong with it: a header that is left out would cost a render."""
    url, credential = reply.get("upload_url"), reply.get("credential")
    if isinstance(url, str) and (url := url.strip(" \t\r\n\f")):
        headers = reply.get("upload_headers") or {}
        if not isinstance(headers, dict):
            return PresignedPut(url=url), "upload_headers must be an object"
        values = {k: str(v) if _is_number(v) else v for k, v in headers.items()}
        if not all(isinstance(value, str) for value in values.values()):
            return PresignedPut(url=url), "upload_headers must have strings as values"
        prefix = reply.get("prefix")
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            prefix = ""
        return PresignedPut(url=url, headers=values, prefix=prefix), ""
    if isinstance(credential, dict):
        keys = ("access_key_id", "secret_access_key", "session_token")
        parts = {key: credential.get(key) for key in keys}
        if all(isinstance(part, str) and part for part in parts.values()):
            return TemporaryS3(**parts), ""  # type: ignore[arg-type]  # just checked
    return None, ""


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
