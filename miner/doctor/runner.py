"""Runs checks in parallel, each with a time limit.

Promises: every check has a finding, in the order of the checks; one that crashes or hangs is a mark, not a traceback.
Never: waits for a check beyond its limit; its daemon thread is abandoned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from miner.doctor.report import Finding, finding, of_error, warning
from miner.task.errors import MinerError
from miner.telemetry.health import Mark

if TYPE_CHECKING:
    from miner.doctor.facts import Facts

LIMIT = 20.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check."""

    name: str  # stable, for machines
    title: str  # of the mark if it crashes or hangs
    run: Callable[[Facts], Iterable[Mark]]
    limit: float = LIMIT  # seconds


@dataclass(slots=True)
class _Running:
    check: Check
    began: float
    marks: Future[tuple[Mark, ...]]
    seconds: float = 0.0

    def run(self, facts: Facts) -> None:
        try:
            marks = tuple(self.check.run(facts))
            self.seconds = time.monotonic() - self.began
            self.marks.set_result(marks)
        except BaseException as error:  # also SystemExit, or the wait for it would not end
            self.marks.set_exception(error)
            if not isinstance(error, Exception):
                raise


def run_checks(checks: Sequence[Check], facts: Facts) -> Iterator[Finding]:
    """The findings in order, each as soon as those before it are known. Blocks for the longest limit at most."""
    running = [_start(check, facts) for check in checks]
    for one in running:
        wait([one.marks], timeout=max(one.began + one.check.limit - time.monotonic(), 0.0))
        yield _finding(one)


def _start(check: Check, facts: Facts) -> _Running:
    running = _Running(check, time.monotonic(), Future())
    threading.Thread(target=running.run, args=(facts,), name=f"doctor-{check.name}", daemon=True).start()
    return running


def _finding(running: _Running) -> Finding:
    check = running.check
    if not running.marks.done():
        says = f"no answer within {check.limit:g} s"
        cure = "check the load of the machine and its network, and run the doctor again"
        return finding(check.name, [warning(check.title, says, cure)], check.limit)
    error = running.marks.exception()
    if error is None:
        return finding(check.name, running.marks.result(), running.seconds)
    seconds = time.monotonic() - running.began
    if isinstance(error, MinerError):
        return finding(check.name, [of_error(check.title, error)], seconds)
    says = f"the check crashed: {type(error).__name__}: {error}"
    return finding(check.name, [warning(check.title, says, "this is a bug in xalora-miner: report it")], seconds)
