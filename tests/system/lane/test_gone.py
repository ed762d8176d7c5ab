"""An external ComfyUI that goes while the miner is idle: noticed within seconds, and nothing is leased for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.support import flows
from tests.support.relay import Relay
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.testbed import Testbed, free_port, until

SOON = 20.0  # seconds; the miner looks every 3, and waits 5 for an answer


@contextmanager
def killed(testbed: Testbed, _: Relay) -> Iterator[None]:
    testbed.engine.kill()
    yield
    testbed.engine.start().first_line()


@contextmanager
def hung(testbed: Testbed, _: Relay) -> Iterator[None]:
    testbed.engine.send(signal.SIGSTOP)
    yield
    testbed.engine.send(signal.SIGCONT)


@contextmanager
def silent(_: Testbed, relay: Relay) -> Iterator[None]:
    """Its connections stay open, as those of a host that was switched off."""
    holds = [relay.hold("GET /") for _ in range(20)]
    yield
    for hold in holds:
        hold.release()


@contextmanager
def replaced(testbed: Testbed, _: Relay, page: bytes = b"<html></html>") -> Iterator[None]:
    """Another program has its port."""
    testbed.engine.kill()
    with ScriptedServer(lambda _: reply(page), port=urlsplit(testbed.engine_url).port):
        yield
    testbed.engine.start().first_line()


@contextmanager
def replaced_by_json(testbed: Testbed, relay: Relay) -> Iterator[None]:
    with replaced(testbed, relay, b"{}"):
        yield


@contextmanager
def failing(_: Testbed, relay: Relay) -> Iterator[None]:
    """Its proxy answers, and it does not."""
    relay.reply("GET /", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    yield
    relay.pass_on()


@pytest.mark.parametrize("goes", [killed, hung, silent, replaced, replaced_by_json, failing])
def test_nothing_is_leased_for_a_comfyui_that_has_gone(testbed: Testbed, goes: Callable[..., Iterator[None]]) -> None:
    """Not even by a request that the sequencer holds meanwhile."""
    testbed.start_devnet()
    relay = testbed.relay(testbed.start_engine(port=free_port()))
    testbed.start_worker(relay.url, sequencer__wait=60.0)
    testbed.ended(testbed.create())
    before = len(testbed.logged("not_leasing"))
    with goes(testbed, relay):
        until(lambda: testbed.logged("comfyui_gone"), why="the notice", patience=SOON)
        until(lambda: len(testbed.logged("not_leasing")) > before, why="the end of the held request", patience=SOON)
        task_id = testbed.create()
        asked = len(testbed.devnet.requests("miner_request"))
        assert not testbed.logged("lease_request_failed")
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished", task["msg"]
    requests = testbed.devnet.requests("miner_request")
    assert len(requests) > asked
    assert len(testbed.logged("comfyui_ready")) == 2


def test_a_websocket_that_breaks_off_is_no_reason_to_stop_leasing(testbed: Testbed) -> None:
    testbed.start_devnet()
    relay = testbed.relay(testbed.start_engine())
    testbed.start_worker(relay.url)
    testbed.ended(testbed.create())
    asked = relay.seen.count(b"GET /queue HTTP/1.1")
    assert relay.cut("GET /ws")
    until(lambda: relay.seen.count(b"GET /queue HTTP/1.1") > asked, why="a look at the queue")
    until(lambda: sum(line.startswith(b"GET /ws") for line in relay.seen) >= 2, why="another connection")
    testbed.ended(testbed.create())
    assert len(testbed.logged("comfyui_ready")) == 1


def test_a_lease_in_hand_fails_long_before_its_deadline(testbed: Testbed) -> None:
    """After a third of what is left to it, which is time for a restart."""
    testbed.start_devnet()
    testbed.add_workflow("gated", flows.wait(3600.0, until="gate"), timeout=65.0)
    testbed.start_worker(testbed.start_engine(), workflows={"4": ["gated"]})
    task_id = testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_running"], why="the render")
    testbed.engine.kill()
    (task,) = testbed.ended(task_id, patience=45.0)
    assert (task["status"], task["msg"]) == (
        "failed",
        "this miner's renderer is away; please create the task again",
    )
