"""What a task is at each stage: Lease → Job → Prompt → Rendered → Uploaded → Outcome.

Each is frozen; a stage takes one and returns the next. Nothing here does I/O. Times are Unix seconds, since they
have to survive a restart; latencies are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Graph = dict[str, dict[str, Any]]
"""A ComfyUI graph in API format: node id → {"class_type": …, "inputs": {…}}."""

Value = str | int | float | bool
"""A checked parameter value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedPut:
    """`PUT` the bytes to `url`, with `headers` as they are. The URL's query is a secret, so repr leaves it out."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporaryS3:
    """Temporary S3 credentials for the configured bucket. All of it is secret."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


UploadTarget = PresignedPut | TemporaryS3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A task as the sequencer gave it: parsed, but nothing in it is believed yet."""

    task_id: str
    task_type: str
    workflow_id: str
    parameters: Mapping[str, Any] = field(repr=False)  # as sent; may hold the consumer's prompt
    target: UploadTarget | None
    timeout_seconds: float | None  # from `leased_at`; None: the workflow's own
    leased_at: float
    fault: str = ""  # what is wrong with the task's own form, in words for its consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A lease whose every parameter was checked against the workflow that will run it."""

    lease: Lease
    workflow: str  # the workflow's name
    values: Mapping[str, Value] = field(repr=False)  # defaults filled in, seed drawn, sizes rounded
    images: Mapping[str, str] = field(repr=False)  # parameter → URL of an input that is still to be fetched
    deadline: float  # Unix seconds

    @property
    def task_id(self) -> str:
        return self.lease.task_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A filled graph and the id under which ComfyUI is to run it."""

    job: Job
    prompt_id: str  # canonical lower-case UUID, minted here, journaled before the POST
    graph: Graph = field(repr=False)  # empty when it was picked up after a restart: ComfyUI has it


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that a node wrote, by ComfyUI's own names; `kind` is `output`, `temp` or `input`."""

    filename: str
    subfolder: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """ComfyUI is done: the output node's files, and how long it took."""

    job: Job
    prompt_id: str
    files: tuple[OutputFile, ...]
    inference_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """The object is in the store under `key`."""

    job: Job
    key: str
    size: int  # bytes
    inference_latency: float
    upload_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a task: the fields of `/miner_submit`, but for the miner's id."""

    task_id: str
    success: bool
    result: str = ""  # the object's key; empty on failure
    inference_latency: float = 0.0
    upload_latency: float = 0.0
    msg: str = ""  # empty on success


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A finished file on this disk, ready to be uploaded."""

    path: Path
    content_type: str  # MIME type
    size: int  # bytes
