"""What a task is, and where it stands.

    lease ─▶ Leased ─▶ Prepared ─▶ Prompted ─▶ Rendered ─▶ Uploaded ─▶ Answered ─▶ Closed
                          ▲            │           │
                          └────────────┴───────────┘   rendered again, under another prompt id

`Stage` is a closed union; a task has one at a time, and `NEXT` says which may follow. `TaskInHand` is the one account
of a task: every other part reads it there (see `ledger`). Everything is frozen, and nothing here does I/O. Times are
Unix seconds, since they have to survive a restart; latencies are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

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

    @classmethod
    def unknown(cls, task_id: str, *, at: float, fault: str = "") -> Lease:
        """Of a task that is known by its id alone; `at` is in Unix seconds."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be rendered: every parameter was checked against the workflow that will run it."""

    workflow: str  # its name
    values: Mapping[str, Value] = field(repr=False)  # defaults filled in, seed drawn, sizes rounded
    images: Mapping[str, str] = field(repr=False)  # parameter → URL of an input that is still to be fetched
    deadline: float  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that a node wrote, by ComfyUI's own names; `kind` is `output`, `temp` or `input`."""

    filename: str
    subfolder: str
    kind: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the history tells about a task beside its outcome: seconds of each part that is known, and bytes."""

    prepare: float | None = None  # from lease to ComfyUI's queue
    queue: float | None = None  # in that queue
    render: float | None = None
    deliver: float | None = None  # from ComfyUI's end to the answer: convert, upload
    total: float | None = None  # from lease to answer
    size: int | None = None  # of the result


# ---- the stages -------------------------------------------------------------------------------------------------

StageName = Literal["leased", "prepared", "prompted", "rendered", "uploaded", "answered", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """The sequencer gave it; nothing in it is believed yet."""

    name: ClassVar[StageName] = "leased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Checked. `prompt_id` is the one under which ComfyUI will run it: a canonical lower-case UUID, minted here."""

    name: ClassVar[StageName] = "prepared"
    job: Job
    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """In ComfyUI's queue, or about to be: it is written down before the POST."""

    name: ClassVar[StageName] = "prompted"
    job: Job
    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """ComfyUI is done: the output node's files, and how long it took."""

    name: ClassVar[StageName] = "rendered"
    job: Job
    prompt_id: str
    files: tuple[OutputFile, ...]
    inference_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """The object is in the store under `key`."""

    name: ClassVar[StageName] = "uploaded"
    job: Job
    key: str
    size: int  # bytes
    inference_latency: float
    upload_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The outcome is known, and not acknowledged yet."""

    name: ClassVar[StageName] = "answered"
    outcome: Outcome
    facts: Facts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Nothing is owed. `verdict`: how the sequencer took the answer, or `taken away`."""

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
"""Which stages may follow which."""


# ---- a task in hand ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What the sequencer last said of a task in hand. `policy.observe` tells what a reply makes of it."""

    task_id: str
    confirmed: bool = False  # it said `running` for it while it was the only one in hand
    silences: int = 0  # replies in a row since then that did not say so

    UNTIL_LOST: ClassVar[int] = 2  # silences; the protocol: "twice in a row no longer does"

    @property
    def taken_away(self) -> bool:
        return self.silences >= self.UNTIL_LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A prompt's progress. `done` of `nodes` are whole nodes; `value` of `of` is the current node's own progress."""

    prompt_id: str
    value: float
    of: float
    done: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Everywhere that something of a task lies, for whoever cleans up after it."""

    prompts: tuple[str, ...] = ()  # ids, the latest last: each has a folder in ComfyUI's input and output folders
    folders: tuple[str, ...] = ()  # of this miner's own, for files on their way


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInHand:
    """A task that this miner has taken and not closed."""

    lease: Lease
    stage: Stage
    hold: Hold
    attempts: int = 0  # renders begun; in the journal
    crashes: int = 0  # runs of the program that ended without warning with it in hand; in the journal
    places: Places = Places()  # in the journal
    workflow: str = ""  # its name, once it was chosen
    seed: Value | None = None  # for the log; drawn here where the task named none
    ignored: tuple[str, ...] = ()  # the task's parameters that its workflow does not know
    queued_at: float = 0.0  # when its prompt stood in ComfyUI's queue; 0.0: not yet
    started_at: float = 0.0  # … and when ComfyUI began with it
    rendered_at: float = 0.0  # … and was done with it
    rendered_in: float = 0.0  # seconds that ComfyUI took
    size: int | None = None  # bytes of the result
    since: float = 0.0  # when its stage began
    progress: Progress | None = None
    stranger: bool = False  # never leased here, as far as the journal knows: it is only answered
    given_up: str = ""  # why a prompt that was left behind must not go on, for its consumer
    resumed: bool = False  # its prompt was left behind by an earlier run, and may have ended long ago

    @property
    def task_id(self) -> str:
        return self.lease.task_id

    @property
    def job(self) -> Job | None:
        """What is to be rendered, from `Prepared` to `Uploaded`."""
        return getattr(self.stage, "job", None)

    @property
    def taken_away(self) -> bool:
        """Whether the sequencer has given it to somebody else, or to nobody."""
        return self.hold.taken_away

    @property
    def answered(self) -> bool:
        """Whether its outcome is known: nothing is left to do but to have it acknowledged."""
        return isinstance(self.stage, (Answered, Closed))
