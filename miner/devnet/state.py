"""The parts of a running devnet, and how a request finds them.

Everything that was opened is closed, and a temporary folder is gone afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection as Database

from starlette.requests import Request

from miner.devnet.blobs import Blobs
from miner.devnet.consumers import Consumers
from miner.devnet.database import open_database, signing_secret
from miner.devnet.options import DevnetOptions
from miner.devnet.sequencer import Sequencer
from miner.devnet.targets import Targets

TICK = 0.1
"""Seconds between two looks for what timed out."""


@dataclass(eq=False, slots=True)
class Held:
    """A request that waits for news."""

    miner_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Bell:
    """Wakes held requests, the oldest first."""

    def __init__(self) -> None:
        self._held: dict[Held, None] = {}
        self.stopping = asyncio.Event()

    def ring(self) -> None:
        for held in self._held:
            held.woken.set()

    def stop(self) -> None:
        """Release every held request, now and from now on."""
        self.stopping.set()
        self.ring()

    @contextmanager
    def hold(self, miner_id: str) -> Iterator[asyncio.Event]:
        held = Held(miner_id)
        self._held[held] = None
        try:
            yield held.woken
        finally:
            del self._held[held]

    @property
    def count(self) -> int:
        """Requests that are held now."""
        return len(self._held)

    def attending(self) -> frozenset[str]:
        """Miners with an open request; they are not silent."""
        return frozenset(held.miner_id for held in self._held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devnet:
    """The parts, wired. All of them belong to the event loop's thread."""

    options: DevnetOptions
    clock: Callable[[], float]  # Unix seconds
    db: Database
    blobs: Blobs
    sequencer: Sequencer
    consumers: Consumers
    targets: Targets
    bell: Bell

    def expire(self) -> None:
        """Take away what is over, and wake held requests."""
        if self.sequencer.expire(self.bell.attending()):
            self.bell.ring()


def devnet_of(request: Request) -> Devnet:
    """The devnet that serves a request."""
    devnet: Devnet = request.app.state.devnet
    return devnet


@asynccontextmanager
async def open_devnet(options: DevnetOptions, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Devnet]:
    """A devnet on its folder, with its clock ticking. Raises DevnetError if the folder cannot be used."""
    folder = options.state or Path(tempfile.mkdtemp(prefix="xalora-devnet-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        db = open_database(folder / "devnet.sqlite3", durable=options.durable)
        try:
            devnet = _wire(options, folder, db, clock)
            ticking = asyncio.create_task(_tick(devnet))
            try:
                yield devnet
            finally:
                devnet.bell.stop()
                await ticking
        finally:
            db.close()
    finally:
        if options.state is None:
            shutil.rmtree(folder)


def _wire(options: DevnetOptions, folder: Path, db: Database, clock: Callable[[], float]) -> Devnet:
    blobs = Blobs(db, folder / "store", durable=options.durable, clock=clock)
    sequencer = Sequencer(db, blobs, options, clock=clock)
    blobs.sweep()
    sequencer.resume()
    return Devnet(
        options=options,
        clock=clock,
        db=db,
        blobs=blobs,
        sequencer=sequencer,
        consumers=Consumers(db, sequencer, options, clock=clock),
        targets=Targets(db, options, secret=signing_secret(db)),
        bell=Bell(),
    )


async def _tick(devnet: Devnet) -> None:
    while not devnet.bell.stopping.is_set():
        devnet.expire()
        try:
            await asyncio.wait_for(devnet.bell.stopping.wait(), TICK)
        except TimeoutError:
            continue
