"""Each fault on demand really injects, seen from the sockets: campaigns lean on it."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.unit.devnet.talk import DEADLINE, MINER, Talk, key_of, until

ASKING = json.dumps({"erc20_address": MINER, "workflow_ids": ["4"]}).encode()


def raw(talk: Talk, method: str = "POST", path: str = "/miner_request", body: bytes = ASKING) -> socket.socket:
    """Send a request on a bare socket."""
    parts = urlsplit(talk.devnet.url)
    sock = socket.create_connection((str(parts.hostname), parts.port or 0), timeout=DEADLINE)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def all_of(sock: socket.socket) -> bytes:
    """Everything until the other side's orderly end; a reset raises ConnectionResetError."""
    with sock:
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    return data


@pytest.mark.parametrize("act", [False, True])
@pytest.mark.parametrize(("action", "status"), [("fail", 500), ("garbage", 200), ("reset", 0)])
def test_a_spoiled_reply_comes_instead_of_the_act_or_after_it(talk: Talk, action: str, status: int, act: bool) -> None:
    task_id = talk.create()
    talk.devnet.fault(action, "miner_request", act=act, times=1)
    try:
        reply = talk.ask()
        assert reply.status_code == status
        assert reply.text.startswith("<html>") == (action == "garbage")
    except requests.ConnectionError:
        assert status == 0
    assert talk.query(task_id)["status"] == ("running" if act else "waiting")
    assert talk.ask().json()["task_id"] == task_id, "the rule is spent"
    assert talk.violations() == [], "a fault is no violation"


def test_reset_is_a_real_tcp_reset(talk: Talk) -> None:
    talk.devnet.fault("reset", "miner_request")
    with pytest.raises(ConnectionResetError):
        all_of(raw(talk))


def test_fail_has_the_status_and_headers_that_were_asked_for(talk: Talk) -> None:
    talk.devnet.fault("fail", status=429, headers={"Retry-After": "7"})
    reply = talk.ask()
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")


def test_drop_reply_and_truncate_act_and_then_end_in_order(talk: Talk) -> None:
    task_id = talk.create()
    talk.devnet.fault("drop_reply", "miner_request", times=1)
    assert all_of(raw(talk)) == b""
    assert talk.query(task_id)["status"] == "running"
    talk.devnet.fault("truncate", "miner_request")
    head, _, body = all_of(raw(talk)).partition(b"\r\n\r\n")
    assert body.startswith(b'{"task_id"')
    assert len(body) == int(head.lower().partition(b"content-length:")[2].split()[0]) // 2


def test_latency_comes_before_the_call_is_carried_out(talk: Talk) -> None:
    talk.create()
    talk.devnet.fault("latency", "miner_request", seconds=0.2)
    begun = time.monotonic()
    assert talk.ask().json()["task_id"]
    assert time.monotonic() - begun >= 0.2


def test_hang_never_replies_or_ends_after_its_seconds(talk: Talk) -> None:
    task_id = talk.create()
    talk.devnet.fault("hang", "miner_request", seconds=0.05, times=1)
    assert all_of(raw(talk)) == b""
    talk.devnet.fault("hang", "miner_request")
    sock = raw(talk)
    sock.settimeout(0.2)
    with sock, pytest.raises(TimeoutError):
        sock.recv(1)
    assert talk.query(task_id)["status"] == "waiting"
    until(lambda: [seen["fault"] for seen in talk.devnet.requests("miner_request")] == ["hang", "hang"])


@pytest.mark.parametrize("rule", [{}, {"bytes": 0}, {"bytes": 100_000}])
def test_cut_resets_in_the_middle_of_an_upload_and_nothing_is_stored(talk: Talk, rule: dict[str, Any]) -> None:
    talk.create()
    task = talk.lease()
    talk.devnet.fault("cut", "store_put", times=1, **rule)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        all_of(raw(talk, "PUT", task["upload_url"].removeprefix(talk.devnet.url), b"x" * 1_000_000))
    assert talk.devnet.stats()["store"]["objects"] == 0
    assert talk.upload(task) == key_of(task)
