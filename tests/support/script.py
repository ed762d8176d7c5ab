"""A test bed whose sequencer follows a script: each reply in turn, whatever they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.scripted_server import Request, ScriptedServer, reply
from tests.support.testbed import Testbed

TASK: dict[str, Any] = {
    "task_id": "t",
    "task_type": "upscaler",
    "workflow_id": "4",
    "task_details": {"parameters": {}},
    "upload_url": "https://example.com/k?s=1",
}


class Script:
    """Replies to `/miner_request` with each of its replies in turn, then with no task.

    `submissions` says what each `/miner_submit` gets in turn, then 200; `answers` are their bodies.
    """

    def __init__(self, *replies: bytes, submissions: tuple[bytes, ...] = ()) -> None:
        self._replies = iter(replies)
        self._submissions = iter(submissions)
        self.answers: list[dict[str, Any]] = []
        self.over = False

    def __call__(self, request: Request) -> bytes:
        if request.path == "/miner_submit":
            self.answers.append(request.json())
            return next(self._submissions, reply({}))
        if not request.json()["workflow_ids"]:
            return reply({"task_id": None})  # a heartbeat
        said = next(self._replies, None)
        self.over = said is None
        return said or reply({"task_id": None})

    def told(self, task_id: str) -> list[dict[str, Any]]:
        return [answer for answer in self.answers if answer["task_id"] == task_id]


class ScriptedTestbed(Testbed):
    """Its sequencer follows `script`, which can be replaced at any time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.script = Script()
        self.sequencer = self.stack.enter_context(ScriptedServer(lambda request: self.script(request)))


def a_task(task_id: str, **changed: object) -> bytes:
    return reply({**TASK, "task_id": task_id, **changed})


def details(image: str) -> dict[str, Any]:
    return {"task_details": {"parameters": {"image": image}}}
