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

_SECRET_KEYS = re.compile(r"(api_?key|secret|token|credential|authorization|password|signature)", re.IGNORECASE)
_URL_SECRETS = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?#\"'<>]*)[?#][^\s\"'<>]*")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")


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
    """`value` without the secrets that its text may hold, and on one line."""
    if isinstance(value, str):
        text = _BEARER.sub(r"\1***", _URL_SECRETS.sub(r"\1\2?***", value))
        return text.replace("\r", " ").replace("\n", " ⏎ ")
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {key: "***" if _SECRET_KEYS.search(str(key)) else clean(item) for key, item in value.items()}
    return value
