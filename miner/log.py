"""Logs: for people in a terminal, JSON lines elsewhere; every line has `event`, and no line has a secret.

The one place where logging is set up. Loops bind `lane`; whoever speaks of a task gives `task_id`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

SHORTEST_SECRET = 6  # characters; a shorter text would be found everywhere

_SECRET_KEYS = re.compile(r"(api_?key|secret|token|credential|authorization|password|signature)", re.IGNORECASE)
_URL_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.IGNORECASE)
_URL_QUERY = re.compile(r"(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")


_known: list[str] = []  # this process's own secrets, to be found in any text


def hide(*secrets: str) -> None:
    """Keep these very texts out of every line, whoever repeats them to us."""
    _known.extend(secret for secret in secrets if len(secret) >= SHORTEST_SECRET and secret not in _known)


def setup(
    *, level: str = "INFO", style: Literal["auto", "console", "json"] = "auto", out: TextIO | None = None
) -> None:
    """Configure structlog for this process. `auto` is for people where `out` (stderr) is a terminal."""
    out = out or sys.stderr
    console = style == "console" or (style == "auto" and out.isatty())
    time = structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            drop_empty,
            redact,
            time,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def drop_empty(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out what a line has nothing to say about."""
    return {key: value for key, value in event.items() if value is not None and value != ""}


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The one redaction: values of secret-sounding keys, queries and user names of URLs, bearer tokens."""
    return {key: "***" if _SECRET_KEYS.search(key) else clean(value) for key, value in event.items()}


def clean(value: Any) -> Any:
    """`value` without the secrets that its text may hold, on one line, and without what a terminal acts upon."""
    if isinstance(value, dict):
        return {str(key): "***" if _SECRET_KEYS.search(str(key)) else clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _URL_QUERY.sub(r"\1?***", _URL_USER.sub(r"\1***@", str(value)))
    for secret in _known:
        text = text.replace(secret, "***")
    text = _BEARER.sub(r"\1***", text).replace("\n", " ⏎ ")
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"
