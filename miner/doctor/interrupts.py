"""Signals while a ComfyUI was started: none of them leaves it running.

Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end a command through its `finally` blocks. The first one counts: more of
them, from somebody impatient, do not interrupt those blocks.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """The signals raise SystemExit, once, with a shell's exit code. For the main thread."""
    before = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal counts only after the block. Does nothing outside of the main thread, where none is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda heard, _frame: came.append(heard)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
