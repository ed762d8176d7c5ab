"""Requests that no page of ours makes: the dashboard refuses each in words, and goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.support.testbed import Testbed, free_port, until

REBOUND = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost:1@evil", "[::1", "a" * 60_000)
ORIGINS = ("http://evil.example", "null", "http://[", "http://127.0.0.1.evil.example", "file://")
PATHS = (
    *("/..%2f..%2fetc/passwd", "/static/../app.py", "//etc/passwd", "/%00", "/" + "a" * 8000),
    *("/api/thumbnail?miner=' OR 1=1--&task=x", "/api/thumbnail?miner=%ed%a0%80&task=%00", "/api/history?outcome=x"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, str]]:
    """A worker with a dashboard, and its address."""
    with Testbed(tmp_path_factory.mktemp("dashboard")) as testbed:
        testbed.start_devnet()
        port = free_port()
        testbed.start_worker(testbed.start_engine(), status__enabled=True, status__port=port)
        until(lambda: testbed.logged("dashboard"), why="the dashboard")
        yield testbed, f"http://127.0.0.1:{port}"
        assert testbed.worker.stop() == 0


@pytest.mark.parametrize("host", REBOUND, ids=lambda host: host[:30])
def test_a_name_that_was_bound_to_this_machine_is_refused(served: tuple[Testbed, str], host: str) -> None:
    assert requests.get(f"{served[1]}/api/now", headers={"Host": host}, timeout=10).status_code == 403


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_sites_page_is_refused(served: tuple[Testbed, str], origin: str) -> None:
    for method, path in (("GET", "/api/now"), ("POST", "/api/drain")):
        headers = {"Origin": origin, "x-xalora-action": "1"}
        assert requests.request(method, served[1] + path, headers=headers, timeout=10).status_code == 403


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_a_path_that_is_none_leads_nowhere(served: tuple[Testbed, str], path: str) -> None:
    assert requests.get(served[1] + path, timeout=10).status_code in (400, 404)


def test_a_form_of_another_site_ends_nothing(served: tuple[Testbed, str]) -> None:
    testbed, url = served
    for action in ("pause", "drain", "resume"):
        assert requests.post(f"{url}/api/{action}", data={"a": "b"}, timeout=10).status_code == 403
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"


def test_connections_that_say_nothing_do_not_keep_a_probe_from_its_answer(served: tuple[Testbed, str]) -> None:
    url = served[1]
    place = ("127.0.0.1", int(url.rpartition(":")[2]))
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(place)).sendall(b"GET /api/now HTTP/1.1\r\n")
        until(lambda: requests.get(f"{url}/healthz", timeout=10).status_code == 200, why="health", patience=20.0)
