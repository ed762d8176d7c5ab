"""The client against a real server that says what it is told to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from miner.sequencer import Sequencer, Unauthorized
from miner.task.errors import Retryable
from miner.task.stages import Outcome

ME = "0x0000000000000000000000000000000000000001"
DONE = Outcome(task_id="t", success=True, result="key", inference_latency=1.5, upload_latency=0.5)


class Server(ThreadingHTTPServer):
    """Answers each POST with the next scripted (status, headers, body), and keeps what it was sent."""

    daemon_threads = False

    def __init__(self):
        self.script = deque()
        self.seen = []
        self.hold = threading.Event()
        self.connections = []
        super().__init__(("127.0.0.1", 0), Handler)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_):
        """A client that hangs up in the middle is part of these tests."""

    def hang_up(self):
        """End the kept-alive connections, whose threads would wait for the next request."""
        self.hold.set()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, headers, data = self.server.script.popleft()
        if status == "hold":
            self.server.hold.wait(10)
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.hang_up()
    server.server_close()


@pytest.fixture
def sequencer(server):
    sequencer = Sequencer(server.url, api_key="key", timeout=2.0)
    yield sequencer
    sequencer.close()


def test_a_request_says_who_asks_and_for_what(server, sequencer):
    server.script.append((200, {}, b"{}"))
    assert sequencer.request(ME, ["3", "4"]).lease is None
    path, headers, body = server.seen[0]
    assert path == "/miner_request"
    assert body["erc20_address"] == body["miner_id"] == ME
    assert body["workflow_ids"] == ["3", "4"]
    assert headers["Authorization"] == "Bearer key"
    assert "Prefer" not in headers


def test_a_wait_is_asked_for_and_known_to_be_honoured(server, sequencer):
    server.script += [(200, {"Preference-Applied": "wait=20"}, b"{}"), (204, {}, b"")]
    server.script += [(200, {"Preference-Applied": "respond-async, Wait=5"}, b"{}")]
    assert [sequencer.request(ME, ["4"], wait=20.0).held_for for _ in range(3)] == [20.0, 0.0, 5.0]
    assert server.seen[0][1]["Prefer"] == "wait=20"


def test_a_submission_has_all_seven_fields(server, sequencer):
    server.script.append((200, {}, b"{}"))
    assert sequencer.submit(ME, DONE) == "acknowledged"
    assert server.seen[0][2] == {
        "success": True,
        "task_id": "t",
        "miner_id": ME,
        "result": "key",
        "inference_latency": 1.5,
        "upload_latency": 0.5,
        "msg": "",
    }


@pytest.mark.parametrize(
    ("status", "ack"), [(200, "acknowledged"), (204, "acknowledged"), (400, "refused"), (404, "gone")]
)
def test_what_becomes_of_a_submission(server, sequencer, status, ack):
    server.script.append((status, {}, b""))
    assert sequencer.submit(ME, DONE) == ack


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((500, {}, b"oops"), "answered 500"),
        ((502, {}, b'{"message": "bad gateway"}'), "bad gateway"),
        ((404, {}, b""), "answered 404"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "answered 302"),
        ((302, {"Location": "http://[::1/"}, b""), "answered 302"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b" " * (1 << 21)), "longer than"),
        ((200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"), "compressed"),
        ((200, {"Content-Length": "100"}, b"{"), "connection to the sequencer failed"),
    ],
)
def test_a_wrong_reply_is_asked_again(server, sequencer, reply, reason):
    server.script.append(reply)
    if reply[1].get("Content-Length"):
        server.script.append(reply)
        reply[1]["Connection"] = "close"
    with pytest.raises(Retryable, match=reason):
        sequencer.request(ME, ["4"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_miner_asks_rarely(server, sequencer, status):
    server.script.append((status, {}, b'{"message": "unknown miner"}'))
    with pytest.raises(Unauthorized, match="unknown miner") as error:
        sequencer.request(ME, ["4"])
    assert error.value.retry_after == 300.0
    assert "XALORA_MINER_ID" in error.value.hint


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None), ("", None)],
)
def test_retry_after_in_both_forms(server, sequencer, header, seconds):
    server.script.append((429, {"Retry-After": header}, b""))
    with pytest.raises(Retryable) as error:
        sequencer.request(ME, ["4"])
    assert error.value.retry_after == seconds


def test_nobody_there_is_asked_again_and_says_why():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sequencer = Sequencer(f"http://127.0.0.1:{port}", timeout=1.0)
    with pytest.raises(Retryable, match="refused"):
        sequencer.request(ME, ["4"])
    sequencer.close()


def test_a_hanging_one_is_given_up(server):
    server.script.append(("hold", {}, b""))
    sequencer = Sequencer(server.url, timeout=0.2)
    with pytest.raises(Retryable, match=r"no whole answer within 0\.2 s"):
        sequencer.request(ME, ["4"])
    sequencer.close()


def test_a_held_request_can_be_ended_from_another_thread(server, sequencer):
    server.script += [("hold", {}, b""), ("hold", {}, b"")]
    ended = []

    def ask():
        for _ in range(2):
            try:
                sequencer.request(ME, ["4"], wait=60.0)
            except Retryable as error:
                ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 5
    while not server.seen and time.monotonic() < deadline:
        thread.join(0.01)
    sequencer.abort_waits()
    thread.join(5)
    assert not thread.is_alive()
    assert len(ended) == 2  # the one that was held, and the next one: nothing is held any more


def test_nothing_of_the_environment_goes_along(server, sequencer, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.script.append((200, {"Set-Cookie": "a=b"}, b"{}"))
    server.script.append((200, {}, b"{}"))
    sequencer.request(ME, ["4"])
    sequencer.request(ME, ["4"])
    assert len(server.seen) == 2
