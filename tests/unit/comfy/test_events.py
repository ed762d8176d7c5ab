"""The event stream against a real websocket server that drops, stalls and says large things."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from miner.comfy.client import without_user
from miner.comfy.events import Ended, Event, EventStream, Other, Preview, Progress, Started, parse

PATIENCE = 60.0  # seconds
TEXT, BINARY = 1, 2
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
OTHER = Other(prompt_id="p")
END = json.dumps({"type": "executing", "data": {"node": None, "prompt_id": "p"}})


@contextmanager
def server(behave: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A websocket server that does `behave` with each connection; gives its URL."""
    with serve(behave, "127.0.0.1", 0, ping_interval=None, compression=None, max_size=None) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield "http://{}:{}".format(*listening.socket.getsockname())
        finally:
            listening.shutdown()
            thread.join()


@contextmanager
def hasty_server() -> Iterator[str]:
    """A websocket server in as few lines as can be: greets, tells of an end, and ends every other connection rudely."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def run() -> None:
        for number in itertools.count():
            client, _ = listener.accept()
            with client:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(4096)
                    if not request:
                        return
                key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
                accepted = base64.b64encode(hashlib.sha1(key + MAGIC, usedforsecurity=False).digest())
                head = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                client.sendall(head + accepted + b"\r\n\r\n" + struct.pack(">BB", 0x81, len(END)) + END.encode())
                client.recv(4096)  # the feature flags
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        with socket.create_connection(listener.getsockname()):
            pass  # says nothing, which ends the server
        thread.join()
        listener.close()


def first_event(stream: EventStream) -> Event:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (event := stream.next(0.5)) is not None:
            return event
    raise AssertionError("no event came")


def resources() -> tuple[int, int, int]:
    """Open descriptors, threads, resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return descriptors, threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE")


# ---- reconnecting -----------------------------------------------------------------------------------------------


def test_ten_thousand_reconnects_leak_nothing() -> None:
    """Half of the connections end in order, the other half are reset."""
    heard = 0

    def run_until(connections: int) -> None:
        nonlocal heard
        while stream.connections < connections:
            heard += stream.next(1.0) is not None

    with hasty_server() as url, closing(EventStream(url, client_id="c", first_pause=0.0, longest_pause=0.0)) as stream:
        run_until(1_000)  # what is made once is there now
        descriptors, threads, memory = resources()
        run_until(10_000)
        after = resources()
    assert after[0] <= descriptors + 2
    assert after[1] <= threads
    assert after[2] <= memory + 8_000_000
    assert heard > 4_990


def test_a_server_that_drops_at_once_is_not_asked_in_a_spin() -> None:
    served = 0

    def drop(connection: ServerConnection) -> None:
        nonlocal served
        served += 1
        connection.close_socket()

    with server(drop) as url, closing(EventStream(url, client_id="c", first_pause=0.05, longest_pause=0.4)) as stream:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            stream.next(0.1)
    assert 1 < served <= 8  # pauses of 0.05, 0.1, 0.2, 0.4, 0.4 … s


def test_a_server_that_is_not_there_is_not_asked_in_a_spin() -> None:
    with server(lambda _: None) as url:
        pass
    with closing(EventStream(url, client_id="c", first_pause=0.05, longest_pause=0.4)) as stream:
        calls, begun, end = 0, time.process_time(), time.monotonic() + 1.0
        while time.monotonic() < end:
            assert stream.next(0.1) is None
            calls += 1
        assert time.process_time() - begun < 0.5
    assert calls < 40
    assert stream.connections == 0


def test_the_old_socket_is_closed_before_a_new_one_is_opened() -> None:
    """A second connection of the same client makes ComfyUI forget it when the first one's handler ends."""
    open_now, most = 0, 0
    lock = threading.Lock()

    def count(connection: ServerConnection) -> None:
        nonlocal open_now, most
        with lock:
            open_now += 1
            most = max(most, open_now)
        connection.recv()
        with lock:
            open_now -= 1
        connection.send(END)
        connection.close()

    with server(count) as url, closing(EventStream(url, client_id="c", first_pause=0.0, longest_pause=0.0)) as stream:
        while stream.connections < 20:
            stream.next(1.0)
    assert most == 1


# ---- frames -----------------------------------------------------------------------------------------------------


def test_a_frame_of_64_mib_that_comes_in_pieces_is_one_event() -> None:
    """`next` returns None while it is not whole yet, and loses nothing of it."""
    image = os.urandom(1 << 20) * 64
    go_on = threading.Event()

    def send(connection: ServerConnection) -> None:
        connection.recv()
        frame = struct.pack(">II", 1, 2) + image
        header = struct.pack(">BBQ", 0x82, 127, len(frame))
        raw = connection.socket
        raw.sendall(header + frame[:1000])
        assert go_on.wait(PATIENCE)
        raw.sendall(frame[1000:])
        connection.send(END)
        connection.recv()

    with server(send) as url, closing(EventStream(url, client_id="c")) as stream:
        assert stream.next(0.2) is None
        go_on.set()
        event = first_event(stream)
        assert isinstance(event, Preview)
        assert (event.mime, event.image == image) == ("image/png", True)
        assert first_event(stream) == Ended(prompt_id="p")
        assert stream.connections == 1


def message(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


@pytest.mark.parametrize(
    ("opcode", "data", "event"),
    [
        (TEXT, message("execution_start", prompt_id="p"), Started(prompt_id="p")),
        (TEXT, message("executing", node=None, prompt_id="p"), Ended(prompt_id="p")),
        (TEXT, message("executing", node="3", prompt_id="p"), OTHER),
        (TEXT, message("executing", node="3"), None),  # on a reconnect in mid-run
        (TEXT, message("status", status={}), None),
        (TEXT, message("execution_success", prompt_id="p"), OTHER),  # its history is not there yet
        (TEXT, message("of the future", prompt_id="p"), OTHER),
        (
            TEXT,
            message(
                "progress_state",
                prompt_id="p",
                nodes={"1": {"state": "finished"}, "2": {"state": "running", "value": 3, "max": 20}},
            ),
            Progress(prompt_id="p", value=3, of=20, done=1, nodes=2),
        ),
        (TEXT, message("progress_state", prompt_id="p", nodes={"1": {"state": "running", "value": "x"}}), OTHER),
        (TEXT, b"not JSON", None),
        (TEXT, b"[1, 2]", None),
        (TEXT, b'{"type": "executing", "data": null}', None),
        (TEXT, b"\xff\xfe", None),
        (BINARY, struct.pack(">II", 1, 1) + b"jpeg", Preview(mime="image/jpeg", image=b"jpeg")),
        (BINARY, struct.pack(">II", 4, 2) + b"{}jpeg", Preview(mime="image/jpeg", image=b"jpeg")),
        (BINARY, struct.pack(">II", 4, 9) + b"[]", None),
        (BINARY, struct.pack(">II", 3, 9), None),
        (BINARY, b"\x00", None),
        (BINARY, b"", None),
    ],
)
def test_a_message_is_an_event_or_nothing(opcode: int, data: bytes, event: Event | None) -> None:
    assert parse(opcode, data) == event


def test_the_user_part_of_a_url_is_a_header_and_in_no_url() -> None:
    """A proxy in front of ComfyUI asks for it, and nobody else is to see it."""
    seen: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.put((connection.request.path, connection.request.headers.get("Authorization")))

    with server(tell) as url:
        named = url.replace("://", "://operator:p%40ss@")
        with closing(EventStream(named, client_id="c")) as stream:
            stream.next(1.0)
            path, authorization = seen.get(timeout=10.0)
    assert (path, authorization) == ("/ws?clientId=c", f"Basic {base64.b64encode(b'operator:p@ss').decode()}")
    assert without_user("http://operator@[::1]:8188/comfy/")[0] == "http://[::1]:8188/comfy"
    assert without_user("http://127.0.0.1:8188") == ("http://127.0.0.1:8188", {})
