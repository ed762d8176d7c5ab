"""The faults, by name. Each breaks something on entry and mends it on exit; the held call goes on in between.

A fault is real: a signal to a process, a reset of a connection, bytes on the wire, a file cut off.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest

from tests.support.relayed_testbed import RelayedTestbed
from tests.support.testbed import until

Fault = Callable[[RelayedTestbed], AbstractContextManager[None]]

GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>"
ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BUSY = b"HTTP/1.1 429 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
RESET = b""


# ---- the miner --------------------------------------------------------------------------------------------------


@contextmanager
def miner_killed(testbed: RelayedTestbed) -> Iterator[None]:
    testbed.worker.kill()
    testbed.held.drop()
    yield
    testbed.restart_worker()


@contextmanager
def miner_back_first(testbed: RelayedTestbed) -> Iterator[None]:
    """As above, but what is held goes on only when the miner has come back."""
    with miner_killed(testbed):
        pass
    until(lambda: testbed.logged("task_picked_up", task_id=testbed.task_id), why="the new start")
    yield


@contextmanager
def miner_one_step_back(testbed: RelayedTestbed) -> Iterator[None]:
    """Killed before its last record: no call lies between the two, so the record is taken back."""
    job = {"workflow": "gated", "values": {}, "images": {}, "deadline": time.time() + 60.0}
    uploaded = {"job": job, "key": "", "size": 1, "inference_latency": 1.0, "upload_latency": 1.0}
    steps = {"prepared": ("leased", {}), "answered": ("uploaded", uploaded)}
    with miner_killed(testbed):
        yield
        with closing(_journal(testbed)) as journal:
            step, record = steps[testbed.step]
            changed = journal.execute(
                "UPDATE tasks SET step = ?, record = json_replace(?, '$.key', json_extract(outcome, '$.result')),"
                " outcome = NULL WHERE task_id = ?",
                (step, json.dumps(record), testbed.task_id),
            )
            assert changed.rowcount == 1


@contextmanager
def journal_cut(testbed: RelayedTestbed) -> Iterator[None]:
    """Killed, and of its journal the second half is gone."""
    before = _count(testbed, "journal_damaged")
    with miner_killed(testbed):
        yield
        with closing(_journal(testbed)) as journal:
            journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path = testbed.state / "journal.db"
        os.truncate(path, path.stat().st_size // 2)
    until(lambda: _count(testbed, "journal_damaged") > before, why="the message")


def _journal(testbed: RelayedTestbed) -> sqlite3.Connection:
    return sqlite3.connect(testbed.state / "journal.db", isolation_level=None)


@contextmanager
def disk_full(testbed: RelayedTestbed) -> Iterator[None]:
    """Not a byte is left for the journal, nor for the copy of a result, until the worker has said so."""
    disk = testbed.state.parent
    if not disk.is_mount():
        pytest.skip("a full disk has to be a small one, and this user may not mount it: run this as root")
    said = ("upload_failed", "delivery_failed") if testbed.step == "rendering" else ("not_recorded",)
    before = _count(testbed, *said)
    with closing(_journal(testbed)) as journal:  # else a record may fit where an old one was
        journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ballast = disk / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        yield
        until(lambda: _count(testbed, *said) > before or not testbed.worker.alive, why="a complaint")
    finally:
        ballast.unlink()


def _count(testbed: RelayedTestbed, *endings: str) -> int:
    """Events so far whose names end like this."""
    return sum(event["event"].endswith(endings) for event in testbed.log())


# ---- ComfyUI ----------------------------------------------------------------------------------------------------


@contextmanager
def engine_killed(testbed: RelayedTestbed) -> Iterator[None]:
    testbed.engine.kill()
    yield
    _start_engine(testbed)


@contextmanager
def engine_restarted(testbed: RelayedTestbed) -> Iterator[None]:
    testbed.engine.stop()
    _start_engine(testbed)
    yield


@contextmanager
def engine_stopped(testbed: RelayedTestbed) -> Iterator[None]:
    """SIGSTOP, until the sequencer has heard twice of a miner that waits for it."""
    testbed.engine.send(signal.SIGSTOP)
    yield
    if testbed.step not in ("rendered", "uploaded", "answered"):  # those need no ComfyUI
        for _ in range(2):
            heartbeat = testbed.sequencer.hold("POST /miner_request")
            heartbeat.wait()
            heartbeat.release()
    testbed.engine.send(signal.SIGCONT)


@contextmanager
def both_killed(testbed: RelayedTestbed) -> Iterator[None]:
    with engine_killed(testbed), miner_killed(testbed):
        yield


@contextmanager
def websocket_dropped(testbed: RelayedTestbed) -> Iterator[None]:
    testbed.comfyui.cut("GET /ws")
    yield


def _start_engine(testbed: RelayedTestbed) -> None:
    assert testbed.engine.start().first_line() == testbed.engine_url


# ---- the sequencer ----------------------------------------------------------------------------------------------


@contextmanager
def sequencer_killed(testbed: RelayedTestbed) -> Iterator[None]:
    testbed.devnet_process.kill()
    yield
    testbed.start_devnet(port=urlsplit(testbed.devnet.url).port)


@contextmanager
def sequencer_away(testbed: RelayedTestbed) -> Iterator[None]:
    """No connection to it, until the worker has noticed."""
    said = ("heartbeat_missed", "lease_request_failed", "answer_not_accepted")
    before = _count(testbed, *said)
    with testbed.sequencer.away():
        yield
        until(lambda: _count(testbed, *said) > before, why="a complaint")


@contextmanager
def says(testbed: RelayedTestbed, words: bytes) -> Iterator[None]:
    """The sequencer's next reply is `words`: to the submission, to the request for a task, else to a heartbeat."""
    if testbed.step in ("leased", "answered"):
        testbed.held.drop(words)
    else:
        heartbeat = testbed.sequencer.hold("POST /miner_request")
        heartbeat.wait()
        heartbeat.drop(words)
    yield


# ---- the store --------------------------------------------------------------------------------------------------


@contextmanager
def store(testbed: RelayedTestbed, action: str, **rule: object) -> Iterator[None]:
    """devnet's own fault, for the upload that is held and for nothing after it."""
    testbed.devnet.fault(action, "store_put", "s3_put", times=1, **rule)
    yield


FAULTS: dict[str, Fault] = {
    "miner killed": miner_killed,
    "miner killed, back before it goes on": miner_back_first,
    "miner killed one record earlier": miner_one_step_back,
    "miner killed, journal cut off": journal_cut,
    "disk full": disk_full,
    "engine killed": engine_killed,
    "engine restarted": engine_restarted,
    "engine stopped": engine_stopped,
    "engine and miner killed": both_killed,
    "websocket dropped": websocket_dropped,
    "sequencer killed": sequencer_killed,
    "sequencer away": sequencer_away,
    "sequencer resets": partial(says, words=RESET),
    "sequencer says garbage": partial(says, words=GARBAGE),
    "sequencer says 500": partial(says, words=ERROR),
    "sequencer says 429": partial(says, words=BUSY),
    "upload says 403": partial(store, action="fail", status=403),
    "upload says 500": partial(store, action="fail", status=500),
    "upload says 429": partial(store, action="fail", status=429, headers={"Retry-After": "1"}),
    "upload hangs": partial(store, action="hang"),
    "upload is cut": partial(store, action="cut"),
}
