"""The requests of the protocol, as strict types, and how a wrong one is refused.

A field of the wrong type is never converted: neither `true` nor `"1"` is a number. Unknown fields are ignored, as the
protocol has it. Source: the sequencer's wire protocol, both sides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

BODY_LIMIT = 768 * 1024
"""Bytes of a JSON request. A task comes back out in a reply, and a miner takes no reply above 1 MiB."""

_WAIT = re.compile(r"\s*wait\s*=\s*(\S*)\s*", re.IGNORECASE)


class Refusal(Exception):
    """The call is refused: `status` is 4xx, the message is the reason. `counted` says if it is a violation."""

    def __init__(self, status: int, message: str, *, counted: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.counted = counted


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicWorkflow:
    """What the network publishes of a workflow id: its task type, and its output format."""

    task_type: str
    format: str


# The network's are 1 to 3; the others are this devnet's own.
PUBLIC_WORKFLOWS: Mapping[str, PublicWorkflow] = {
    "1": PublicWorkflow(task_type="txt2vid", format="mp4"),
    "2": PublicWorkflow(task_type="txt2vid", format="webp"),
    "3": PublicWorkflow(task_type="txt2img", format="jpg"),
    "4": PublicWorkflow(task_type="upscaler", format="png"),
    "5": PublicWorkflow(task_type="img2vid", format="mp4"),
    "6": PublicWorkflow(task_type="img2img", format="jpg"),
}

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
MinerId = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}(-[A-Za-z0-9_]+)?$", max_length=200)]


class Call(BaseModel):
    """A request's body."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class ResourceRequest(Call):
    consumer_id: Name
    api_key: Name
    workflow_id: Name | None = None
    task_type: Name | None = None


class TaskCreate(Call):
    consumer_id: Name
    api_key: Name
    task_type: Name
    task_details: dict[str, Any]
    job_id: Annotated[str, Field(pattern=r"^.+-[0-9a-fA-F]{10}$", max_length=1000)]
    workflow_id: Name | None = None
    timeout_seconds: Timeout | None = None

    @model_validator(mode="after")
    def _has_parameters(self) -> Self:
        if not isinstance(self.task_details.get("parameters"), dict):
            raise ValueError('task_details must be {"parameters": {…}}')
        return self


class TaskQuery(Call):
    task_id: Name
    api_key: Name


class TaskCancel(TaskQuery):
    pass


class Progress(Call):
    """How far a task is. `percent` never falls; `eta_seconds` is left out while unknown."""

    task_id: Name
    stage: Annotated[str, Field(pattern=r"^[a-z]{1,32}$")]
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    eta_seconds: Seconds | None = None


class MinerRequest(Call):
    erc20_address: MinerId
    workflow_ids: list[Name]
    miner_id: str | None = None
    version: str | None = None
    hardware: str | None = None
    progress: Annotated[list[Progress], Field(max_length=100)] = []

    @model_validator(mode="after")
    def _one_id(self) -> Self:
        if self.miner_id is not None and self.miner_id != self.erc20_address:
            raise ValueError("miner_id is not erc20_address")
        return self


class MinerSubmit(Call):
    """An answer. All seven fields are required; success and failure fill different ones."""

    success: bool
    task_id: Name
    miner_id: MinerId
    result: str
    inference_latency: Seconds
    upload_latency: Seconds
    msg: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.success and not self.result:
            raise ValueError("result is empty, and must be the object's key on success")
        if self.success and self.msg:
            raise ValueError("msg must be empty on success")
        if not self.success and self.result:
            raise ValueError("result must be empty on failure")
        if not self.success and not self.msg.strip():
            raise ValueError("msg is empty, and must say why on failure")
        if not self.msg.isprintable():
            raise ValueError("msg must be one line, without control characters")
        return self


C = TypeVar("C", bound=BaseModel)


async def read_call(request: Request, model: type[C], *, limit: int = BODY_LIMIT) -> C:
    """The request's body as a `model`. Raises Refusal: 415, 413, or 400 that names every wrong field."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"the content type is {kind or 'missing'}, and must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refusal(413, f"the body is larger than {limit} bytes")
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        raise Refusal(400, "; ".join(_wrong(item["loc"], item["msg"]) for item in error.errors())) from None


def _wrong(place: Sequence[int | str], reason: str) -> str:
    reason = reason.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {reason}" if place else reason


def preferred_wait(header: str | None) -> int:
    """The N of `Prefer: wait=N` (seconds), or 0. Raises Refusal unless N is a whole number (RFC 7240)."""
    for part in re.split(r"[,;]", header or ""):
        found = _WAIT.fullmatch(part)
        if found is None:
            continue
        if not re.fullmatch(r"[0-9]{1,9}", found[1]):
            raise Refusal(400, f"Prefer: wait={found[1]} is not a whole number of seconds")
        return int(found[1])
    return 0


def as_json(value: object) -> str:
    """`value` as JSON text. Raises Refusal for a number that JSON cannot express."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise Refusal(400, "a number is not finite, or has too many digits") from None
