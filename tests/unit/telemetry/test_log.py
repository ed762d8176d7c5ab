"""The log: a task's story in one line, what happens next after every failure, repeats folded, no secret."""

from __future__ import annotations

import ast
import io
import json
import os
from pathlib import Path

import pytest
import structlog

from miner.telemetry import log
from miner.telemetry.log import FOLD_FOR, Folding, is_journal

MINER = Path(log.__file__).parents[1]
LOGGED = ("comfy", "dashboard", "sequencer", "task", "worker", "worker/lane")
"""Where operators' failures are told; devnet and the commands have no operator to tell."""


def calls(path):
    """Every call of the module's logger that tells of a failure."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warning", "log.error", "log.exception"):
            yield node


@pytest.mark.parametrize("name", LOGGED)
def test_every_failure_says_what_happens_next(name):
    paths = [MINER / name] if name.endswith(".py") else sorted((MINER / name).glob("*.py"))
    silent = [
        f"{path.name}:{call.lineno}"
        for path in paths
        for call in calls(path)
        if "next" not in {keyword.arg for keyword in call.keywords}
    ]
    assert not silent


class Clock:
    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(clock):
    """A logger, and the lines that it told so far."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, Folding(structlog.processors.JSONRenderer(), clock=clock)],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()


def fail(reason="refused", **more):
    structlog.get_logger().warning("no_answer", reason=reason, next="asking again", **more)


class TestRepeatedFailures:
    def test_are_told_at_once_and_then_once_a_minute_with_their_count(self, told, clock):
        for _ in range(5):
            fail()
            clock.at += 10.0
        assert len(told()) == 1
        clock.at = FOLD_FOR
        fail()
        assert [line.get("times") for line in told()] == [None, 5]

    def test_that_have_ended_are_told_by_the_next_line_of_any_kind(self, told, clock):
        fail()
        fail()
        clock.at = FOLD_FOR + 1
        structlog.get_logger().info("task_done")
        assert [(line["event"], line.get("times")) for line in told()] == [
            ("no_answer", None),
            ("no_answer", 1),
            ("task_done", None),
        ]

    @pytest.mark.parametrize("other", [{"reason": "reset"}, {"lane": "1"}, {"task_id": "t"}, {"workflow": "w"}])
    def test_of_different_kinds_are_told_apart(self, told, other):
        fail()
        fail(**other)
        assert len(told()) == 2

    def test_are_bounded_in_number(self, told):
        for number in range(1000):
            fail(reason=str(number))
        assert len(told()) == 1000

    def test_news_is_never_folded(self, told):
        for _ in range(3):
            structlog.get_logger().info("task_done", task_id="same")
        assert len(told()) == 3


def lines(tmp_path, level="INFO", *, as_journal):
    """What a few calls write to a file that is the journal's, or is not."""
    with (tmp_path / "out").open("w+") as out:
        status = os.fstat(out.fileno())
        log.setup(level=level, style="json", out=out, journal=f"{status.st_dev}:{status.st_ino}" if as_journal else "")
        structlog.get_logger().info("task_done", task_id="t")
        for _ in range(2):
            structlog.get_logger().warning("no_answer", api_key="very-secret", url="https://h/p?sig=secret")
        structlog.get_logger().error("loop_failed")
        out.seek(0)
        structlog.reset_defaults()
        return out.read().splitlines()


def test_in_the_journal_each_line_has_its_priority(tmp_path):
    assert [line[:3] for line in lines(tmp_path, as_journal=True)] == ["<6>", "<4>", "<3>"]


def test_elsewhere_each_line_is_json_and_nothing_is_secret(tmp_path):
    told = lines(tmp_path, as_journal=False)
    assert [json.loads(line)["level"] for line in told] == ["info", "warning", "error"]
    assert "secret" not in "".join(told)


def test_at_debug_every_line_is_told(tmp_path):
    assert len(lines(tmp_path, level="DEBUG", as_journal=False)) == 4


def test_another_program_s_journal_is_not_ours(tmp_path):
    with (tmp_path / "out").open("w") as out:
        assert not is_journal("", out)
        assert not is_journal("1:2", out)
    assert not is_journal("1:2", io.StringIO())
