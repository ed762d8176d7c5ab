"""The error tree: whose fault an error is, and what happens next.

MinerError
├── ConfigError     the operator's settings: say where, exit with 78 (EX_CONFIG)
├── Retryable       nobody's fault: try again, after `retry_after` seconds if given
├── JobFault        the task is wrong: answer it with a failure; the message is for its consumer
├── MachineFault    this machine is at fault: keep the task if there is time; `hint` is for the operator
└── LeaseLost       the sequencer took the task away: drop it quietly

Each client translates its library's errors into these.
"""

from __future__ import annotations


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
    """The task cannot succeed anywhere.

    The message becomes `msg` of the answer: one line that a consumer can act on, without paths, addresses or secrets of
    this machine.
    """


class MachineFault(MinerError):
    """This machine cannot do it now; another one, or a later try, might."""


class LeaseLost(MinerError):
    """The sequencer took the task away; do not answer it."""
