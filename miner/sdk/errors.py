"""The consumer's error tree. Every error has a `message`, and a `status` where a reply came.

WorkflowError
├── ConfigurationError        no key, or a setting that cannot be used; nothing was sent
├── InvalidTask               the task's own fields are wrong; nothing was sent
├── ConnectionFailed          no reply: refused, reset, or none in time
├── InvalidReply              a 2xx reply that breaks the protocol
├── APIError                  a reply other than 2xx
│   └── AuthenticationError   401 or 403: the consumer id or the key is wrong
└── TaskTimeout               the task did not end in time; it continues

A `transient` error may pass; waiting for a result continues after it. No message holds a key.
"""

from __future__ import annotations


class WorkflowError(Exception):
    """Any error that the SDK raises on purpose. `status` is the reply's HTTP status, or None without one."""

    transient = False
    retry_after: float | None = None  # seconds, where the server asked for them

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class ConfigurationError(WorkflowError):
    """A setting is missing or cannot be used. The message names it and its source."""


class InvalidTask(WorkflowError, ValueError):
    """A field of the task is wrong. The message names the field."""


class ConnectionFailed(WorkflowError):
    """No reply came. The request may have been carried out all the same."""

    transient = True


class InvalidReply(WorkflowError):
    """The reply is 2xx but breaks the protocol: not JSON, or a field is missing or of the wrong type."""

    transient = True


class APIError(WorkflowError):
    """A reply other than 2xx. `detail` is the server's text."""

    next_step = ""

    def __init__(self, *, call: str, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{call} was refused with {status}: {detail}{self.next_step}", status=status)
        self.detail = detail
        self.retry_after = retry_after
        self.transient = status in (408, 425, 429) or status >= 500


class AuthenticationError(APIError):
    """401 or 403: the consumer id or the key is wrong, or may not do this."""

    next_step = "; check XALORA_API_KEY"


class TaskTimeout(WorkflowError):
    """The task did not end in time. It continues: ask again with `query_task_result(task_id)`.

    `last_status` is the last one heard, or None if every query failed; `__cause__` says why.
    """

    def __init__(self, *, task_id: str, last_status: str | None, timeout: float) -> None:
        heard = f"last status: {last_status}" if last_status else "no status received"
        super().__init__(f"task {task_id} did not end within {timeout:g} s ({heard}); it continues: ask again later")
        self.task_id = task_id
        self.last_status = last_status
