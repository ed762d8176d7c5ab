"""Logging: readable in a terminal, JSON lines elsewhere; every line has `event`, and no line has a secret.

Loops bind `lane`; a line about a task has `task_id`; a failure says what happens `next`. A repeated failure is one line
a minute with a count, except at level DEBUG, which logs every line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO, cast

import structlog

from miner.telemetry.redaction import hide as hide  # part of this module's interface
from miner.telemetry.redaction import without_secrets, without_strings

_SECRET_KEYS = re.compile(r"(api_?key|secret|token|credential|authorization|password|signature)", re.IGNORECASE)
_NAMES = frozenset(
    {"event", "level", "lane", "task_id", "workflow", "step", "url", "folder", "log", "version", "device"}
)
"""Keys of what the miner itself names: no string of a task, though it may look like one."""

FOLD_FOR = 60.0  # seconds in which a repeated failure is logged once
MOST_FOLDED = 256  # different failures that are tracked
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)

Event = MutableMapping[str, Any]


def setup(
    *,
    level: str = "INFO",
    style: Literal["auto", "console", "json"] = "auto",
    out: TextIO | None = None,
    journal: str = "",
) -> None:
    """Configure structlog for this process. `auto` means `console` where `out` (stderr) is a terminal, else `json`.

    `journal` is the variable JOURNAL_STREAM; if it names `out`, each line starts with its priority for systemd.
    """
    out = out or sys.stderr
    console = style == "console" or (style == "auto" and out.isatty())
    timestamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    )
    if is_journal(journal, out):
        renderer = _with_priority(renderer)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            drop_empty,
            redact,
            timestamp,
            renderer if level == "DEBUG" else Folding(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", TolerantStream(out))),
        cache_logger_on_first_use=False,
    )


class TolerantStream:
    """A stream that ignores write errors: a full disk, or a reader that has gone."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._out.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._out.flush()


def is_journal(stream: str, out: TextIO) -> bool:
    """Whether JOURNAL_STREAM (`device:inode`, systemd.exec(5)) names `out`."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _with_priority(renderer: Any) -> Any:
    def render(logger: Any, method: str, event: Event) -> str:
        return f"<{_PRIORITIES.get(method, 6)}>{renderer(logger, method, event)}"

    return render


@dataclass(slots=True)
class _Failure:
    logged_at: float
    folded: int = 0
    event: Event = field(default_factory=dict)  # the last folded one


class Folding:
    """The last processor: renders, and folds repeated failures. The first is logged at once; those that follow within
    FOLD_FOR are counted, and the next line after that logs the count."""

    def __init__(
        self, renderer: Callable[[Any, str, Event], str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._renderer = renderer
        self._clock = clock
        self._mutex = threading.Lock()
        self._failures: dict[tuple[str, ...], _Failure] = {}

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        with self._mutex:
            now = self._clock()
            repeated = self._repeated(event, now) if method in ("warning", "error") else event
            told = [*self._over(now), *([repeated] if repeated else [])]
        if not told:
            raise structlog.DropEvent
        return "\n".join(self._renderer(logger, str(one.get("level", method)), one) for one in told)

    def _repeated(self, event: Event, now: float) -> Event | None:
        """The failure with its count, or None where it was logged within FOLD_FOR."""
        key = tuple(str(event.get(name)) for name in ("event", "lane", "task_id", "workflow", "reason"))
        before = self._failures.get(key)
        if before is not None and now - before.logged_at < FOLD_FOR:
            before.folded += 1
            before.event = event
            return None
        self._failures.pop(key, None)
        self._failures[key] = _Failure(now)
        if len(self._failures) > MOST_FOLDED:
            del self._failures[next(iter(self._failures))]
        return {**event, "times": before.folded + 1} if before is not None and before.folded else event

    def _over(self, now: float) -> list[Event]:
        """Folded failures that are due and have not come again."""
        old = [key for key, failure in self._failures.items() if now - failure.logged_at >= FOLD_FOR]
        failures = [self._failures.pop(key) for key in old]
        return [{**failure.event, "times": failure.folded} for failure in failures if failure.folded]


def drop_empty(_logger: Any, _method: str, event: Event) -> Event:
    """Drop empty values."""
    return {key: value for key, value in event.items() if value is not None and value != ""}


def redact(_logger: Any, _method: str, event: Event) -> Event:
    """Hides values of secret-sounding keys, whatever else is secret (see `redaction`), and strings of tasks."""
    return {
        key: "***" if _SECRET_KEYS.search(key) else clean(value, strings=key not in _NAMES)
        for key, value in event.items()
    }


def clean(value: Any, *, strings: bool = True) -> Any:
    """`value` without secrets and, with `strings`, those of tasks; on one line and without control characters."""
    if isinstance(value, dict):
        return {
            clean(str(key)): "***" if _SECRET_KEYS.search(str(key)) else clean(item, strings=strings)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, strings=strings) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = without_secrets(str(value))
    text = (without_strings(text) if strings else text).replace("\n", " ⏎ ")
    return text if text.isprintable() else "".join(map(_visible, text))


def cut(text: str, longest: int) -> str:
    """`text` cleaned, and then not longer than `longest`: a cut would hide a secret from a later cleaning."""
    cleaned: str = clean(text)
    return cleaned if len(cleaned) <= longest else f"{cleaned[: longest - 1]}…"


def _visible(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"
