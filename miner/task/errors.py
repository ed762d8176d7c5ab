"""The error tree. It says whose fault an error is, and so what happens next.

MinerError
├── ConfigError     the operator's settings: say where, exit with 78 (EX_CONFIG)
├── Retryable       nobody's fault: ask again, after `retry_after` seconds where that is given
├── JobFault        the task is wrong: answer it with a failure; the message is for its consumer
├── MachineFault    this machine is wrong: keep the task if there is time; `hint` is for the operator
└── LeaseLost       the sequencer took the task away: drop it quietly

A library's error is translated into one of these once, in the client that called it.
"""

from __future__ import annotations


class MinerError(Exception):
    """Any error that this program raises on purpose. `hint` is the operator's next step, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MinerError):
    """A setting is wrong. The message is one line that names the key and the place it was read from."""

    exit_code = 78  # EX_CONFIG of sysexits.h


class Retryable(MinerError):
    """It may go well the next time. `retry_after` is what the other side asked for, in seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class JobFault(MinerError):
    """The task cannot succeed anywhere.

    The message becomes `msg` of the answer: one line that a consumer can act on, with no path, address or secret of
    this machine in it.
    """


class MachineFault(MinerError):
    """This machine cannot do it now; another, or this one later, might."""


class LeaseLost(MinerError):
    """The sequencer took the task away; no answer is owed."""
