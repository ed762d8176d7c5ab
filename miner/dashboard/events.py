"""Server-sent events: sends what the page shows when it changes.

Topics are read once for all watchers, and only while there are any. A slow watcher skips outdated values and delays
nobody; a new one gets everything at once, so that reconnecting needs no state. An event at least every BEAT seconds
lets a page notice a broken connection.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from miner.task.errors import MinerError

POLL_EVERY = 0.25  # seconds
BEAT = 5.0
MAX_WATCHERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """`read` returns values by event name (optionally with a `:part`), every `every` seconds."""

    every: float
    read: Callable[[], Mapping[str, object]]


class Hub:
    """For one event loop. `readers` read the topics one by one, since that may block."""

    def __init__(self, topics: Sequence[Topic], *, readers: Executor) -> None:
        self._topics = topics
        self._readers = readers
        self._latest: dict[str, bytes] = {}  # by name, encoded
        self._watchers = 0
        self._changed = asyncio.Event()  # replaced after each change
        self._closing = False
        self._polling: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._watchers >= MAX_WATCHERS

    async def watch(self) -> AsyncIterator[bytes]:
        """One watcher's stream, until it leaves or the hub closes."""
        self._watchers += 1
        try:
            if self._polling is None or self._polling.done():
                self._latest = {}  # outdated
                self._polling = asyncio.create_task(self._poll())
            sent: dict[str, bytes] = {}
            yield b"retry: 1000\n\n"
            while not self._closing:
                if self._polling is not None and self._polling.done():
                    self._polling.result()  # raises a bug: the stream ends, and the page reconnects
                bell, latest = self._changed, self._latest
                news = [event for name, event in latest.items() if sent.get(name) is not event]
                sent = latest
                yield b"".join(news) or event_of("beat", {"at": time.time()})
                with suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), BEAT)
        finally:
            self._watchers -= 1

    async def close(self) -> None:
        """End every stream."""
        self._closing = True
        self._notify()
        if self._polling is not None:
            await self._polling

    def _notify(self) -> None:
        bell, self._changed = self._changed, asyncio.Event()
        bell.set()

    async def _poll(self) -> None:
        """Read due topics while there are watchers."""
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(range(len(self._topics)), 0.0)
        while self._watchers and not self._closing:
            chosen = [number for number, at in due.items() if at <= loop.time()]
            due.update({number: loop.time() + self._topics[number].every for number in chosen})
            topics = [self._topics[number] for number in chosen]
            fresh = await loop.run_in_executor(self._readers, _read, topics)
            changed = {name: event for name, event in fresh.items() if self._latest.get(name) != event}
            if changed:
                self._latest = self._latest | changed
                self._notify()
            await asyncio.sleep(POLL_EVERY)
        self._polling = None


def event_of(name: str, value: object) -> bytes:
    """Encode one event (HTML standard, 9.2.5); compact JSON has no line breaks."""
    return f"event: {name.partition(':')[0]}\ndata: {as_json(value)}\n\n".encode()


def as_json(value: object) -> str:
    """Compact JSON of dataclasses and collections of them."""
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def _read(topics: Sequence[Topic]) -> dict[str, bytes]:
    fresh: dict[str, bytes] = {}
    for topic in topics:
        try:
            values = topic.read()
        except MinerError as fault:
            values = {"trouble": {"says": fault.message, "cure": fault.hint}}
        fresh |= {name: event_of(name, value) for name, value in values.items()}
    return fresh
