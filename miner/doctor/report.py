"""What the doctor found, and what that means for the exit code. Pure.

Promises: no text in a report holds a secret: passwords and queries of URLs, and the secrets that the log was told of,
are masked in the one place where findings are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from miner import __version__
from miner.task.errors import MinerError
from miner.telemetry.health import Mark
from miner.telemetry.log import clean

SCHEMA: Final = 1
"""Of the JSON: it grows when a key changes its meaning or goes, and not when one is added."""

GOOD, WARNINGS, CANNOT_MINE = 0, 1, 2  # exit codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check says. `check` is its stable name."""

    check: str
    marks: tuple[Mark, ...]
    seconds: float  # that it took


def finding(check: str, marks: Iterable[Mark], seconds: float) -> Finding:
    """A finding whose texts are fit to be shown to anybody."""
    shown = tuple(
        Mark(name=clean(mark.name), level=mark.level, says=clean(mark.says), cure=clean(mark.cure)) for mark in marks
    )
    return Finding(check=check, marks=shown, seconds=round(seconds, 3))


def good(name: str, says: str) -> Mark:
    return Mark(name=name, level="good", says=says)


def note(name: str, says: str, cure: str = "") -> Mark:
    """Neither good nor bad, but worth knowing."""
    return Mark(name=name, level="note", says=says, cure=cure)


def warning(name: str, says: str, cure: str) -> Mark:
    """Tasks can be done all the same."""
    return Mark(name=name, level="warning", says=says, cure=cure)


def bad(name: str, says: str, cure: str) -> Mark:
    """No task can be done."""
    return Mark(name=name, level="bad", says=says, cure=cure)


def of_error(name: str, error: MinerError) -> Mark:
    """An error of ours, which has its sentence and its cure already."""
    return bad(name, error.message, error.hint or "see what it names")


def exit_code(findings: Iterable[Finding]) -> int:
    """0: all is well; 1: there are warnings; 2: this machine cannot mine."""
    levels = {mark.level for one in findings for mark in one.marks}
    return CANNOT_MINE if "bad" in levels else WARNINGS if "warning" in levels else GOOD


def as_json(findings: Sequence[Finding], *, at: float, renders: Sequence[Any] = ()) -> Mapping[str, Any]:
    """The report for machines; docs/doctor.md describes it. `at` is in Unix seconds, `renders` are dataclasses."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "at": at,
        "exit_code": exit_code(findings),
        "checks": [asdict(one) for one in findings],
        "renders": [asdict(one) for one in renders],
    }
