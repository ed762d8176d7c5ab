"""A wrong call is refused with the reason, and counted: a wrong worker fails against devnet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.devnet.talk import MINER, OTHER, Talk, creation, success

BAD_MINER_IDS = ["", "0x12", "a1" * 20, "0x" + "g" * 40, f"{MINER}-", f"{MINER}-a b", f"{MINER}-ü", f"{MINER}\n"]


def asking(**fields: Any) -> dict[str, Any]:
    return {"erc20_address": MINER, "workflow_ids": ["4"]} | fields


WRONG: list[tuple[str, str, object, str]] = [
    # call, what is wrong, body, a word of the reason
    ("miner_request", "no address", {"workflow_ids": []}, "erc20_address"),
    ("miner_request", "no workflows", {"erc20_address": MINER}, "workflow_ids"),
    ("miner_request", "workflows null", asking(workflow_ids=None), "workflow_ids"),
    ("miner_request", "workflows a string", asking(workflow_ids="4"), "workflow_ids"),
    ("miner_request", "a workflow a number", asking(workflow_ids=[4]), "workflow_ids.0"),
    ("miner_request", "another miner_id", asking(miner_id=OTHER), "miner_id"),
    ("miner_request", "version a number", asking(version=1), "version"),
    ("miner_request", "hardware a list", asking(hardware=["H100"]), "hardware"),
    ("miner_request", "an array", [], "object"),
    *(("miner_request", f"address {bad!r}", asking(erc20_address=bad), "erc20_address") for bad in BAD_MINER_IDS),
    *(
        ("miner_submit", f"no {field}", {k: v for k, v in success("x").items() if k != field}, field)
        for field in success("x")
    ),
    *(("miner_submit", f"{field} null", success("x", **{field: None}), field) for field in success("x")),
    ("miner_submit", "success a number", success("x", success=1), "success"),
    ("miner_submit", "success a string", success("x", success="true"), "success"),
    ("miner_submit", "latency a string", success("x", inference_latency="1.5"), "inference_latency"),
    ("miner_submit", "latency a bool", success("x", upload_latency=True), "upload_latency"),
    ("miner_submit", "latency below 0", success("x", upload_latency=-0.1), "upload_latency"),
    ("miner_submit", "latency infinite", success("x", upload_latency=float("inf")), "upload_latency"),
    ("miner_submit", "latency no number", success("x", inference_latency=float("nan")), "inference_latency"),
    ("miner_submit", "task a number", success("x", task_id=7), "task_id"),
    ("miner_submit", "result a list", success("x", result=["a"]), "result"),
    ("miner_submit", "success without a result", success("x", result=""), "result is empty"),
    ("miner_submit", "success with a msg", success("x", msg="done"), "msg must be empty"),
    ("miner_submit", "failure with a result", success("x", success=False, msg="no"), "result must be empty"),
    ("miner_submit", "failure without a reason", success("x", success=False, result=""), "msg is empty"),
    ("miner_submit", "failure, blank reason", success("x", success=False, result="", msg=" "), "msg is empty"),
    ("miner_submit", "reason of two lines", success("x", success=False, result="", msg="a\nb"), "one line"),
    ("task_create", "no details", {k: v for k, v in creation().items() if k != "task_details"}, "task_details"),
    ("task_create", "details a string", creation(task_details="{}"), "task_details"),
    ("task_create", "no parameters", creation(task_details={}), "parameters"),
    ("task_create", "parameters a list", creation(task_details={"parameters": []}), "parameters"),
    ("task_create", "infinite parameter", creation(task_details={"parameters": {"w": float("inf")}}), "finite"),
    ("task_create", "job_id without digits", creation(job_id="sdk-workflow"), "job_id"),
    ("task_create", "job_id without a prefix", creation(job_id="-0123456789"), "job_id"),
    ("task_create", "no consumer", creation(consumer_id=""), "consumer_id"),
    ("task_create", "no key", creation(api_key=""), "api_key"),
    ("task_create", "time-out 0", creation(timeout_seconds=0), "timeout_seconds"),
    ("task_create", "time-out true", creation(timeout_seconds=True), "timeout_seconds"),
    ("task_create", "workflow a number", creation(workflow_id=4), "workflow_id"),
    ("task_result_query", "no key", {"task_id": "x"}, "api_key"),
    ("task_cancel", "task null", {"task_id": None, "api_key": "key"}, "task_id"),
    ("resource_request", "no consumer", {"api_key": "key"}, "consumer_id"),
]


@pytest.mark.parametrize(
    ("call", "body", "reason"), [(c, b, r) for c, _, b, r in WRONG], ids=[f"{c}: {w}" for c, w, *_ in WRONG]
)
def test_a_wrong_body_is_refused_with_the_reason_and_counted(talk: Talk, call: str, body: object, reason: str) -> None:
    reply = talk.post(call, body)

    assert reply.status_code == 400
    assert reason in reply.json()["message"]
    (violation,) = talk.devnet.stats()["violation_list"]
    assert (violation["route"], violation["status"], violation["reason"]) == (call, 400, reply.json()["message"])


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"erc20_address": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(talk: Talk, body: bytes) -> None:
    url, headers = f"{talk.devnet.url}/miner_request", {"Content-Type": "application/json"}
    assert talk.session.post(url, data=body, headers=headers, timeout=5).status_code == 400


def test_a_body_of_another_type_is_refused(talk: Talk) -> None:
    reply = talk.session.post(f"{talk.devnet.url}/miner_request", data=json.dumps(asking()), timeout=5)
    assert (reply.status_code, "content type" in reply.json()["message"]) == (415, True)


def test_a_body_that_is_too_long_is_refused(talk: Talk) -> None:
    reply = talk.post("miner_request", asking(version="v" * 1_000_000))
    assert (reply.status_code, "larger than" in reply.json()["message"]) == (413, True)


@pytest.mark.parametrize("path", ["nothing", "miner_request/", "task", "store/results/a", "inputs"])
def test_an_unknown_call_is_refused_and_counted(talk: Talk, path: str) -> None:
    reply = talk.session.post(f"{talk.devnet.url}/{path}", json={}, allow_redirects=False, timeout=5)
    assert reply.status_code in (404, 405)
    assert path in reply.json()["message"]
    assert talk.devnet.stats()["violations"] == 1


@pytest.mark.parametrize("wait", ["soon", "-1", "1.5", ""])
def test_a_wait_that_is_no_whole_number_is_refused(talk: Talk, wait: str) -> None:
    reply = talk.post("miner_request", asking(), Prefer=f"wait={wait}")
    assert (reply.status_code, "Prefer" in reply.json()["message"]) == (400, True)


def test_fields_that_are_not_known_are_ignored(talk: Talk) -> None:
    assert talk.post("miner_request", asking(surprise={"a": 1})).status_code == 200
    assert talk.violations() == []


def test_an_answer_to_an_unknown_task_is_404(talk: Talk) -> None:
    reply = talk.post("miner_submit", success("nothing"))
    assert (reply.status_code, talk.violations()) == (404, ["unknown task nothing"])


def test_an_answer_to_a_task_that_was_never_leased_is_refused(talk: Talk) -> None:
    reply = talk.post("miner_submit", success(talk.create()))
    assert (reply.status_code, "never leased" in reply.json()["message"]) == (400, True)


def test_an_answer_by_another_miner_is_refused(talk: Talk) -> None:
    talk.create()
    reply = talk.fail(talk.lease(), miner_id=OTHER)
    assert (reply.status_code, "never leased" in reply.json()["message"]) == (400, True)
    assert talk.devnet.stats()["answers"] == {}
