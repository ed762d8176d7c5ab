"""One decoder: the process, what is asked of it, and how it ends.

Promises: a request ends when its time is over or the caller's `watch` raises, whatever the picture does to the decoder;
an answer is never larger than the caller allows.

Never: lets a picture's bytes be parsed in the worker, or sends a decoder a path or a secret.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from miner.media.frames import HEAD, MAX_FACTS, head
from miner.task.errors import MachineFault

MEMORY = 700_000_000  # bytes above what an idle decoder uses, for a picture of usual size
CPU = 10.0  # seconds for one
LONGEST = 120.0  # seconds for one, however busy the machine is
ANSWERS_AFTER = 20.0  # seconds at most for a new decoder to be ready
PICTURES = 200  # that one decodes before another takes its place, or as many as take CPU seconds
LOOK = 0.1  # seconds between two looks at the caller's `watch`
_BLOCK = 1 << 18  # bytes
_PER_PIXEL, _PIXELS_PER_SECOND = 16, 8_000_000

_ENVIRONMENT = {  # nothing of the worker's; the allocator gives memory back at once
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 18),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 18),
}
_TOO_LONG, _TOO_MUCH = "it takes too long to decode", "it takes too much memory to decode"
_ENDED_BY = {signal.SIGPROF: _TOO_LONG, signal.SIGXCPU: _TOO_LONG, signal.SIGKILL: _TOO_MUCH}

Answer = tuple[dict[str, Any], bytes]
Sink = Callable[[memoryview], object]
Watch = Callable[[], None]
"""Called every tenth of a second; what it raises ends the request and the decoder."""


class Refused(Exception):
    """The picture cannot be decoded; the message is a clause for its consumer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to do (`drawing`), with which picture, and how much it may cost."""

    do: str
    options: dict[str, Any]
    body: Iterable[bytes] = field(repr=False)  # read once, while it is sent
    size: int  # bytes of the body
    most: int  # bytes of the answer
    pixels: int  # at most, of the picture
    sink: Sink | None = None  # takes the answer's bytes instead

    @property
    def memory(self) -> int:
        """Bytes. More than usual only where the operator allows pictures that need it."""
        return max(MEMORY, _PER_PIXEL * self.pixels + 3 * self.size)

    @property
    def cpu(self) -> float:
        return max(CPU, self.pixels / _PIXELS_PER_SECOND)


class Died(Exception):
    """The decoder ended before it answered."""


class Decoder:
    """One process. Raises MachineFault if it does not start."""

    def __init__(self, *, memory: int = MEMORY, cpu: float = CPU) -> None:
        self.decoded = 0
        self.tired = False  # another is to take its place
        self._cpu = cpu
        self.free_since = time.monotonic()
        self._process: subprocess.Popen[bytes]
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(LOOK)
        arguments = [sys.executable, "-P", "-S", "-s", "-B", "-m", "miner.media.decoder"]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*arguments, str(os.getpid()), str(memory), str(cpu)],
                    cwd="/",
                    env={**_ENVIRONMENT, **_where_to_import()},
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                self._socket.close()
                raise _does_not_start(error.strerror or str(error)) from error
        try:
            facts, _ = self._receive(_nothing, time.monotonic() + ANSWERS_AFTER, 0)
        except (Died, Refused):
            self.end()
            raise _does_not_start(f"it ended with {self._process.returncode}") from None
        self.seccomp = facts.get("seccomp") is True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Request, watch: Watch) -> Answer:
        """The answer's facts and bytes. Raises Refused, Died, and what `watch` raises; then it has ended."""
        until = time.monotonic() + max(LONGEST, 3 * request.cpu)
        try:
            self._send((head({"do": request.do, **request.options}, request.size),), watch, until)
            self._send(request.body, watch, until)
            facts, body = self._receive(watch, until, request.most, request.sink)
        except BaseException:
            self.end()
            raise
        self.decoded += 1
        used = facts.pop("cpu", None)
        self.tired = self.decoded >= PICTURES or not isinstance(used, float) or used > self._cpu
        self.free_since = time.monotonic()
        if isinstance(unfit := facts.get("unfit"), str):
            raise Refused("".join(letter for letter in unfit if letter.isprintable())[:200])
        return facts, body

    def why(self) -> str:
        """Why it ended, as a clause about the picture."""
        code = self._process.returncode
        return next((why for number, why in _ENDED_BY.items() if code == -number), "it breaks the decoder")

    def end(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _send(self, blocks: Iterable[bytes], watch: Watch, until: float) -> None:
        for block in blocks:
            view = memoryview(block)
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except TimeoutError:
                    self._look(watch, until)
                except OSError as error:
                    raise self._death() from error

    def _receive(self, watch: Watch, until: float, most: int, sink: Sink | None = None) -> Answer:
        length, size = HEAD.unpack(self._all(HEAD.size, watch, until))
        if length > MAX_FACTS or size > most:
            raise Died
        try:
            facts = json.loads(self._all(length, watch, until))
        except ValueError:
            raise Died from None
        if not isinstance(facts, dict):
            raise Died
        if sink is None or "unfit" in facts:
            return facts, self._all(size, watch, until)
        self._read(size, watch, until, sink)
        return facts, b""

    def _all(self, size: int, watch: Watch, until: float) -> bytes:
        whole = io.BytesIO()
        self._read(size, watch, until, whole.write)
        return whole.getvalue()

    def _read(self, size: int, watch: Watch, until: float, sink: Sink) -> None:
        block = memoryview(bytearray(min(size, _BLOCK)))
        while size:
            try:
                got = self._socket.recv_into(block[:size])
            except TimeoutError:
                self._look(watch, until)
                continue
            except OSError as error:
                raise self._death() from error
            if not got:
                raise self._death()
            sink(block[:got])
            size -= got

    def _look(self, watch: Watch, until: float) -> None:
        watch()
        if time.monotonic() >= until:
            raise Refused(_TOO_LONG)

    def _death(self) -> Died:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # its socket closes a moment before
        return Died()


def _where_to_import() -> dict[str, str]:
    """The environment in which this process's Python finds the same modules and libraries."""
    found = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):
        found["LD_LIBRARY_PATH"] = libraries
    return found


def _does_not_start(why: str) -> MachineFault:
    hint = "check that Pillow is installed for this Python: python -m miner.media.decoder"
    return MachineFault(f"the picture decoder does not start: {why}", hint=hint)


def _nothing() -> None:
    pass
