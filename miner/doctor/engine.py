"""Starts the embedded engine to see what it can run; takes about a second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miner.comfy.launch import Launch
from miner.comfy.process import ComfyProcess

START_TIMEOUT = 20.0  # seconds


@contextmanager
def started_engine(launch: Launch, state: Path) -> Iterator[None]:
    """The embedded engine, running inside the `with`. `state` has to be unused. Raises ComfyDown."""
    process = ComfyProcess(launch, state=state, start_timeout=START_TIMEOUT, stop_grace=2.0)
    try:
        process.start(threading.Event())
        yield
    finally:
        process.stop()
