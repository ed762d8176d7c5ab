"""`python -m miner.media.decoder`: the process that opens pictures, so that none can harm the worker.

Promises: one request at a time over the socket on descriptor 0; it answers in words or with pixels, or ends by a limit.

Never: opens a file or a connection after its start, or knows a path, a key or a task.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from miner.media import confined, drawing
from miner.media.containers.pixels import Unfit
from miner.media.frames import HEAD, head

TOO_MUCH_MEMORY = "it takes too much memory to decode"

Answer = tuple[dict[str, Any], bytes]
_WORK: dict[str, Callable[..., Answer]] = {
    "clean": drawing.clean,
    "jpeg": drawing.to_jpeg,
    "thumbnail": drawing.thumbnail,
}


def main() -> None:
    parent, memory, cpu = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    confined.follow_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker decides when to end
    drawing.warm_up()
    gc.collect()
    gc.freeze()
    seccomp = confined.confine(memory=memory, cpu=3 * cpu)
    _send({"seccomp": seccomp}, b"")
    while (request := _receive()) is not None:
        facts, body = request
        signal.setitimer(signal.ITIMER_PROF, cpu)  # of all its threads; SIGPROF ends it
        facts, out = _answer(facts, body)
        signal.setitimer(signal.ITIMER_PROF, 0)
        del body, request
        _send({**facts, "cpu": time.process_time()}, out)
        del out


def _answer(asked: dict[str, Any], body: bytes) -> Answer:
    work = _WORK[asked.pop("do")]
    try:
        return work(body, **asked)
    except Unfit as unfit:
        return {"unfit": str(unfit)}, b""
    except MemoryError:
        return {"unfit": TOO_MUCH_MEMORY}, b""


def _receive() -> tuple[dict[str, Any], bytes] | None:
    """None at the end."""
    if (start := _read(HEAD.size)) is None:
        return None
    length, size = HEAD.unpack(start)
    facts, body = _read(length), _read(size)
    return None if facts is None or body is None else (json.loads(facts), body)


def _read(size: int) -> bytes | None:
    blocks: list[bytes] = []
    while size:
        block = os.read(0, min(size, 1 << 20))
        if not block:
            return None
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def _send(facts: dict[str, Any], body: bytes) -> None:
    for part in (head(facts, len(body)), body):
        view = memoryview(part)
        while view:
            view = view[os.write(0, view) :]


if __name__ == "__main__":
    main()
