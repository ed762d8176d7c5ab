"""Cleanup in turns: what several tasks share is done once, and what fails is done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from miner.comfy.client import ComfyClient
from miner.comfy.events import EventStream
from miner.comfy.host import ComfyHost
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Closed, OutputFile, Prepared, Prompted, Rendered
from miner.worker.lane.cleanup import EVERY, LONGEST_PAUSE, Cleanup
from tests.support.sample_tasks import JOB, LEASE, ME
from tests.support.scripted_server import Request, Said, ScriptedServer, reply

TASKS = 5


class Comfy(ScriptedServer):
    """Has every file, and forgets prompts while `healthy`."""

    healthy = True

    def respond(self, request: Request) -> Said:
        return reply({"name": "x"}, status=200 if self.healthy or request.path != "/history" else 500)

    def forgotten(self) -> list[list[str]]:
        return [request.json()["delete"] for request in self.asked("/history", "POST")]


class Bench:
    """A ledger and its cleanup, with a clock that the test moves."""

    def __init__(self, folder: Path, comfy: Comfy, journal: Journal) -> None:
        self.now = 1000.0
        self.comfy, self.journal = comfy, journal
        self.ledger = Ledger(miner_id=ME, journal=journal, folder=folder / "lane-0")
        host = ComfyHost(ComfyClient(comfy.url, client_id="x"), EventStream(comfy.url, client_id="x"))
        host.ready.set()
        self.cleanup = Cleanup(
            ledger=self.ledger, host=host, journal=journal, thumbnails=False, state=folder, clock=lambda: self.now
        )
        self.ledger.cleaner = self.cleanup.add

    def end(self, name: str, *, rendered: bool = True) -> None:
        """A task from its lease to its end."""
        prompt = f"prompt-of-{name}"
        self.ledger.take(replace(LEASE, task_id=name))
        self.ledger.advance(name, Prepared(job=JOB, prompt_id=prompt))
        self.ledger.advance(name, Prompted(job=JOB, prompt_id=prompt))
        if rendered:
            file = OutputFile(filename="out.png", subfolder=f"xalora/{prompt}", kind="output")
            self.ledger.advance(name, Rendered(job=JOB, prompt_id=prompt, files=(file,), inference_latency=1.0))
        self.ledger.advance(name, Closed(verdict="taken away"))

    def run(self) -> None:
        for _ in range(3 * TASKS):
            self.cleanup.run_next()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Comfy() as comfy, closing(Journal(tmp_path)) as journal:
        yield Bench(tmp_path, comfy, journal)


def test_tasks_of_a_turn_share_one_request_for_the_history_and_ask_nothing_that_is_known(bench: Bench) -> None:
    for number in range(TASKS):
        bench.end(str(number))
    bench.run()
    assert bench.comfy.forgotten() == [[f"prompt-of-{number}" for number in range(TASKS)]]
    files = TASKS * (1 + len(JOB.images))
    assert [request.path for request in bench.comfy.requests] == ["/upload/image"] * files + ["/history"]
    assert bench.journal.uncleaned(ME) == []
    assert not bench.journal.must_forget


def test_the_next_turn_begins_a_second_later(bench: Bench) -> None:
    bench.end("one")
    bench.run()
    bench.end("two")
    bench.run()
    assert len(bench.comfy.forgotten()) == 1
    assert bench.cleanup.next_in() == EVERY
    bench.now += EVERY
    bench.run()
    assert bench.comfy.forgotten()[1:] == [["prompt-of-two"]]
    assert bench.cleanup.next_in() is None


def test_a_history_that_is_not_deleted_is_tried_again_for_each_task(bench: Bench) -> None:
    bench.comfy.healthy = False
    for name in ("one", "two"):
        bench.end(name)
    bench.run()
    assert [task for task, _ in bench.journal.uncleaned(ME)] == ["one", "two"]
    bench.comfy.healthy = True
    bench.now += LONGEST_PAUSE
    bench.run()
    assert bench.comfy.forgotten()[1:] == [["prompt-of-one", "prompt-of-two"]]
    assert bench.journal.uncleaned(ME) == []


def test_of_a_prompt_that_is_not_known_to_have_ended_comfyui_is_asked(bench: Bench) -> None:
    bench.end("one", rendered=False)
    bench.run()
    assert bench.comfy.asked("/history/prompt-of-one")
