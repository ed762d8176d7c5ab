"""`Prefer: wait=N`: a request is held, and let go for the right reasons."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from miner.devnet.options import DevnetOptions
from tests.support.devnet import serve
from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import MINER, NARROW, OTHER, Talk, until

LONG = 60  # seconds; far above a test's time-out, so a hold that ends was ended


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask_long(talk: Talk, miner: str = MINER) -> requests.Response:
    """Ask on a connection of its own, for as long as it takes."""
    body = {"erc20_address": miner, "workflow_ids": ["4"]}
    headers = {"Prefer": f"wait={LONG}"}
    return requests.post(f"{talk.devnet.url}/miner_request", json=body, headers=headers, timeout=LONG)


def hold(threads: ThreadPoolExecutor, talk: Talk, miner: str = MINER) -> Future[requests.Response]:
    """A request that is being held when this returns."""
    before = talk.devnet.stats()["held_requests"]
    held = threads.submit(ask_long, talk, miner)
    until(lambda: talk.devnet.stats()["held_requests"] == before + 1)
    return held


def hold_raw(talk: Talk) -> socket.socket:
    """The same on a bare socket, which can be closed in the middle."""
    host, _, port = talk.devnet.url.removeprefix("http://").partition(":")
    body = json.dumps({"erc20_address": MINER, "workflow_ids": ["4"]})
    sock = socket.create_connection((host, int(port)))
    head = f"POST /miner_request HTTP/1.1\r\nHost: {host}\r\nPrefer: wait={LONG}\r\nContent-Type: application/json\r\n"
    before = talk.devnet.stats()["held_requests"]
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    until(lambda: talk.devnet.stats()["held_requests"] == before + 1)
    return sock


def test_a_task_that_is_created_ends_the_hold(talk: Talk, threads: ThreadPoolExecutor) -> None:
    held = hold(threads, talk)
    task_id = talk.create()
    reply = held.result(5)
    assert reply.json()["task_id"] == task_id
    assert reply.headers["Preference-Applied"] == f"wait={LONG}"


def test_a_task_that_is_there_is_given_at_once(talk: Talk) -> None:
    task_id = talk.create()
    reply = talk.ask(wait=LONG)
    assert (reply.json()["task_id"], reply.headers["Preference-Applied"]) == (task_id, f"wait={LONG}")


def test_the_hold_ends_when_its_time_is_over_which_is_cut_to_the_longest(start: Start) -> None:
    talk = start(**NARROW)
    task_id = talk.create()
    talk.lease()
    begun = time.monotonic()
    reply = talk.ask(wait=LONG)
    assert time.monotonic() - begun >= 0.99
    assert reply.headers["Preference-Applied"] == "wait=1"
    assert (reply.json()["task_id"], "running" in reply.json()["msg"]) == (task_id, True)


def test_a_task_for_others_does_not_end_the_hold(talk: Talk, threads: ThreadPoolExecutor) -> None:
    held = hold(threads, talk)
    talk.create(workflow_id="1")
    assert talk.devnet.stats()["held_requests"] == 1
    assert held.running()
    talk.create()
    assert held.result(5).json()["workflow_id"] == "4"


def test_who_asked_first_gets_the_task(talk: Talk, threads: ThreadPoolExecutor) -> None:
    first, second = hold(threads, talk), hold(threads, talk, OTHER)
    one = talk.create()
    assert first.result(5).json()["task_id"] == one
    assert second.running()
    two = talk.create()
    assert second.result(5).json()["task_id"] == two


def test_at_the_limit_the_hold_ends_with_the_next_task_when_the_lease_is_answered(
    talk: Talk, threads: ThreadPoolExecutor
) -> None:
    talk.create()
    task, waiting = talk.lease(), talk.create()
    held = hold(threads, talk)
    assert talk.fail(task).status_code == 200
    assert held.result(5).json()["task_id"] == waiting


def test_the_hold_ends_when_the_task_in_hand_is_canceled(talk: Talk, threads: ThreadPoolExecutor) -> None:
    task_id = talk.create()
    talk.lease()
    held = hold(threads, talk)
    talk.cancel(task_id)
    assert held.result(5).json() == {"task_id": None, "msg": "no task for these workflows", "canceled": [task_id]}


def test_a_task_that_was_taken_away_between_two_requests_is_told_at_once_and_holds_nothing_up_after(
    talk: Talk, threads: ThreadPoolExecutor
) -> None:
    task_id = talk.create()
    talk.lease()
    talk.cancel(task_id)
    assert ask_long(talk).json()["canceled"] == [task_id]
    held = hold(threads, talk)
    again = talk.create()
    reply = held.result(5).json()
    assert (reply["task_id"], reply["canceled"]) == (again, [task_id]), "a reply may get lost, so it is named again"


def test_the_hold_ends_when_the_task_in_hand_times_out(talk: Talk, threads: ThreadPoolExecutor) -> None:
    task_id = talk.create(timeout_seconds=0.2)
    talk.lease()
    assert threads.submit(ask_long, talk).result(5).json()["canceled"] == [task_id]


def test_a_heartbeat_that_wants_nothing_is_not_held(talk: Talk) -> None:
    reply = talk.ask(ids=[], wait=LONG)
    assert reply.status_code == 200
    assert "Preference-Applied" not in reply.headers


def test_a_client_that_left_holds_nothing_and_gets_nothing(talk: Talk) -> None:
    hold_raw(talk).close()
    until(lambda: talk.devnet.stats()["held_requests"] == 0)
    task_id = talk.create()
    assert talk.query(task_id)["status"] == "waiting"
    assert talk.lease(OTHER)["task_id"] == task_id


def test_a_client_that_left_an_instant_before_the_task_came_gets_no_lease(talk: Talk) -> None:
    for _ in range(10):
        sock = hold_raw(talk)
        sock.close()
        task_id = talk.create()
        assert talk.query(task_id)["status"] == "waiting"
        talk.cancel(task_id)
    assert talk.devnet.stats()["leases"]["open"] == 0


def test_a_held_request_is_let_go_when_the_devnet_stops(threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    with serve(DevnetOptions(state=tmp_path)) as devnet, requests.Session() as session:
        held = hold(threads, Talk(devnet=devnet, session=session, state=tmp_path))
    assert held.result(5).json()["task_id"] is None
