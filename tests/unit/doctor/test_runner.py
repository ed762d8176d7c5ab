"""Every check has a finding, whatever it does, and no finding holds a secret."""

from __future__ import annotations

import json
import threading
import time

import pytest

from miner.doctor.report import as_json, bad, exit_code, finding, good, note, warning
from miner.doctor.runner import Check, run_checks
from miner.task.errors import MachineFault
from miner.telemetry import log


def one(run, **rest):
    """The finding of one check."""
    (found,) = run_checks([Check(name="it", title="It", run=run, **rest)], None)
    return found


def broken(_context):
    yield good("It", "the first half is fine")
    raise ZeroDivisionError("by zero")


def test_a_check_that_crashes_is_a_mark_and_no_traceback():
    (mark,) = one(broken).marks
    assert (mark.level, mark.name) == ("warning", "It")
    assert "ZeroDivisionError: by zero" in mark.says
    assert "bug" in mark.cure


def test_a_miner_error_is_a_mark_with_its_hint():
    def raises(_context):
        raise MachineFault("the disk is full", hint="make room")

    (mark,) = one(raises).marks
    assert (mark.level, mark.says, mark.cure) == ("bad", "the disk is full", "make room")


def test_a_check_that_hangs_does_not_stop_the_others():
    never = threading.Event()
    checks = [
        Check(name="hangs", title="Hangs", run=lambda _: [good("x", str(never.wait(60)))], limit=0.2),
        Check(name="works", title="Works", run=lambda _: [good("Works", "fine")]),
    ]
    began = time.monotonic()
    hangs, works = run_checks(checks, None)
    assert time.monotonic() - began < 30
    assert hangs.marks[0].level == "warning"
    assert "within 0.2 s" in hangs.marks[0].says
    assert works.marks[0].says == "fine"
    never.set()


def test_checks_run_in_parallel_and_are_reported_in_order():
    both = threading.Barrier(2, timeout=30)
    checks = [
        Check(name=name, title=name, run=lambda _, name=name: [good(name, str(both.wait() >= 0))])
        for name in ("first", "second")
    ]
    assert [found.check for found in run_checks(checks, None)] == ["first", "second"]


@pytest.mark.parametrize(
    ("marks", "code"),
    [
        ([good("a", "x"), note("b", "x")], 0),
        ([good("a", "x"), warning("b", "x", "y")], 1),
        ([warning("a", "x", "y"), bad("b", "x", "y")], 2),
        ([], 0),
    ],
)
def test_the_worst_mark_is_the_exit_code(marks, code):
    assert exit_code([finding("it", marks, 0.0)]) == code


def test_no_secret_is_in_a_finding():
    log.hide("k3y-of-the-operator")
    said = "at https://user:pa55@host/x?X-Amz-Signature=51gn with k3y-of-the-operator"
    text = json.dumps(as_json([finding("it", [bad("It", said, said)], 0.0)], at=0.0))
    assert "host" in text
    assert not [secret for secret in ("pa55", "51gn", "k3y-of-the-operator") if secret in text]


def test_the_json_has_the_documented_keys():
    shown = as_json([finding("it", [warning("It", "x", "y")], 0.25)], at=12.0)
    assert shown == {
        "schema": 1,
        "version": shown["version"],
        "at": 12.0,
        "exit_code": 1,
        "checks": [
            {
                "check": "it",
                "marks": ({"name": "It", "level": "warning", "says": "x", "cure": "y"},),
                "seconds": 0.25,
            }
        ],
        "renders": [],
    }
