"""A sequencer that follows a script, for a real worker: each reply in turn, whatever they say."""

from __future__ import annotations

from typing import Any

from tests.campaigns.fuzz.lies import TASK
from tests.support.scripted_sequencer import Heard, reply


class Script:
    """A sequencer that gives its replies to `/miner_request` in turn, then says that there is nothing to do.

    `submissions` says what each `/miner_submit` gets in turn, then 200; `answers` are their bodies.
    """

    def __init__(self, *replies: bytes, submissions: tuple[bytes, ...] = ()) -> None:
        self._replies = iter(replies)
        self._submissions = iter(submissions)
        self.answers: list[dict[str, Any]] = []
        self.over = False

    def __call__(self, heard: Heard) -> bytes:
        if heard.path == "/miner_submit":
            self.answers.append(heard.json())
            return next(self._submissions, reply({}))
        if not heard.json()["workflow_ids"]:
            return reply({"task_id": None})  # a heartbeat
        said = next(self._replies, None)
        self.over = said is None
        return said or reply({"task_id": None})

    def told(self, task_id: str) -> list[dict[str, Any]]:
        return [answer for answer in self.answers if answer["task_id"] == task_id]


def a_task(task_id: str, **changed: object) -> bytes:
    return reply({**TASK, "task_id": task_id, **changed})


def details(image: str) -> dict[str, Any]:
    return {"task_details": {"parameters": {"image": image}}}
