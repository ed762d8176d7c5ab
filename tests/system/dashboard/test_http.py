"""The server over HTTP: who may do what, what probes see, and the stream."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
import requests

from miner.dashboard.bind import listen
from tests.support.dashboard_testbed import DashboardTestbed, events, first
from tests.support.testbed import MINER_ID, Testbed, until

TOKEN = "a-long-random-word"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


def test_probes_say_why(testbed):
    for path in ("/healthz", "/readyz"):
        reply = testbed.get(path)
        body = reply.json()
        assert (reply.status_code, body["ok"], body["reasons"]) == (200, True, [])
        assert {"name": "Lane 0", "level": "good", "says": "all loops are alive", "cure": ""} in body["checks"]


def test_a_paused_miner_is_ready_and_a_draining_one_is_not_asked_for_more(testbed):
    testbed.press("pause")
    assert testbed.get("/readyz").ok
    marks = {mark["name"]: mark for mark in testbed.get("/api/health").json()}
    assert (marks["Leasing"]["level"], marks["Leasing"]["cure"]) == ("note", "xalora-miner resume")
    assert testbed.press("resume").json()["state"] == "working"


@pytest.mark.parametrize(
    "host",
    ["miner.example.org", "127.0.0.1.evil.example:8199", "127.0.0.1.nip.io", "[::1", "localhost:1@evil",
     "a" * 60_000],
    ids=lambda host: host[:30],
)  # fmt: skip
def test_a_name_that_was_bound_to_this_machine_reaches_nothing(testbed, host):
    for path in ("/", "/api/now", "/api/events", "/metrics"):
        reply = testbed.get(path, headers={"Host": host})
        assert reply.status_code == 403
        assert "Host" in reply.json()["message"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "http://127.0.0.1.evil.example", "file://"],
)
def test_a_page_of_another_site_reaches_nothing(testbed, origin):
    for path in ("/", "/api/now", "/api/events", "/metrics"):
        reply = testbed.get(path, headers={"Origin": origin})
        assert reply.status_code == 403
        assert "cross-site" in reply.json()["message"]
    assert testbed.press("drain", Origin=origin).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc/passwd", "/static/../app.py", "//etc/passwd", "/%00", "/" + "a" * 8000,
     "/api/thumbnail?miner=' OR 1=1--&task=x", "/api/thumbnail?miner=%ed%a0%80&task=%00"],
    ids=lambda path: path[:40],
)  # fmt: skip
def test_a_path_that_is_not_served_leads_nowhere(testbed, path):
    assert testbed.get(path).status_code in (400, 404)


def test_previews_are_drawn_for_prompts_that_start_while_a_page_is_open(tmp_path):
    """Among them one that was in ComfyUI's queue before."""
    with DashboardTestbed(tmp_path, leases=2) as testbed:

        def stages():
            return {task["task_id"]: task["stage"] for task in testbed.now()["lanes"][0]["tasks"]}

        testbed.ended(testbed.quick())  # from then on, another may be leased ahead
        runs, waits = (testbed.slow(60.0, gate=gate, previews=4.0) for gate in ("unseen", "seen"))
        until(lambda: stages() == {runs: "render", waits: "queue"}, why="one that waits behind one that runs")
        with testbed.get("/api/events", stream=True) as reply:
            stream = events(reply)
            steps = {first(stream, "now")["lanes"][0]["tasks"][0]["step"] for _ in range(5)}
            assert len(steps) > 1  # it goes on, and each step has a preview where they are drawn
            testbed.open("unseen")
            seen = itertools.takewhile(lambda event: event[0] != "preview" or not event[1]["src"], stream)
            told = [data["lanes"][0]["tasks"] for name, data in seen if name == "now"]
            assert [task["task_id"] for task in told[-1] if task["stage"] == "render"] == [waits]
            testbed.open("seen")
        assert testbed.ended(runs, waits)


def test_connections_that_say_nothing_do_not_keep_a_probe_from_its_answer(testbed):
    with ExitStack() as stack:
        for _ in range(200):
            place = ("127.0.0.1", testbed.port)
            stack.enter_context(socket.create_connection(place)).sendall(b"GET /api/now HTTP/1.1\r\n")
        until(lambda: testbed.get("/healthz").ok, why="health", patience=20.0)


def test_a_button_needs_our_own_page_or_our_own_command(testbed):
    url = f"{testbed.url}/api/pause"
    assert requests.post(url, timeout=10).status_code == 403
    assert requests.post(url, data={"x": 1}, headers={"Sec-Fetch-Site": "cross-site"}, timeout=10).status_code == 403
    assert testbed.press("pause", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert testbed.press("pause", Origin="https://evil.example").status_code == 403
    assert testbed.get("/api/pause").status_code == 405
    assert testbed.now()["state"] == "working"
    assert testbed.press("pause", Origin=testbed.url, **{"Sec-Fetch-Site": "same-origin"}).json()["state"] == "paused"
    assert testbed.press("resume").json()["state"] == "working"


def test_every_reply_forbids_what_the_page_does_not_need(testbed):
    for path in ("/", "/app.js", "/api/now", "/nowhere"):
        headers = testbed.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert testbed.get("/api/now").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("query", ["outcome=best", "before=yesterday", "outcome=done%27--"])
def test_a_wrong_question_is_answered_with_the_reason(testbed, query):
    reply = testbed.get(f"/api/history?{query}")
    assert reply.status_code == 400
    assert reply.json()["message"]


def test_history_goes_on_where_a_page_ended(testbed):
    ended = {testbed.quick() for _ in range(3)}
    until(lambda: ended <= {task["task_id"] for task in testbed.history()}, why="the end of three tasks")
    newest = testbed.history()
    older = testbed.history(before=newest[1]["ended_at"])
    assert older[0] == newest[2]
    assert set(newest[0]) == {
        "task_id", "miner_id", "task_type", "workflow", "outcome", "reason",
        "ended_at", "seconds", "size", "pixels", "pictured",
    }  # fmt: skip


def test_the_stream_tells_a_newcomer_everything_and_then_what_changes(testbed):
    with testbed.get("/api/events", stream=True) as reply, testbed.get("/api/events", stream=True) as other:
        stream = events(reply)
        missing = {"now", "past", "workflows", "health", "cards", "preview"}
        while missing:  # a miner that has just started says "now" more than once meanwhile
            missing.discard(next(stream)[0])
        task_id = testbed.slow(60.0, gate="stream", previews=2.0)
        shown = first(stream, "now", lambda now: [t for t in now["lanes"][0]["tasks"] if t["share"]])
        assert shown["lanes"][0]["tasks"][0]["task_id"] == task_id
        assert first(stream, "preview", lambda preview: preview["src"])["src"].startswith("data:image/jpeg;base64,")
        testbed.open("stream")

        def is_drawn(past):  # its thumbnail comes after its end
            return [t for t in past["latest"] if (t["task_id"], t["pixels"]) == (task_id, [64, 64])]

        assert first(stream, "past", is_drawn)
        assert first(events(other), "past", is_drawn)


def test_a_reply_does_not_wait_for_an_acknowledgement():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- beyond loopback --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_testbed(tmp_path_factory, testbed):
    """A second miner, which listens for others too."""
    keys = {"miner__id": MINER_ID + "-open", "status__host": "0.0.0.0", "status__token": TOKEN}
    with DashboardTestbed(tmp_path_factory.mktemp("open"), beside=testbed, **keys) as other:
        assert other.press("pause", **SHOWN).ok  # devnet gives our tasks to whoever asks
        yield other


def test_beyond_loopback_everything_but_the_probes_needs_the_token(open_testbed):
    for path in ("/", "/app.js", "/api/now", "/api/events", "/metrics", "/api/thumbnail?task=x"):
        assert open_testbed.get(path).status_code == 401, path
        assert open_testbed.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401, path
    assert open_testbed.press("drain").status_code == 401
    assert open_testbed.get("/healthz").ok
    right = {**SHOWN, "Host": "gpu-box.lan:8199"}
    assert open_testbed.get("/api/now", headers=right).json()["state"] == "paused"
    assert "xalora_build_info" in open_testbed.get("/metrics", headers=right).text


def test_a_browser_signs_in_once(open_testbed, open_page):
    page = open_page(open_testbed.url)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/sign-in#wrong")
    page.get_by_text("Wrong token").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#state", has_text="Paused").wait_for()
    (cookie,) = page.context.cookies()
    assert TOKEN not in cookie["value"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


def test_without_a_token_it_does_not_start_beyond_loopback(tmp_path):
    environ = {**os.environ, "XALORA_STATUS_HOST": "0.0.0.0", "XALORA_MINER_ID": MINER_ID}
    command = [sys.executable, "-m", "miner", "run", "--state-dir", str(tmp_path)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert "XALORA_STATUS_TOKEN" in ended.stderr


def test_a_port_that_is_taken_costs_the_page_and_nothing_else(testbed, tmp_path):
    with Testbed(tmp_path) as other:
        other.devnet = testbed.devnet
        other.start_worker(
            testbed.engine_url,
            workflows={"taken": ["upscaler-lanczos"]},
            miner__id=MINER_ID + "-taken",
            status__enabled=True,
            status__port=testbed.port,
        )
        (line,) = until(lambda: other.logged("dashboard_not_served"), why="the complaint")
        assert (line["next"], str(testbed.port) in line["reason"]) == (
            "mining without it; trying again in a minute",
            True,
        )
        details = {"parameters": {"image": other.picture()}}
        (task,) = other.ended(other.devnet.create(task_type="upscaler", workflow_id="taken", task_details=details))
        assert task["status"] == "finished", task["msg"]
        assert other.worker.stop() == 0
