"""Slow is not late: what moves goes on, what stands still ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.net.addresses import parse_allow
from miner.task.errors import JobFault, Retryable
from miner.task.stages import Media, PresignedPut
from tests.support.scripted_server import ScriptedServer, head, says, trickles

STILL = 0.6  # seconds


class SlowStore:
    """Takes `rate` bytes a second, `most` in all, and then answers or stands still."""

    def __init__(self, *, pause: float, most: int, answers: bool = True) -> None:
        self.taken, self.connections = 0, 0
        self._pause, self._most, self._answers = pause, most, answers
        self._over = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.connections += 1
            while self.taken < self._most and not self._over.wait(self._pause):
                if not (piece := connection.recv(1 << 14)):
                    return
                self.taken += len(piece)
            if self._answers:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self._over.wait(60)

    def close(self) -> None:
        self._over.set()
        self._listener.close()


@pytest.fixture
def file(tmp_path: Path) -> Media:
    path = tmp_path / "result.png"
    path.write_bytes(bytes(1 << 20))
    return Media(path=path, content_type="image/png", size=1 << 20)


def upload(store: SlowStore, file: Media, *, still: float, within: float = 3600.0) -> None:
    allow = parse_allow([f"127.0.0.1:{store.port}"])
    uploader = Uploader(allow=allow, bucket="", endpoint="", region="auto", timeout=still)
    try:
        uploader.upload(file, PresignedPut(url=f"http://127.0.0.1:{store.port}/key"), key="", within=within)
    finally:
        uploader.close()
        store.close()


def test_an_upload_that_takes_many_times_the_limit_arrives_as_long_as_it_moves(file: Media) -> None:
    store = SlowStore(pause=0.05, most=1 << 20)  # 300 KB/s
    began = time.monotonic()
    upload(store, file, still=STILL)
    assert time.monotonic() - began > 3 * STILL
    assert store.taken >= 1 << 20
    assert store.connections == 1


def test_an_upload_that_stands_still_ends(file: Media) -> None:
    store = SlowStore(pause=0.0, most=1 << 18, answers=False)
    with pytest.raises(Retryable, match=r"neither took nor sent anything for 0\.6 s"):
        upload(store, file, still=STILL)


def test_an_upload_without_an_answer_ends(file: Media) -> None:
    store = SlowStore(pause=0.0, most=(1 << 20) + 100, answers=False)
    with pytest.raises(Retryable, match="neither took nor sent anything"):
        upload(store, file, still=STILL)


def test_an_upload_that_moves_ends_with_its_tasks_time(file: Media) -> None:
    store = SlowStore(pause=0.2, most=1 << 20)
    with pytest.raises(Retryable, match="did not take everything within 1 s"):
        upload(store, file, still=STILL, within=1.0)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def fetch(server: ScriptedServer, url: str, *, timeout: float, within: float = 3600.0) -> bytes:
    allow = parse_allow([f"127.0.0.1:{server.port}"])
    return Fetcher(allow=allow, max_bytes=50 << 20, timeout=timeout, backoff=0.001).fetch(url, within=within)


def test_an_input_that_arrives_at_a_fair_rate_gets_the_time_it_takes(server: ScriptedServer) -> None:
    pieces = [step for _ in range(10) for step in (bytes(300_000), 0.15)]
    url = server.serve(says(head(200, "Content-Length: 3000000"), *pieces))
    assert len(fetch(server, url, timeout=0.5)) == 3_000_000


def test_an_input_that_drips_holds_the_lane_for_its_time_out_alone(server: ScriptedServer) -> None:
    began = time.monotonic()
    with pytest.raises(JobFault, match="no whole answer within"):
        fetch(server, server.serve(trickles(head(200, "Content-Length: 100000"))), timeout=STILL)
    assert time.monotonic() - began < 10


def test_an_input_takes_no_longer_than_its_task_has(server: ScriptedServer) -> None:
    with pytest.raises(JobFault, match=r"no whole answer within 0\.3 s"):
        fetch(server, server.serve(says(60.0)), timeout=60.0, within=0.3)
