"""Whose fault a failed render is, how often to try it again, and when a workflow pauses. Pure.

Once a task's parameters are checked and its inputs are decoded, what goes wrong is this machine's, unless it is known
to be the task's: a consumer must not pay for a full disk, a cut weight or a broken custom node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from miner.task.errors import Fault

ATTEMPTS: Mapping[Fault, int] = MappingProxyType({"memory": 2, "unknown": 2, "refused": 1, "upload": 1})
"""Renders of one task that may fail like this."""

MAX_ATTEMPTS = 3
"""Renders of one task, whatever failed."""

EVERYWHERE: frozenset[Fault] = frozenset({"disk", "network", "upload"})
"""Faults that would spoil the tasks of every workflow."""

_WORDS: Mapping[Fault, tuple[str, ...]] = MappingProxyType(
    {
        "interrupted": ("interruptprocessing",),
        "memory": (
            "outofmemory",
            "out of memory",
            "out_of_memory",
            "allocation on device",
            "not enough memory",
            "insufficient memory",
            "allocate memory",  # glibc, and PyTorch's DefaultCPUAllocator
            "memoryerror",
            "memoryallocation",
            "bad_alloc",
            "bad allocation",
            "enforce fail at alloc_cpu",
            "unable to allocate",  # NumPy
            "alloc_failed",  # cuBLAS, cuDNN
            "paging file is too small",
            "[errno 12]",
        ),
        "poisoned": (
            "cuda error",
            "cuda driver",
            "cudaerror",
            "no cuda gpus are available",
            "cuda-capable device",
            "device-side assert",
            "illegal memory access",
            "illegal instruction",
            "launch failure",
            "no kernel image",
            "gpu is lost",
            "cublas",
            "cudnn",
            "cusolver",
            "cusparse",
            "cufft",
            "nccl",
            "nvml",
            "hip error",
            "hiperror",
            "xpu error",
        ),
        "disk": (
            "no space left",
            "not enough space on the disk",
            "disk full",
            "disk is full",
            "disk quota",
            "read-only file system",
            "permission denied",
            "permissionerror",
            "input/output error",
            "too many open files",
            "file too large",
            "stale file handle",
            "[errno 5]",
            "[errno 13]",
            "[errno 24]",
            "[errno 28]",
            "[errno 30]",
            "[errno 122]",
            "[winerror 112]",
        ),
        "weights": (
            "safetensor",
            "deserializing header",
            "headertoo",
            "invalidheader",
            "incompletebuffer",
            "pytorchstreamreader",
            "central directory",
            "failed reading zip",
            "weights only load failed",
            "weights_only",
            "unpickling",
            "invalid load key",
            "pickle data",
            "ran out of input",
            "eoferror",
            "unexpected eof",
            "corrupt",
            "loading state_dict",
            "missing key(s)",
            "unsupportedmodel",
            "detect model type",
            "file not found",
            "filenotfound",
            "no such file",
            "[errno 2]",
        ),
    }
)
"""Words of PyTorch, safetensors, CUDA, Python and the C library, in lower case; the first kind that matches counts."""

_TOLD: Mapping[Fault, str] = MappingProxyType(
    {
        "memory": "this miner has too little memory for the task; please create it again, or ask for less",
        "network": "this miner's network failed during the task; please create it again",
        "refused": "this miner's renderer refused the task; please create it again",
        "upload": "this miner cannot upload results to where this task's credentials are for; please create it again",
        "disk": "this miner's disk failed during the task; please create it again",
    }
)


def blame(exception_type: str, message: str) -> Fault:
    """Classify a node's exception."""
    text = f"{exception_type} {message}".lower()
    return next((fault for fault, words in _WORDS.items() if any(word in text for word in words)), "unknown")


def may_try_again(fault: Fault, *, attempts: int) -> bool:
    """Whether to render a task again after its `attempts`th failure."""
    return attempts < ATTEMPTS.get(fault, MAX_ATTEMPTS)


def told(fault: Fault) -> str:
    """What the consumer reads once this machine has given up."""
    return _TOLD.get(fault, "this miner's renderer failed on the task; please create it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One spoiled render."""

    at: float = 0.0  # Unix seconds
    task_id: str = ""
    cause: str = ""  # a Fault, or what the consumer reads; to compare
    reason: str = ""  # in ComfyUI's or our own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A workflow's health on this machine, or the machine's for all of them.

    After a pause comes a trial, a render of our own: no consumer's task is to find out that nothing has changed. Then
    comes one consumer's task at a time, the canary, until one succeeds.
    """

    faults: int = 0  # of this machine, in a row
    alike: int = 0  # tasks in a row that failed alike, by their own fault as it seems
    not_before: float = 0.0  # not advertised before, Unix seconds
    tried: bool = False  # our own render has succeeded since
    last: Incident = Incident()

    FAULTS_UNTIL_TRIAL = 3
    FIRST_PAUSE = 60.0  # seconds before the first trial
    LONGEST_PAUSE = 600.0  # seconds; also the pause after running out of memory

    @property
    def on_trial(self) -> bool:
        return self.faults >= self.FAULTS_UNTIL_TRIAL

    def is_due(self, *, now: float) -> bool:
        """Whether it is time for our own render."""
        return self.on_trial and not self.tried and now >= self.not_before

    def may_advertise(self, *, now: float, in_hand: bool) -> bool:
        """Whether to advertise the workflow; `in_hand`: one of its tasks is in hand."""
        return now >= self.not_before and (not self.on_trial or (self.tried and not in_hand))

    def after_fault(self, incident: Incident, *, at_once: bool = False) -> Health:
        """This machine spoiled a render. `at_once`: the next task would fail, too."""
        faults = max(self.faults + 1, self.FAULTS_UNTIL_TRIAL if at_once else 0)
        pause = 0.0
        if at_once:
            pause = self.LONGEST_PAUSE
        elif faults >= self.FAULTS_UNTIL_TRIAL:
            pause = min(self.FIRST_PAUSE * 2.0 ** (faults - self.FAULTS_UNTIL_TRIAL), self.LONGEST_PAUSE)
        return Health(faults=faults, not_before=max(self.not_before, incident.at + pause), last=incident)

    def after_task(self, incident: Incident) -> Health:
        """A task failed in a way that seems to be its own fault: counts once several different ones failed alike."""
        if incident.task_id == self.last.task_id:
            return self
        alike = self.alike + 1 if incident.cause == self.last.cause else 1
        if alike < self.FAULTS_UNTIL_TRIAL:
            return replace(self, alike=alike, last=incident)
        before = replace(self, faults=max(self.faults, self.FAULTS_UNTIL_TRIAL - 1))
        return replace(before.after_fault(incident), alike=alike)
