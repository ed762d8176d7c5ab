"""The error tree: whose fault an error is, and what happens next.

MinerError
├── ConfigError     the operator's settings: say where, exit with 78 (EX_CONFIG)
├── Retryable       nobody's fault: try again, after `retry_after` seconds if given
├── JobFault        the task is over, as it is wrong or late: answer it; the message is for its consumer
├── MachineFault    this machine is at fault: try the task again, then answer it; `hint` is for the operator
└── LeaseLost       the sequencer took the task away: drop it quietly

Each client translates its library's errors into these.
"""

from __future__ import annotations

from typing import Literal

Fault = Literal[
    "memory", "poisoned", "disk", "weights", "refused", "network", "upload", "interrupted", "machine", "unknown"
]
"""What failed on this machine: too little memory · a broken CUDA context · a full or read-only disk · weights that do
not load · ComfyUI refused a checked graph · the network · the store that the operator configured for results · an
interrupt in ComfyUI that was not ours · something else of the machine's · an error that names no cause."""


class MinerError(Exception):
    """Base of all errors raised on purpose. `hint` is the operator's next step, or ""."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MinerError):
    """A setting is wrong. The message is one line with the key and its source."""

    exit_code = 78  # EX_CONFIG of sysexits.h


class Retryable(MinerError):
    """A retry may succeed. `retry_after`: seconds that the server asked for."""

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class JobFault(MinerError):
    """The task is over: its parameters, its input or its upload target are wrong, or its time has run out.

    The message becomes `msg` of the answer: one line that a consumer can act on, without paths, addresses or secrets of
    this machine.
    """


class MachineFault(MinerError):
    """This machine cannot do it now; another one, or a later try, might.

    `fault`: what failed, for the retries and the workflow's health (see `blame`). `told`: what the consumer reads, if
    more can be said than that this miner failed.
    """

    fault: Fault = "machine"

    def __init__(self, message: str, *, hint: str = "", fault: Fault | None = None, told: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fault = fault or type(self).fault
        self.told = told


class LeaseLost(MinerError):
    """The sequencer took the task away; do not answer it."""
