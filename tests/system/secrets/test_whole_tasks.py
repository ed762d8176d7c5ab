"""Whole tasks at DEBUG, good ones and failures of each kind: no secret in anything that the miner writes."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary_secrets import API_KEY, PROMPT, Findings, leaks
from tests.support.script import Script
from tests.support.scripted_server import reply
from tests.support.testbed import until
from tests.system.secrets.testbed import LINGERS, RIGHT, SecretsTestbed, all_tasks, refuses

JOURNAL = {"journal.db", "journal.db-wal", "journal.db-shm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """What was left when all of it had happened and the worker had ended; `held` is from the midst of a render."""

    testbed: SecretsTestbed
    answers: list[dict[str, Any]]
    pages: dict[str, str] = field(repr=False)
    held: Findings
    modes: dict[str, int]
    command_line: bytes

    @property
    def log(self) -> str:
        return (self.testbed.folder / "worker.log").read_text()


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Over]:
    with SecretsTestbed(tmp_path_factory.mktemp("secrets")) as testbed:
        testbed.start()
        yield run(testbed)


def run(testbed: SecretsTestbed) -> Over:
    """Every kind of task, a sequencer that fails, a task that is taken away, and one that a shutdown cuts off."""
    tasks = all_tasks(testbed)
    state = testbed.folder / "state"
    failing = reply({"message": API_KEY}, status=500)
    testbed.script = script = Script(failing, *tasks, submissions=(failing, reply(b"<html>")))
    until(lambda: script.over and len({a["task_id"] for a in script.answers}) == len(tasks), why="the answers")

    testbed.script = Script(testbed.task("taken", prompt=f"{PROMPT}, {LINGERS}"))
    until(lambda: testbed.logged("task_step", task_id="taken", step="prompted"), why="the render")
    held = Findings()
    held.look_in(state)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.glob("journal*")}
    pages = testbed.pages()
    command_line = Path(f"/proc/{testbed.worker.popen.pid}/cmdline").read_bytes()
    testbed.script = Script(reply({"task_id": None, "canceled": ["taken"]}))
    until(lambda: testbed.logged("task_lost"), why="the loss")

    testbed.script = last = Script(testbed.task("cut-off", prompt=f"{PROMPT}, {LINGERS}"))
    until(lambda: testbed.logged("task_step", task_id="cut-off", step="prompted"), why="the render")
    testbed.worker.send(signal.SIGTERM)
    until(lambda: testbed.logged("draining"), why="the drain")
    assert testbed.worker.stop() == 0
    answers = script.answers + last.answers
    return Over(testbed=testbed, answers=answers, pages=pages, held=held, modes=modes, command_line=command_line)


def test_each_task_came_to_the_end_that_was_meant(over: Over) -> None:
    """Else the searches below would find nothing for want of anything."""
    ends = {answer["task_id"]: answer for answer in over.answers}
    assert {task_id for task_id, answer in ends.items() if answer["success"]} == set(RIGHT)
    assert ends["cut-off"]["msg"] == "this miner is shutting down; please create the task again"
    assert not over.testbed.logged("loop_failed")


def test_no_line_of_the_log_has_a_secret(over: Over) -> None:
    assert '"level": "debug"' in over.log
    assert [line for line in over.log.splitlines() if leaks(line)] == []
    assert "Traceback" not in over.log


def test_every_line_of_the_log_is_one_object(over: Over) -> None:
    lines = over.log.splitlines()
    assert [line for line in lines if not (line.startswith("{") and line.endswith("}"))] == []


def test_no_message_to_a_consumer_has_a_secret_or_anything_of_this_machine(over: Over) -> None:
    for answer in over.answers:
        said = answer["msg"]
        assert bool(said) != answer["success"]
        assert leaks(said) == [] or answer["task_id"] == "mixed-up"  # that quotes the consumer's own value
        assert said.isprintable()
        assert not any(word in said for word in ("/", "\\", "127.0.0.1", "Traceback")), said


def test_no_page_of_the_dashboard_has_a_secret(over: Over) -> None:
    assert "taken" in over.pages["/api/now"]
    assert "render-error" in over.pages["/api/history"]
    assert "xalora_tasks_total" in over.pages["/metrics"]
    assert {path: leaks(text) for path, text in over.pages.items() if leaks(text)} == {}


def test_systemd_is_told_no_secret(over: Over) -> None:
    assert over.testbed.systemd.told("STATUS")
    assert leaks(str(over.testbed.systemd.heard)) == []


def test_the_command_line_has_no_secret(over: Over) -> None:
    assert leaks(over.command_line) == []


def test_only_the_journal_holds_an_open_tasks_secrets_and_nobody_else_may_read_it(over: Over) -> None:
    assert "journal.db" in over.modes
    assert set(over.modes.values()) == {0o600}
    assert over.held.found
    assert over.held.found.keys() <= JOURNAL


def test_nothing_is_left_on_disk_once_every_task_is_acknowledged(over: Over) -> None:
    """In no folder of the run: the state, the temporary files, the log; only the operator's own file has its secret."""
    after = Findings()
    after.look_in(over.testbed.folder)
    assert after.found == {"config.toml": ["comfyuipassword"]}


def test_a_sequencer_that_repeats_the_key_does_not_get_it_into_the_log(tmp_path: Path) -> None:
    with SecretsTestbed(tmp_path) as testbed:
        testbed.sequencer.otherwise = refuses
        testbed.start()
        until(lambda: testbed.logged("lease_request_failed"), why="the refusal")
        pages = testbed.pages()
        assert testbed.worker.stop() == 0
        log = (tmp_path / "worker.log").read_text()
    assert "XALORA_API_KEY" in log  # the hint
    assert leaks(log) == []
    assert leaks(str(testbed.systemd.heard)) == []
    assert {path: leaks(text) for path, text in pages.items() if leaks(text)} == {}


def test_a_comfyui_that_is_away_does_not_show_its_password(tmp_path: Path) -> None:
    with SecretsTestbed(tmp_path) as testbed, testbed.comfyui.away():
        testbed.start()
        until(lambda: testbed.logged("comfyui_not_ready"), why="the complaint")
        until(lambda: testbed.logged("not_leasing"), why="the reason for not asking")
        pages = testbed.pages()
        assert testbed.worker.stop() == 0
        assert leaks((tmp_path / "worker.log").read_text()) == []
    assert {path: leaks(text) for path, text in pages.items() if leaks(text)} == {}
