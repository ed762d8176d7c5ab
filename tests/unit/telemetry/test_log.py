"""The log: a next step after every failure, repeats folded, no secret."""

from __future__ import annotations

import ast
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from miner.telemetry import log
from miner.telemetry.log import FOLD_FOR, Folding, is_journal

MINER = Path(log.__file__).parents[1]
LOGGED = ("comfy", "dashboard", "sequencer", "task", "worker", "worker/lane")
"""The rooms that log failures for operators."""


def calls(path):
    """Every logging call of a failure."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warning", "log.error", "log.exception"):
            yield node


@pytest.mark.parametrize("name", LOGGED)
def test_every_failure_says_what_happens_next(name):
    silent = [
        f"{path.name}:{call.lineno}"
        for path in sorted((MINER / name).glob("*.py"))
        for call in calls(path)
        if "next" not in {keyword.arg for keyword in call.keywords}
    ]
    assert not silent


@pytest.fixture
def clock():
    """Seconds, that a test counts up in `at`."""
    return SimpleNamespace(at=0.0)


@pytest.fixture
def logged(clock):
    """The lines that were logged so far."""
    out = io.StringIO()
    folding = Folding(structlog.processors.JSONRenderer(), clock=lambda: clock.at)
    structlog.configure(
        processors=[structlog.processors.add_log_level, folding],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()


def fail(reason="refused", **more):
    structlog.get_logger().warning("lease_request_failed", reason=reason, next="asking again", **more)


class TestRepeatedFailures:
    def test_are_logged_at_once_and_then_once_a_minute_with_their_count(self, logged, clock):
        for _ in range(5):
            fail()
            clock.at += 10.0
        assert len(logged()) == 1
        clock.at = FOLD_FOR
        fail()
        assert [line.get("times") for line in logged()] == [None, 5]

    def test_that_have_ended_are_logged_with_the_next_line_of_any_kind(self, logged, clock):
        fail()
        fail()
        clock.at = FOLD_FOR + 1
        structlog.get_logger().info("task_done")
        assert [(line["event"], line.get("times")) for line in logged()] == [
            ("lease_request_failed", None),
            ("lease_request_failed", 1),
            ("task_done", None),
        ]

    @pytest.mark.parametrize("other", [{"reason": "reset"}, {"lane": "1"}, {"task_id": "t"}, {"workflow": "w"}])
    def test_of_different_kinds_are_separate(self, logged, other):
        fail()
        fail(**other)
        assert len(logged()) == 2

    def test_are_bounded_in_number(self, logged):
        for number in range(1000):
            fail(reason=str(number))
        assert len(logged()) == 1000

    def test_info_lines_are_never_folded(self, logged):
        for _ in range(3):
            structlog.get_logger().info("task_done", task_id="same")
        assert len(logged()) == 3


def lines(tmp_path, level="INFO", *, as_journal):
    """The lines of a few calls, to systemd's journal or not."""
    with (tmp_path / "out").open("w+") as out:
        status = os.fstat(out.fileno())
        log.setup(level=level, style="json", out=out, journal=f"{status.st_dev}:{status.st_ino}" if as_journal else "")
        structlog.get_logger().info("task_done", task_id="t")
        for _ in range(2):
            structlog.get_logger().warning("lease_request_failed", api_key="very-secret", url="https://h/p?sig=secret")
        structlog.get_logger().error("loop_failed")
        out.seek(0)
        structlog.reset_defaults()
        return out.read().splitlines()


def test_in_the_journal_each_line_has_its_priority(tmp_path):
    assert [line[:3] for line in lines(tmp_path, as_journal=True)] == ["<6>", "<4>", "<3>"]


def test_elsewhere_each_line_is_json_without_secrets(tmp_path):
    logged = lines(tmp_path, as_journal=False)
    assert [json.loads(line)["level"] for line in logged] == ["info", "warning", "error"]
    assert "secret" not in "".join(logged)


def test_at_debug_every_line_is_logged(tmp_path):
    assert len(lines(tmp_path, level="DEBUG", as_journal=False)) == 4


def test_another_programs_journal_is_not_ours(tmp_path):
    with (tmp_path / "out").open("w") as out:
        assert not is_journal("", out)
        assert not is_journal("1:2", out)
    assert not is_journal("1:2", io.StringIO())
