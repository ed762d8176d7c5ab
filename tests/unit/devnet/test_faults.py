"""Faults on demand, seen from the sockets."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from miner.devnet.options import DevnetOptions
from tests.support.devnet import serve
from tests.support.devnet.faults import Faults, Rule
from tests.support.devnet.routes import ROUTES, route_of
from tests.unit.devnet.talk import DEADLINE, MINER, Talk, key_of, success, until

ASKING = {"erc20_address": MINER, "workflow_ids": ["4"]}


def connect(talk: Talk) -> socket.socket:
    parts = urlsplit(talk.devnet.url)
    return socket.create_connection((str(parts.hostname), parts.port or 0), timeout=DEADLINE)


def raw(talk: Talk, method: str, path: str, body: bytes) -> socket.socket:
    """Send a request on a bare socket."""
    sock = connect(talk)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def raw_call(talk: Talk, call: str, body: object) -> socket.socket:
    return raw(talk, "POST", f"/{call}", json.dumps(body).encode())


def all_of(sock: socket.socket) -> bytes:
    """Everything until the other side's orderly end; a reset raises ConnectionResetError."""
    with sock:
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    return data


def leased(talk: Talk) -> dict[str, Any]:
    talk.create()
    return talk.lease()


def test_fail_replies_with_status_and_headers_and_does_not_act(talk: Talk) -> None:
    talk.create()
    talk.devnet.fault("fail", "miner_request", status=429, headers={"Retry-After": "7"}, times=1)
    reply = talk.ask()
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")
    assert reply.json()["message"]
    assert talk.devnet.stats()["tasks"] == {"waiting": 1}
    assert talk.lease()
    assert talk.violations() == [], "a fault is no violation"


def test_reset_is_a_real_tcp_reset(talk: Talk) -> None:
    talk.devnet.fault("reset", "miner_request")
    with pytest.raises(ConnectionResetError):
        all_of(raw_call(talk, "miner_request", ASKING))


def test_drop_reply_acts_and_then_ends_in_order_without_a_byte(talk: Talk) -> None:
    task_id = talk.create()
    talk.devnet.fault("drop_reply", "miner_request", times=1)
    assert all_of(raw_call(talk, "miner_request", ASKING)) == b""
    assert talk.query(task_id)["status"] == "running"
    assert "running" in talk.ask().json()["msg"]


def test_a_lost_acknowledgement_makes_the_next_submission_a_repeat(talk: Talk) -> None:
    task = leased(talk)
    answer = success(task["task_id"], success=False, result="", msg="it cannot be done")
    talk.devnet.fault("drop_reply", "miner_submit")
    assert all_of(raw_call(talk, "miner_submit", answer)) == b""
    talk.devnet.clear_faults()
    assert talk.fail(task).status_code == 200
    assert talk.devnet.stats()["answers"] == {"first": 1, "repeat": 1}


@pytest.mark.parametrize("action", ["fail", "garbage", "reset"])
def test_an_act_can_come_before_other_faults_too(talk: Talk, action: str) -> None:
    task_id = talk.create()
    talk.devnet.fault(action, "miner_request", act=True)
    try:
        all_of_reply = talk.ask().status_code
    except requests.ConnectionError:
        all_of_reply = 0
    assert all_of_reply == {"fail": 500, "garbage": 200, "reset": 0}[action]
    assert talk.query(task_id)["status"] == "running"


def test_garbage_is_a_200_that_is_not_json(talk: Talk) -> None:
    talk.devnet.fault("garbage", "miner_request")
    reply = talk.ask()
    assert (reply.status_code, reply.text[:6]) == (200, "<html>")


def test_latency_comes_before_the_call_is_carried_out(talk: Talk) -> None:
    talk.create()
    talk.devnet.fault("latency", "miner_request", seconds=0.2)
    begun = time.monotonic()
    assert talk.ask().json()["task_id"]
    assert time.monotonic() - begun >= 0.2


def test_hang_never_replies(talk: Talk) -> None:
    talk.create()
    talk.devnet.fault("hang", "miner_request")
    sock = raw_call(talk, "miner_request", ASKING)
    sock.settimeout(0.2)
    with sock, pytest.raises(TimeoutError):
        sock.recv(1)
    assert talk.devnet.stats()["tasks"] == {"waiting": 1}
    until(lambda: [seen["fault"] for seen in talk.devnet.requests("miner_request")] == ["hang"])


def test_hang_may_end_without_a_reply(talk: Talk) -> None:
    talk.devnet.fault("hang", "miner_request", seconds=0.05)
    assert all_of(raw_call(talk, "miner_request", ASKING)) == b""


def test_truncate_ends_in_the_middle_of_the_body(talk: Talk) -> None:
    talk.create()
    talk.devnet.fault("truncate", "miner_request")
    head, _, body = all_of(raw_call(talk, "miner_request", ASKING)).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    assert body.startswith(b'{"task_id"')
    assert len(body) == length // 2


def test_truncate_cuts_an_input_after_so_many_bytes(talk: Talk) -> None:
    url = talk.session.put(f"{talk.devnet.url}/inputs/a", data=b"x" * 1000, timeout=5).json()["url"]
    talk.devnet.fault("truncate", "input_get", bytes=300)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="300 bytes read"):
        talk.session.get(url, timeout=5)


@pytest.mark.parametrize("rule", [{}, {"bytes": 0}, {"bytes": 100_000}])
def test_cut_resets_in_the_middle_of_an_upload_and_nothing_is_stored(talk: Talk, rule: dict[str, int]) -> None:
    task = leased(talk)
    talk.devnet.fault("cut", "store_put", times=1, **rule)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        all_of(raw(talk, "PUT", task["upload_url"].removeprefix(talk.devnet.url), b"x" * 1_000_000))
    assert talk.devnet.stats()["store"]["objects"] == 0
    assert talk.upload(task) == key_of(task)


@pytest.mark.parametrize("rule", [{}, {"bytes": 100_000}])
def test_an_upload_that_hangs_is_not_read_on(talk: Talk, rule: dict[str, int]) -> None:
    task = leased(talk)
    talk.devnet.fault("hang", "store_put", **rule)
    path, size = task["upload_url"].removeprefix(talk.devnet.url), 30_000_000
    with connect(talk) as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.sendall(
                f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
            )


def test_an_upload_whose_reply_is_lost_is_stored(talk: Talk) -> None:
    task = leased(talk)
    talk.devnet.fault("drop_reply", "store_put", "s3_put", times=1)
    with pytest.raises(requests.ConnectionError):
        talk.upload(task)
    assert talk.answer(task, result=key_of(task)).status_code == 200


def test_a_rule_without_routes_is_for_all_but_control(talk: Talk) -> None:
    talk.devnet.fault("fail")
    assert talk.ask().status_code == 500
    assert talk.session.put(f"{talk.devnet.url}/inputs/a", data=b"x", timeout=5).status_code == 500
    assert talk.devnet.stats()["faults"][0]["hits"] == 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"action": "explode"}, "action"),
        ({"action": "fail", "routes": ["miner_reqest"]}, "unknown route miner_reqest"),
        ({"action": "fail", "routes": []}, "routes"),
        ({"action": "latency"}, "needs seconds"),
        ({"action": "cut", "act": True}, "does not act first"),
        ({"action": "fail", "status": 200}, "status"),
        ({"action": "fail", "chance": 1}, "chance"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(talk: Talk, rule: dict[str, Any], reason: str) -> None:
    reply = talk.post("_devnet/faults", {"rules": [rule]})
    assert (reply.status_code, reason in reply.json()["message"]) == (400, True)


def test_what_hangs_is_let_go_when_the_devnet_stops(tmp_path: Path) -> None:
    with serve(DevnetOptions(state=tmp_path)) as devnet, requests.Session() as session:
        devnet.fault("hang")
        sock = raw_call(Talk(devnet=devnet, session=session, state=tmp_path), "miner_request", ASKING)
    assert all_of(sock) == b""


def test_a_rule_that_is_spent_leaves_the_route_alone() -> None:
    faults = Faults()
    faults.add([Rule(action="reset", times=2)])
    assert [faults.take("miner_request") is not None for _ in range(3)] == [True, True, False]
    assert [rule["hits"] for rule in faults.listed()] == [2]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/miner_request", "miner_request"),
        ("PUT", "/store/results/a/b", "store_put"),
        ("PUT", "/results/a", "s3_put"),
        ("POST", "/results/a", "s3_post"),
        ("GET", "/inputs/a/b", "input_get"),
        ("GET", "/_devnet/stats", "control"),
        ("PATCH", "/store/results/a", "unknown"),
        ("POST", "/miner_request/more", "unknown"),
        ("GET", "/", "unknown"),
    ],
)
def test_every_request_has_one_route(method: str, path: str, name: str) -> None:
    assert route_of(method, path) == name
    assert name in (*ROUTES, "control", "unknown")
