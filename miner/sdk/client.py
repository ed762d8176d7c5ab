"""A consumer's client of the sequencer: create a task, ask for its result, wait for it, cancel it.

It promises that every failure is a WorkflowError, and that waiting ends when it should, over a sequencer that is away
for a while. It never sends a task twice, never follows a redirect (the body holds the key), and never puts a key into
a message. The wire is the consumer's side of the sequencer's protocol; the names are those of the network's Node SDK.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from miner.sdk.errors import ConfigurationError, InvalidTask, TaskTimeout, WorkflowError
from miner.sdk.replies import MinerResponse, Reply, TaskCancelResponse, WorkflowTaskResult
from miner.sdk.results import download
from miner.sdk.settings import (
    API_KEY,
    DEFAULT_WORKFLOW_URL,
    WORKFLOW_URL,
    Credentials,
    check_url,
    read_setting,
    split_key,
)
from miner.sdk.tasks import WorkflowTask
from miner.sdk.transport import call_of, open_session, send

MIN_INTERVAL = 1.0  # seconds between two queries; the network allows one per second
REQUEST_TIMEOUT = 60.0  # seconds

Heard = WorkflowTaskResult | WorkflowError
"""The outcome of one query: the task's status, or a transient error."""


class Workflow:
    """The sequencer, as a consumer sees it. One client per thread; every method but `close` blocks on the network.

    `api_key` is the combined key (`<consumer id>#<key>`), else `XALORA_API_KEY` of the environment, else of
    `env_file`; `workflow_url` likewise from `XALORA_WORKFLOW_URL`. `request_timeout` is in seconds. `clock` is
    monotonic seconds and `wait` blocks for so many: tests set both. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        workflow_url: str | None = None,
        env_file: str | os.PathLike[str] | None = ".env",
        request_timeout: float = REQUEST_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        combined = api_key or read_setting(API_KEY, env_file=env_file)
        # Tasks may carry their own keys, so a missing one is an error only when it is needed.
        self._default = split_key(combined) if combined else None
        url = workflow_url or read_setting(WORKFLOW_URL, env_file=env_file) or DEFAULT_WORKFLOW_URL
        self.workflow_url = check_url(url)
        self._request_timeout = request_timeout
        self._clock = clock
        self._wait = wait or threading.Event().wait
        self._session = open_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A closed client is not used again."""
        self._session.close()

    def resource_request(
        self,
        *,
        workflow_id: str | None = None,
        task_type: str | None = None,
        consumer_id: str | None = None,
        api_key: str | None = None,
    ) -> MinerResponse:
        """Ask for a miner that could run this. Raises WorkflowError; APIError if there is none."""
        return self._post(
            "resource_request",
            {
                "consumer_id": self._consumer_id(consumer_id),
                "api_key": self._api_key(api_key),
                "workflow_id": workflow_id,
                "task_type": task_type,
            },
        ).miner()

    def create_task(self, task: WorkflowTask) -> str:
        """Create the task; returns its id. Raises WorkflowError.

        It is sent once: after ConnectionFailed or InvalidReply it may exist all the same.
        """
        return self._post(
            "task_create",
            {
                "consumer_id": self._consumer_id(task.consumer_id),
                "api_key": self._api_key(task.api_key),
                "task_type": task.task_type,
                "task_details": task.task_details,
                "job_id": f"{task.job_id_prefix}-{secrets.token_hex(5)}",
                "workflow_id": task.workflow_id,
                "timeout_seconds": task.timeout_seconds,
            },
        ).task_id()

    def execute_workflow(self, task: WorkflowTask) -> str:
        """Create the task; returns its id without waiting. Raises WorkflowError.

        It queues until a miner is free. Who wants to know before calls `resource_request`.
        """
        return self.create_task(task)

    def query_task_result(self, task_id: str, *, api_key: str | None = None) -> WorkflowTaskResult:
        """How the task stands now. `api_key`: the task's own, if it has one. Raises WorkflowError."""
        return self._query(task_id, api_key=api_key, timeout=self._request_timeout)

    def cancel_task(self, task_id: str, *, api_key: str | None = None) -> TaskCancelResponse:
        """Cancel the task. `api_key`: the task's own, if it has one. Raises WorkflowError."""
        body = {"task_id": task_id, "api_key": self._api_key(api_key)}
        return self._post("task_cancel", body).canceled(task_id)

    def download(self, result: WorkflowTaskResult, destination: Path) -> int:
        """As `miner.sdk.download`, from this sequencer."""
        return download(result, destination, workflow_url=self.workflow_url)

    def execute_workflow_and_wait_for_result(
        self, task: WorkflowTask, timeout: float = 300.0, interval: float = 10.0
    ) -> WorkflowTaskResult:
        """`execute_workflow`, then `wait_for_result`. Both times are in seconds. Raises as they do."""
        _check_waiting(timeout, interval)  # before a task exists that nobody would wait for
        task_id = self.execute_workflow(task)
        return self.wait_for_result(task_id, timeout=timeout, interval=interval, api_key=task.api_key)

    def wait_for_result(
        self,
        task_id: str,
        *,
        timeout: float = 300.0,
        interval: float = 10.0,
        api_key: str | None = None,
        heard: Callable[[Heard], object] | None = None,
    ) -> WorkflowTaskResult:
        """Ask every `interval` seconds until the task is finished, failed or canceled; returns how it ended.

        A transient error is asked over. `heard` is told of each asking. Raises ValueError for an interval under 1 s,
        TaskTimeout after `timeout` seconds (it asks once more at the end of them), and WorkflowError for an error
        that asking again would not mend.
        """
        _check_waiting(timeout, interval)
        deadline = self._clock() + timeout
        last_status: str | None = None
        while True:
            news = self._ask(task_id, api_key=api_key, left=deadline - self._clock())
            if heard is not None:
                heard(news)
            trouble, pause = None, interval
            if isinstance(news, WorkflowError):
                trouble, pause = news, max(interval, news.retry_after or 0.0)
            elif news.ended:
                return news
            else:
                last_status = news.status
            left = deadline - self._clock()
            if left <= 0:
                raise TaskTimeout(task_id=task_id, last_status=last_status, timeout=timeout) from trouble
            self._wait(min(pause, left))

    def _ask(self, task_id: str, *, api_key: str | None, left: float) -> Heard:
        """One query, for the seconds that are left at most. Raises errors that are not transient."""
        try:
            return self._query(task_id, api_key=api_key, timeout=min(self._request_timeout, max(left, MIN_INTERVAL)))
        except WorkflowError as error:
            if not error.transient:
                raise
            return error

    def _query(self, task_id: str, *, api_key: str | None, timeout: float) -> WorkflowTaskResult:
        body = {"task_id": task_id, "api_key": self._api_key(api_key)}
        return self._post("task_result_query", body, timeout=timeout).result(task_id)

    def _consumer_id(self, own: str | None) -> str:
        return own or self._credentials().consumer_id

    def _api_key(self, own: str | None) -> str:
        return own or self._credentials().api_key

    def _credentials(self) -> Credentials:
        if self._default is None:
            raise ConfigurationError(f"no API key: set {API_KEY}, in the environment or in .env, or pass api_key=")
        return self._default

    def _post(self, endpoint: str, fields: Mapping[str, Any], *, timeout: float | None = None) -> Reply:
        """POST the fields that are not None."""
        url = f"{self.workflow_url}/{endpoint}"
        try:
            body = json.dumps({name: value for name, value in fields.items() if value is not None}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidTask(f"task_details cannot be sent as JSON: {error}") from error
        reply = send(
            self._session,
            "POST",
            url,
            body=body.encode(),
            content_type="application/json",
            timeout=timeout or self._request_timeout,
        )
        return Reply(reply.content, call=call_of("POST", url), status=reply.status_code)


def _check_waiting(timeout: float, interval: float) -> None:
    if not interval >= MIN_INTERVAL:
        raise ValueError(f"interval is under {MIN_INTERVAL:g} s: {interval!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout is not a number of seconds: {timeout!r}")
