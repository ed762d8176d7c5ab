"""The checks of the sequencer: against a devnet, ports that refuse or hang, and other servers."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from miner.devnet.options import DevnetOptions
from miner.doctor.checks.network import Answer, clock, name_lookup, reachable, resolved, sequencer
from tests.support.devnet import serve
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.testbed import free_port
from tests.unit.doctor.conftest import levels, only

KEY = "someone-k3yofsomeone"


def other_server(status: int, **headers: str) -> ScriptedServer:
    """A web server with one answer to every request."""
    given = {"Content_Type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return ScriptedServer(lambda _: reply(b"", *lines, status=status))


def of(facts_of, url, **rest):
    return list(sequencer(facts_of(sequencer={"url": url, "timeout": 0.5, **rest})))


def test_a_sequencer_that_answers_is_good_and_its_tasks_are_untouched(facts_of, devnet):
    task_id = devnet.create(task_type="upscaler", workflow_id="4", task_details={"parameters": {"image": "x"}})
    marks = of(facts_of, devnet.url, api_key=KEY)
    assert levels(marks) == {"Sequencer": "good", "Clock": "good", "API key": "note"}
    (task,) = [task for task in devnet.tasks() if task["task_id"] == task_id]
    assert task["status"] == "waiting"
    assert not devnet.requests("miner_request")


def test_a_key_that_is_accepted_where_another_is_not_is_good(facts_of):
    with serve(DevnetOptions(api_keys=("k3yofsomeone",))) as strict:
        assert only(of(facts_of, strict.url, api_key=KEY), "API key").level == "good"
        assert only(of(facts_of, strict.url, api_key="k3yofsomeone"), "API key").level == "good"


def test_a_key_that_is_refused_is_bad_and_not_repeated(facts_of):
    with serve(DevnetOptions(api_keys=("another",))) as strict:
        mark = only(of(facts_of, strict.url, api_key=KEY), "API key")
    assert mark.level == "bad"
    assert "401" in mark.says
    assert KEY not in mark.says + mark.cure


def test_without_a_key_it_is_noted(facts_of, devnet):
    assert only(of(facts_of, devnet.url), "API key").level == "note"


def test_a_port_that_refuses_is_bad(facts_of):
    (mark,) = of(facts_of, f"http://127.0.0.1:{free_port()}")
    assert (mark.name, mark.level) == ("Sequencer", "bad")
    assert "connection refused" in mark.says


def test_a_server_that_hangs_is_bad(facts_of):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        (mark,) = of(facts_of, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert mark.level == "bad"
    assert "within 0.5 s" in mark.says


def test_a_server_without_tls_is_bad_with_its_own_cure(facts_of, devnet):
    (mark,) = of(facts_of, devnet.url.replace("http:", "https:"))
    assert mark.level == "bad"
    assert "TLS" in mark.says
    assert "certificates" in mark.cure


@pytest.mark.parametrize(
    ("status", "headers", "level", "words"),
    [
        (503, {}, "warning", "503"),
        (429, {}, "warning", "overloaded"),
        (301, {"Location": "https://elsewhere.example/"}, "bad", "redirect"),
        (404, {"Content_Type": "text/html"}, "bad", "not a sequencer"),
        (404, {}, "good", "answers in"),
    ],
)
def test_a_status_of_the_sequencer_is_a_mark(facts_of, status, headers, level, words):
    with other_server(status, **headers) as server:
        mark = only(of(facts_of, server.url), "Sequencer")
    assert mark.level == level
    assert words in mark.says


@pytest.mark.parametrize(
    ("skew", "level", "words"),
    [
        (0.5, "good", "agrees"),
        (20.0, "good", "20 s ahead"),
        (-20.0, "good", "20 s behind"),
        (70.0, "warning", "ahead"),
        (-70.0, "warning", "behind"),
        (-1000.0, "bad", "refused"),
    ],
)
def test_a_clock_that_is_off_is_reported(skew, level, words):
    mark = clock(Answer(status=200, date=1000.0, at=1000.5 + skew, seconds=0.1))
    assert mark.level == level
    assert words in mark.says


def test_a_real_date_is_compared(facts_of):
    with other_server(200, Date="Sun, 06 Nov 1994 08:49:37 GMT") as server:
        assert only(of(facts_of, server.url), "Clock").level == "bad"
    with other_server(200) as server:  # without a Date
        assert only(of(facts_of, server.url), "Clock").level == "note"


def test_a_slow_answer_is_a_warning():
    assert reachable("host", Answer(status=200, date=None, at=0.0, seconds=3.0)).level == "warning"


@pytest.mark.parametrize(
    ("url", "level"),
    [("http://127.0.0.1:1", "good"), ("http://localhost:1", "good"), ("http://no-such-host.invalid", "bad")],
)
def test_names_are_looked_up(facts_of, url, level):
    (mark,) = name_lookup(facts_of(sequencer={"url": url}))
    assert (mark.name, mark.level) == ("DNS", level)


def test_a_slow_resolver_is_a_warning():
    assert resolved("host", 2, 0.1).level == "good"
    assert resolved("host", 2, 3.0).level == "warning"
