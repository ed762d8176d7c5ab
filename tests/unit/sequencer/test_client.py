"""The client against a real server that says what it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque

import pytest

from miner.sequencer import Aborted, Sequencer, Unauthorized
from miner.task.errors import Retryable
from miner.task.stages import Outcome
from tests.support.scripted_server import ScriptedServer, floods, head, reply, says

ME = "0x0000000000000000000000000000000000000001"
DONE = Outcome(task_id="t", success=True, result="key", inference_latency=1.5, upload_latency=0.5)
HOLD = says(60.0)


@pytest.fixture
def server():
    """Answers each request with the next of its `script`."""
    with ScriptedServer() as server:
        server.script = deque()
        server.otherwise = lambda request: said(request) if callable(said := server.script.popleft()) else said
        yield server


@pytest.fixture
def sequencer(server):
    sequencer = Sequencer(server.url, api_key="key", timeout=2.0)
    yield sequencer
    sequencer.close()


def test_a_request_says_who_asks_and_for_what(server, sequencer):
    server.script.append(reply(b"{}"))
    assert sequencer.request(ME, ["3", "4"]).lease is None
    (request,) = server.requests
    headers, body = request.headers, request.json()
    assert request.target == "/miner_request"
    assert body["erc20_address"] == body["miner_id"] == ME
    assert body["workflow_ids"] == ["3", "4"]
    assert headers["Authorization"] == "Bearer key"
    assert "Prefer" not in headers


def test_a_wait_is_asked_for_and_known_to_be_honored(server, sequencer):
    server.script += [reply(b"{}", "Preference-Applied: wait=20"), reply(b"", status=204)]
    server.script += [reply(b"{}", "Preference-Applied: respond-async, Wait=5")]
    assert [sequencer.request(ME, ["4"], wait=20.0).held_for for _ in range(3)] == [20.0, 0.0, 5.0]
    assert server.requests[0].headers["Prefer"] == "wait=20"


def test_a_submission_has_all_seven_fields(server, sequencer):
    server.script.append(reply(b"{}"))
    assert sequencer.submit(ME, DONE) == "acknowledged"
    assert server.requests[0].json() == {
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
    server.script.append(reply(b"", status=status))
    assert sequencer.submit(ME, DONE) == ack


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (reply(b"oops", status=500), "answered 500"),
        (reply(b'{"message": "bad gateway"}', status=502), "bad gateway"),
        (reply(b"", status=404), "answered 404"),
        (reply(b"", "Location: http://127.0.0.1:1/", status=302), "answered 302"),
        (reply(b"", "Location: http://[::1/", status=302), "answered 302"),
        (reply(b"<html>"), "not JSON"),
        (reply(b" " * (1 << 21)), "too long, and names no task"),
        (reply(b'{"msg": "' + b"x" * (1 << 21) + b'"}'), "too long, and names no task"),
        (reply(b"\x1f\x8b", "Content-Encoding: gzip"), "compressed"),
        (says(reply(b"{", "Content-Length: 100")), "connection to the sequencer failed"),
    ],
)
def test_a_wrong_reply_is_asked_again(server, sequencer, reply, reason):
    server.script += [reply, reply]
    with pytest.raises(Retryable, match=reason):
        sequencer.request(ME, ["4"])


def task(size: int, **more: object) -> dict[str, object]:
    return {"task_id": "t-1", "task_details": {"parameters": {"image": "data:image/png;base64," + "A" * size}}, **more}


@pytest.mark.parametrize("size", [1000, 1_000_000, 65 << 20])
def test_a_picture_inside_a_task_may_be_as_large_as_any_other(server, size):
    server.script.append(reply(task(size)))
    sequencer = Sequencer(server.url, max_input=50 << 20)
    lease = sequencer.request(ME, ["4"]).lease
    assert (lease.task_id, lease.fault) == ("t-1", "")
    assert len(lease.parameters["image"]) == size + 22
    sequencer.close()


@pytest.mark.parametrize("id_first", [True, False])
@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20])
def test_a_task_that_is_too_large_is_answered_with_the_reason(server, sequencer, size, id_first):
    whole = task(size)
    server.script.append(reply(whole if id_first else dict(reversed(whole.items()))))
    lease = sequencer.request(ME, ["4"]).lease
    assert lease.task_id == "t-1"
    assert "larger than 1 MB" in lease.fault
    assert "URLs" in lease.fault
    server.script.append(reply(b"{}"))
    assert sequencer.request(ME, ["4"]).lease is None  # and the next request is as any other


def test_of_a_task_without_an_end_no_more_is_read_than_its_id_takes(server, sequencer):
    server.script.append(floods(head(200) + b'{"task_id": "t-1", "task_details": "', b"A" * 65536))
    assert sequencer.request(ME, ["4"]).lease.task_id == "t-1"
    server.script.append(floods(head(200) + b'{"task_details": "', b"A" * 65536))
    with pytest.raises(Retryable, match="names no task"):
        sequencer.request(ME, ["4"])


def test_a_large_reply_that_arrives_slowly_gets_more_time(server):
    data = json.dumps(task(3_000_000)).encode()
    pieces = [data[at : at + 300_000] for at in range(0, len(data), 300_000)]
    steps = [step for piece in pieces for step in (piece, 0.08)]
    server.script.append(says(head(200, f"Content-Length: {len(data)}"), *steps))
    sequencer = Sequencer(server.url, timeout=0.5, max_input=3 << 20)
    assert sequencer.request(ME, ["4"]).lease.task_id == "t-1"
    sequencer.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_miner_asks_rarely(server, sequencer, status):
    server.script.append(reply(b'{"message": "unknown miner"}', status=status))
    with pytest.raises(Unauthorized, match="unknown miner") as error:
        sequencer.request(ME, ["4"])
    assert error.value.retry_after == 300.0
    assert "XALORA_MINER_ID" in error.value.hint


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None), ("", None)],
)
def test_retry_after_in_both_forms(server, sequencer, header, seconds):
    server.script.append(reply(b"", f"Retry-After: {header}", status=429))
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
    server.script.append(HOLD)
    sequencer = Sequencer(server.url, timeout=0.2)
    with pytest.raises(Retryable, match=r"no whole answer within 0\.2 s"):
        sequencer.request(ME, ["4"])
    sequencer.close()


@pytest.mark.parametrize("for_good", [True, False])
def test_a_held_request_can_be_ended_from_another_thread(server, sequencer, for_good):
    server.script += [HOLD, HOLD if for_good else reply(b"{}")]
    ended = []

    def ask():
        for _ in range(2):
            try:
                sequencer.request(ME, ["4"], wait=60.0)
            except Aborted as error:
                ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert server.reaches(lambda: bool(server.requests))
    sequencer.abort_waits(for_good=for_good)
    thread.join(5)
    assert not thread.is_alive()
    assert len(ended) == 1 + for_good  # the held one, and the next one if no more are to be held


def test_the_held_request_of_one_miner_is_ended_and_no_other(server, sequencer):
    server.script += [HOLD, HOLD]
    ended = []

    def ask(miner_id):
        try:
            sequencer.request(miner_id, ["4"], wait=60.0)
        except Aborted:
            ended.append(miner_id)

    threads = [threading.Thread(target=ask, args=[miner_id]) for miner_id in (ME, f"{ME}-1")]
    for thread in threads:
        thread.start()
    assert server.reaches(lambda: len(server.requests) == 2)
    for miner_id, thread in zip((f"{ME}-1", ME), reversed(threads), strict=True):
        sequencer.end_wait(miner_id)
        thread.join(5)
        assert ended[-1] == miner_id
    assert len(ended) == 2


def test_nothing_of_the_environment_goes_along(server, sequencer, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.script.append(reply(b"{}", "Set-Cookie: a=b"))
    server.script.append(reply(b"{}"))
    sequencer.request(ME, ["4"])
    sequencer.request(ME, ["4"])
    assert len(server.requests) == 2
