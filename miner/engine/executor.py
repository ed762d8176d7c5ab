"""The thread that runs prompts, one after the other.

SystemExit in a node ends the thread: its prompt stays running forever while HTTP keeps answering. ComfyUI does the
same, and a miner must notice.
"""

from __future__ import annotations

import threading

from miner.engine.hub import Hub
from miner.engine.prompts import Free, Prompts, Submission
from miner.engine.report import Report
from miner.engine.run import Run, Workshop


class Executor(threading.Thread):
    """Takes prompts until they are closed."""

    def __init__(self, *, prompts: Prompts, hub: Hub, workshop: Workshop) -> None:
        super().__init__(name="executor", daemon=True)  # daemon: a node that hangs must not keep the process
        self._prompts = prompts
        self._hub = hub
        self._workshop = workshop
        self._client: str | None = None
        self._current: Run | None = None

    def where(self, client: str) -> str | None:
        """The running node, if the prompt is this client's; for a client that reconnects."""
        current = self._current
        return current.node if current and self._client == client else None

    def run(self) -> None:
        while (task := self._prompts.take()) is not None:
            if isinstance(task, Free):
                if task.memory:
                    self._workshop.cache.clear()
            else:
                self._execute(task)

    def _execute(self, submission: Submission) -> None:
        self._workshop.interrupt.forget()
        report = Report(
            hub=self._hub,
            prompt_id=submission.prompt_id,
            client=submission.client,
            preview_size=self._workshop.preview_size,
            throttle=self._workshop.dialect.throttles_progress,
        )
        self._client, self._current = submission.client, Run(self._workshop, submission, report)
        success = self._current.execute()
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": [list(message) for message in report.messages],
        }
        self._prompts.finish(submission, shown=self._current.shown, status=status)
        report.executing(None)
        self._current = None  # and with it the results that the cache did not keep
