"""Server-sent events: what the page shows, sent when it changes.

Promises: nothing is read while nobody watches, and for any number of watchers once; a slow watcher misses what was
replaced meanwhile and holds nobody up; a new one is told everything at once, so that reconnecting needs no memory. The
stream says something every BEAT seconds at least, so that a page can tell silence from a cut.
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

TURN = 0.25  # seconds between two looks
BEAT = 5.0
MOST_WATCHERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Something to watch: seconds between two looks, and what it is now, by name of event (perhaps with a `:part`)."""

    every: float
    read: Callable[[], Mapping[str, object]]


class Hub:
    """For one event loop. The topics are read by `readers`, one after the other, since that may block."""

    def __init__(self, topics: Sequence[Topic], *, readers: Executor) -> None:
        self._topics = topics
        self._readers = readers
        self._latest: dict[str, bytes] = {}  # by name, as it goes over the wire
        self._watchers = 0
        self._bell = asyncio.Event()  # a new one after each ring
        self._closing = False
        self._turning: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._watchers >= MOST_WATCHERS

    async def watch(self) -> AsyncIterator[bytes]:
        """The stream of one watcher, until it leaves or the hub is closed."""
        self._watchers += 1
        try:
            if self._turning is None or self._turning.done():
                self._latest = {}  # nobody looked meanwhile
                self._turning = asyncio.create_task(self._turn())
            told: dict[str, bytes] = {}
            yield b"retry: 1000\n\n"
            while not self._closing:
                if self._turning is not None and self._turning.done():
                    self._turning.result()  # raises what is a bug, so that the page sees an end and comes again
                bell, latest = self._bell, self._latest
                news = [event for name, event in latest.items() if told.get(name) is not event]
                told = latest
                yield b"".join(news) or event_of("beat", {"at": time.time()})
                with suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), BEAT)
        finally:
            self._watchers -= 1

    async def close(self) -> None:
        """End every stream."""
        self._closing = True
        self._ring()
        if self._turning is not None:
            await self._turning

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def _turn(self) -> None:
        """Read what is due, for as long as somebody watches."""
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
                self._ring()
            await asyncio.sleep(TURN)
        self._turning = None


def event_of(name: str, value: object) -> bytes:
    """One event of the wire (HTML standard, 9.2.5); JSON has no line break in it."""
    return f"event: {name.partition(':')[0]}\ndata: {as_json(value)}\n\n".encode()


def as_json(value: object) -> str:
    """Compact JSON of our records, and of what is made of them."""
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is nothing for JSON")


def _read(topics: Sequence[Topic]) -> dict[str, bytes]:
    fresh: dict[str, bytes] = {}
    for topic in topics:
        try:
            values = topic.read()
        except MinerError as fault:
            values = {"trouble": {"says": fault.message, "cure": fault.hint}}
        fresh |= {name: event_of(name, value) for name, value in values.items()}
    return fresh
