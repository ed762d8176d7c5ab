"""A task and its stages.

    lease ─▶ Leased ─▶ Prepared ─▶ Prompted ─▶ Rendered ─▶ Uploaded ─▶ Answered ─▶ Closed
                          ▲            │           │
                          └────────────┴───────────┘   rendered again, with another prompt id

`Stage` is a closed union; `NEXT` says which may follow. `TaskInHand` is the only record of a task in memory (see
`ledger`). All frozen, no I/O. Times are Unix seconds by `telemetry.clock`, which never jumps; latencies are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

Graph = dict[str, dict[str, Any]]
"""A ComfyUI graph in API format: node id → {"class_type": …, "inputs": {…}}."""

Value = str | int | float | bool
"""A checked parameter value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedPut:
    """`PUT` the bytes to `url` with `headers`. The URL contains a secret, so repr omits it. `prefix`: of the object's
    name, where the sequencer goes by that of other miners and not by the URL."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporaryS3:
    """Temporary S3 credentials for the configured bucket. All fields are secret."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


UploadTarget = PresignedPut | TemporaryS3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A task from the sequencer: parsed, not checked."""

    task_id: str
    task_type: str
    workflow_id: str
    parameters: Mapping[str, Any] = field(repr=False)  # as sent; may contain the consumer's prompt
    target: UploadTarget | None
    timeout_seconds: float | None  # from `leased_at`; None: the workflow's own
    leased_at: float
    fault: str = ""  # why the task is malformed, for its consumer

    @classmethod
    def unknown(cls, task_id: str, *, at: float, fault: str = "") -> Lease:
        """For a task known only by its id; `at`: Unix seconds."""
        return cls(
            task_id=task_id,
            task_type="",
            workflow_id="",
            parameters={},
            target=None,
            timeout_seconds=None,
            leased_at=at,
            fault=fault,
        )

    def strings(self) -> Iterator[str]:
        """What of it may not be written anywhere else: the consumer's words and the secrets of the upload target."""
        yield self.workflow_id
        yield from _strings(self.parameters)
        if isinstance(self.target, PresignedPut):
            yield self.target.url.partition("?")[2]
            yield from self.target.headers.values()
        elif self.target is not None:
            yield from (self.target.access_key_id, self.target.secret_access_key, self.target.session_token)

    def bare(self) -> Lease:
        """Without what the task brought: enough to submit its answer."""
        return replace(self, workflow_id="", parameters={}, target=None, fault="")


def _strings(value: Any) -> Iterator[str]:
    """Every string in JSON. Names are the workflow's, and those it does not know are never repeated. Of a URL, what
    follows the scheme; its host alone where that is long enough to be told from words."""
    if isinstance(value, str):
        _, slashes, rest = value.partition("://")
        host, slash, path = rest.partition("/")
        yield from (host, slash + path) if slashes and " " not in host else (value,)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to render: parameters checked against the workflow."""

    workflow: str  # its name
    values: Mapping[str, Value] = field(repr=False)  # defaults filled in, seed drawn, sizes rounded
    images: Mapping[str, str] = field(repr=False)  # parameter → URL of the input
    deadline: float  # of `telemetry.clock`


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that a node wrote, in ComfyUI's terms; `kind` is `output`, `temp` or `input`."""

    filename: str
    subfolder: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a task: the fields of `/miner_submit` except the miner id."""

    task_id: str
    success: bool
    result: str = ""  # the object's key; empty on failure
    inference_latency: float = 0.0
    upload_latency: float = 0.0
    msg: str = ""  # empty on success


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A finished file on disk, ready for upload."""

    path: Path
    content_type: str  # MIME type
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A task's durations in seconds and result size, for the history. None: unknown."""

    prepare: float | None = None  # from lease to ComfyUI's queue
    queue: float | None = None
    render: float | None = None
    deliver: float | None = None  # from the end of the render to the answer: convert, upload
    total: float | None = None  # from lease to answer
    size: int | None = None  # of the result


# ---- the stages -------------------------------------------------------------------------------------------------

StageName = Literal["leased", "prepared", "prompted", "rendered", "uploaded", "answered", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """Leased, not checked."""

    name: ClassVar[StageName] = "leased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Checked. `prompt_id`: ComfyUI's id for it, a new lower-case UUID."""

    name: ClassVar[StageName] = "prepared"
    job: Job
    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """In ComfyUI's queue, or about to be: recorded before the POST."""

    name: ClassVar[StageName] = "prompted"
    job: Job
    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Rendered by ComfyUI: the output node's files."""

    name: ClassVar[StageName] = "rendered"
    job: Job
    prompt_id: str
    files: tuple[OutputFile, ...]
    others: tuple[OutputFile, ...] = ()  # that other nodes wrote
    inference_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """Uploaded as `key`."""

    name: ClassVar[StageName] = "uploaded"
    job: Job
    key: str
    size: int  # bytes
    inference_latency: float
    upload_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Outcome known, not acknowledged yet."""

    name: ClassVar[StageName] = "answered"
    outcome: Outcome
    facts: Facts | None = None
    told: str | None = None  # the outcome's msg for log and history: without strings of the task; None: it has none

    @property
    def shown(self) -> Outcome:
        """The outcome for log and history."""
        return self.outcome if self.told is None else replace(self.outcome, msg=self.told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Done. `verdict`: the sequencer's reply to the answer, or `taken away`."""

    name: ClassVar[StageName] = "closed"
    verdict: str


Stage = Leased | Prepared | Prompted | Rendered | Uploaded | Answered | Closed

NEXT: Mapping[StageName, frozenset[StageName]] = MappingProxyType(
    {
        "leased": frozenset({"prepared", "answered", "closed"}),
        "prepared": frozenset({"prompted", "answered", "closed"}),
        "prompted": frozenset({"rendered", "prepared", "answered", "closed"}),
        "rendered": frozenset({"uploaded", "prepared", "answered", "closed"}),
        "uploaded": frozenset({"answered", "closed"}),
        "answered": frozenset({"closed"}),
        "closed": frozenset(),
    }
)
"""Allowed next stages."""


# ---- a task in hand ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What the sequencer last said about a task. Updated by `policy.observe`."""

    task_id: str
    named: bool = False  # as `running`
    heard: bool = False  # a task was named, this or another, while this one was in hand
    silences: int = 0  # replies in a row since then that named no task in hand
    eclipses: int = 0  # replies in a row, since it was named, that named another task in hand
    takes_turns: bool = False  # it was named again after an eclipse, so eclipses mean nothing

    UNTIL_LOST: ClassVar[int] = 2  # silences; see docs/protocol.md

    @property
    def taken_away(self) -> bool:
        return self.silences >= self.UNTIL_LOST

    @property
    def doubtful(self) -> bool:
        """Whether the last reply did not name it as it should, so that it is time to ask again."""
        return not self.taken_away and bool(self.silences or (self.eclipses and not self.takes_turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A prompt's progress: `done` of `nodes` nodes, and `value` of `of` steps of the current node."""

    prompt_id: str
    value: float
    of: float
    done: int
    nodes: int

    def share(self, nodes: int) -> float:
        """The share of a prompt that is done, all nodes counting alike. ComfyUI reports only nodes that have begun, so
        `nodes` comes from the graph."""
        current = min(self.value / self.of, 1.0) if self.of > 0 else 0.0
        whole = max(nodes, self.nodes, 1)
        return round(min((self.done + (current if self.done < self.nodes else 0.0)) / whole, 1.0), 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a task has files, for cleanup."""

    prompts: tuple[str, ...] = ()  # ids, latest last: each has a folder in ComfyUI's input and output folders
    folders: tuple[str, ...] = ()  # the miner's own, for temporary files
    inputs: tuple[str, ...] = ()  # parameters with a picture in the prompts' input folders
    files: tuple[OutputFile, ...] = ()  # in ComfyUI, that prompts wrote
    ended: tuple[str, ...] = ()  # prompts that wrote no others
    scrubbed: bool = False  # ComfyUI's log has none of its strings any more


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInHand:
    """A task that is not closed."""

    lease: Lease
    stage: Stage
    hold: Hold
    attempts: int = 0  # renders started; in the journal
    crashes: int = 0  # of the program, with the task in hand; in the journal
    places: Places = Places()  # in the journal
    workflow: str = ""  # its name, once chosen
    seed: Value | None = None  # for the log; random if the task has none
    ignored: tuple[str, ...] = ()  # parameters unknown to the workflow
    queued_at: float = 0.0  # when its prompt entered ComfyUI's queue; 0.0: not yet
    started_at: float = 0.0  # … ComfyUI started it
    rendered_at: float = 0.0  # … ComfyUI finished it
    rendered_in: float = 0.0  # seconds
    size: int | None = None  # bytes of the result
    since: float = 0.0  # when its stage began
    progress: Progress | None = None
    unknown: bool = False  # not in the journal: only answered
    given_up: str = ""  # why its prompt from an earlier run must end, for its consumer
    resumed: bool = False  # its prompt is from an earlier run, and may have ended long ago

    @property
    def task_id(self) -> str:
        return self.lease.task_id

    @property
    def job(self) -> Job | None:
        """What to render, from `Prepared` to `Uploaded`."""
        return getattr(self.stage, "job", None)

    @property
    def taken_away(self) -> bool:
        """Whether the sequencer has taken it away."""
        return self.hold.taken_away

    @property
    def answered(self) -> bool:
        """Whether its outcome is known."""
        return isinstance(self.stage, (Answered, Closed))
