"""The doctor's findings and exit code. Pure.

Promises: no text in a report holds a secret. Passwords and queries of URLs, and the secrets that the log knows, are
masked in `finding`, the only place that creates findings.
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
"""Of the JSON: raised when a key changes its meaning or is removed, not when one is added."""

GOOD, WARNINGS, CANNOT_MINE = 0, 1, 2  # exit codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The marks of one check. `check` is its stable name."""

    check: str
    marks: tuple[Mark, ...]
    seconds: float  # it took


def finding(check: str, marks: Iterable[Mark], seconds: float) -> Finding:
    """A finding with secrets masked in its texts."""
    shown = tuple(
        Mark(name=clean(mark.name), level=mark.level, says=clean(mark.says), cure=clean(mark.cure)) for mark in marks
    )
    return Finding(check=check, marks=shown, seconds=round(seconds, 3))


def good(name: str, says: str) -> Mark:
    return Mark(name=name, level="good", says=says)


def note(name: str, says: str, cure: str = "") -> Mark:
    """Worth knowing, but neither good nor bad."""
    return Mark(name=name, level="note", says=says, cure=cure)


def warning(name: str, says: str, cure: str) -> Mark:
    """Tasks can still be done."""
    return Mark(name=name, level="warning", says=says, cure=cure)


def bad(name: str, says: str, cure: str) -> Mark:
    """No task can be done."""
    return Mark(name=name, level="bad", says=says, cure=cure)


def of_error(name: str, error: MinerError) -> Mark:
    """An error of ours, by its message and hint."""
    return bad(name, error.message, error.hint or "check what it names")


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
