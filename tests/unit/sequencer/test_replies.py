"""A sequencer's reply is data from outside: what is right is typed, what is wrong is refused or answered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.sequencer.replies import Reply, parse_reply
from miner.sequencer.salvage import Salvage
from miner.task.errors import Retryable
from miner.task.stages import PresignedPut, TemporaryS3

TASK = {
    "task_id": "t-1",
    "task_type": "upscaler",
    "workflow_id": "4",
    "task_details": {"parameters": {"image": "https://example.org/a.png"}},
    "upload_url": "https://store.example/out?signature=s",
}
S3 = {"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}


def parse(**changes) -> Reply:
    body = {**TASK, **changes}
    return parse_reply(json.dumps({k: v for k, v in body.items() if v is not ...}).encode(), leased_at=1.0)


class TestATask:
    def test_is_a_lease(self):
        lease = parse(timeout_seconds=60).lease
        assert lease is not None
        assert (lease.task_id, lease.task_type, lease.workflow_id) == ("t-1", "upscaler", "4")
        assert lease.parameters == {"image": "https://example.org/a.png"}
        assert lease.target == PresignedPut(url="https://store.example/out?signature=s")
        assert (lease.timeout_seconds, lease.leased_at, lease.fault) == (60.0, 1.0, "")

    @pytest.mark.parametrize(
        "details",
        [{"parameters": {"prompt": "a"}}, '{"parameters": {"prompt": "a"}}', {"prompt": "a"}, '{"prompt": "a"}'],
    )
    def test_takes_its_details_in_every_form(self, details):
        lease = parse(task_details=details).lease
        assert (lease.parameters, lease.fault) == ({"prompt": "a"}, "")

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"task_details": ...}, "task_details must be an object"),
            ({"task_details": None}, "task_details must be an object"),
            ({"task_details": []}, "task_details must be an object"),
            ({"task_details": "{"}, "not a JSON object"),
            ({"task_details": "[1]"}, "not a JSON object"),
            ({"task_details": {"parameters": []}}, "`parameters`"),
            ({"task_details": {}}, "`parameters`"),
            ({"timeout_seconds": -1}, "timeout_seconds"),
            ({"timeout_seconds": True}, "timeout_seconds"),
            ({"timeout_seconds": "60"}, "timeout_seconds"),
            ({"timeout_seconds": 1e300}, "timeout_seconds"),
            ({"workflow_id": 4}, "workflow_id"),
            ({"task_type": ["upscaler"]}, "task_type"),
            ({"task_type": "x" * 300}, "task_type"),
            ({"upload_headers": "x"}, "upload_headers must be an object"),
            ({"upload_headers": ["x"]}, "upload_headers must be an object"),
            ({"upload_headers": {"x-a": None}}, "upload_headers must have strings"),
            ({"upload_headers": {"x-a": True}}, "upload_headers must have strings"),
            ({"upload_headers": {"x-a": ["1"]}}, "upload_headers must have strings"),
        ],
    )
    def test_with_a_wrong_form_is_a_lease_all_the_same_so_that_it_is_answered(self, changes, fault):
        lease = parse(**changes).lease
        assert lease.task_id == "t-1"
        assert fault in lease.fault

    @pytest.mark.parametrize(
        ("changes", "target"),
        [
            ({"upload_headers": {"x-a": "1"}}, PresignedPut(url=TASK["upload_url"], headers={"x-a": "1"})),
            ({"upload_headers": {"x-a": 1}}, PresignedPut(url=TASK["upload_url"], headers={"x-a": "1"})),
            ({"upload_headers": None}, PresignedPut(url=TASK["upload_url"])),
            ({"upload_url": f" {TASK['upload_url']}\r\n"}, PresignedPut(url=TASK["upload_url"])),
            ({"prefix": "flux-lora"}, PresignedPut(url=TASK["upload_url"], prefix="flux-lora")),
            ({"prefix": "../flux"}, PresignedPut(url=TASK["upload_url"])),
            ({"prefix": 7}, PresignedPut(url=TASK["upload_url"])),
            ({"upload_url": " \n", "credential": S3}, TemporaryS3(**S3)),
            ({"upload_url": ..., "credential": S3}, TemporaryS3(**S3)),
            ({"upload_url": "", "credential": S3}, TemporaryS3(**S3)),
            ({"upload_url": ..., "credential": {**S3, "session_token": ""}}, None),
            ({"upload_url": ..., "credential": {**S3, "session_token": 1}}, None),
            ({"upload_url": ..., "credential": "x"}, None),
            ({"upload_url": 7}, None),
            ({"upload_url": ...}, None),
        ],
    )
    def test_says_where_its_result_goes(self, changes, target):
        assert parse(**changes).lease.target == target

    def test_that_speaks_of_running_is_still_a_task(self):
        assert parse(msg="running low on miners").lease is not None


@pytest.mark.parametrize("body", [{}, {"task_id": None}, {"task_id": ""}, {"msg": "queue is empty"}])
def test_nothing_to_do(body):
    reply = parse_reply(json.dumps(body).encode(), leased_at=1.0)
    assert (reply.lease, reply.running) == (None, None)
    assert reply.msg == body.get("msg", "")


def test_already_running():
    reply = parse_reply(b'{"task_id": "t-9", "msg": "Task is already RUNNING"}', leased_at=1.0)
    assert (reply.lease, reply.running) == (None, "t-9")


def test_canceled_tasks_are_named_in_any_reply():
    reply = parse_reply(b'{"canceled": ["a", 1, null, "b"]}', leased_at=1.0)
    assert reply.canceled == ("a", "b")
    assert parse_reply(b'{"canceled": "a"}', leased_at=1.0).canceled == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"task_id": ["x"]}', "task_id"),
        (b'{"task_id": "\\ud800"}', "task_id"),
        (b'{"task_id": true}', "task_id"),
        (b'{"task_id": 1.5}', "task_id"),
        (b'{"task_id": "' + b"x" * 4097 + b'"}', "task_id"),
    ],
)
def test_what_is_no_reply_is_asked_again(data, reason):
    with pytest.raises(Retryable, match=reason):
        parse_reply(data, leased_at=1.0)


DEEP = b'"task_details": ' + b"[" * 100 + b"]" * 100


@pytest.mark.parametrize(
    ("data", "task_id", "fault"),
    [
        (b'{"task_id": "t", "task_details": {"parameters": {"a": NaN}}}', "t", "the task is not JSON"),
        (b'{"task_details": {"parameters": {"a": -Infinity}}, "task_id": "t"}', "t", "not JSON"),
        (b'{"task_id": "t", "task_details": {"parameters": {"a": 1' + b"0" * 5000 + b"}}}", "t", "not JSON"),
        (b'{"task_id": "t", ' + DEEP + b"}", "t", "the task is nested deeper than 64 levels"),
        (b"{" + DEEP + b', "task_id": "t"}', "t", "nested deeper"),
        (b'{"task_id": "t", "task_details": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "t", "not JSON"),
        (b'{"task_id": "t", "task_details": {"parameters": {"prompt": "\xff"}}}', "t", "not JSON"),
        (b'{"task_id": "t", "task_details": {"parameters": {"prompt": "a\nb"}}}', "t", "not JSON"),
        (b'{"task_id": "t", "task_details": {"parameters": {"prompt": "cut', "t", "not JSON"),
        (b'{"task_id": "t", "task_details": {},}', "t", "not JSON"),
        (b'{"task_id": "a\\nb", "task_details": {}}', "a\nb", "task_id must be a printable string"),
        (b'{"task_id": "\\u202e", "task_details": {}}', "\u202e", "task_id must be a printable string"),
        (b'{"task_id": "' + b"x" * 257 + b'", "task_details": {}}', "x" * 257, "at most 256 characters"),
        (b'{"task_id": "a\\"}{\\u0062", "task_details": {"x": NaN}}', 'a"}{b', "not JSON"),
        (b'{"a": {"task_id": "no"}, "b": ["task_id", "no"], "task_id": "t", "task_details": NaN}', "t", "not JSON"),
    ],
)
def test_a_broken_task_whose_id_can_be_read_is_answered_with_the_reason(data, task_id, fault):
    lease = parse_reply(data, leased_at=1.0).lease
    assert lease.task_id == task_id
    assert fault in lease.fault
    for at in range(1, min(len(data), 200), 7):  # wherever the bytes are cut on their way
        salvage = Salvage()
        salvage.feed(data[:at])
        salvage.feed(data[at:])
        assert salvage.task_id in ("", task_id)


@pytest.mark.parametrize(
    "data",
    [
        b'{"task_id": "t", "msg": "running", "a": NaN}',  # not a task: a remark about one
        b'{"task_id": "t',
        b'[{"task_id": "t", "task_details": NaN}]',
        b'<html>{"task_id": "t", "task_details": NaN}',
        b'{"a": {"task_id": "t", "task_details": NaN}}',
        b'{"task_id": "\\ud800", "task_details": NaN}',
    ],
)
def test_what_only_looks_like_a_task_is_asked_again(data):
    with pytest.raises(Retryable):
        parse_reply(data, leased_at=1.0)


@pytest.mark.parametrize("number", [7, 0, -1, 10**200])
def test_an_id_that_is_a_number_is_answered_in_digits(number):
    lease = parse(task_id=number).lease
    assert (lease.task_id, lease.fault) == (str(number), "")


def test_of_a_name_that_comes_twice_the_last_counts():
    assert parse_reply(b'{"task_id": "a", "task_id": "b", "task_details": {}}', leased_at=1.0).lease.task_id == "b"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from([*TASK, "timeout_seconds", "msg", "canceled", "credential", "upload_headers"])


@given(st.dictionaries(FIELDS, JSON))
def test_any_json_at_all_is_a_reply_or_a_refusal(body):
    try:
        reply = parse_reply(json.dumps(body).encode(), leased_at=1.0)
    except Retryable:
        return
    assert isinstance(reply, Reply)


@given(st.binary())
def test_any_bytes_at_all_are_a_reply_or_a_refusal(data):
    try:
        parse_reply(data, leased_at=1.0)
    except Retryable:
        return
