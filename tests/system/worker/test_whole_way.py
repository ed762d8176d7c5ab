"""From a leased task to an acknowledged result: devnet, engine and worker as real processes."""

from __future__ import annotations

import io
import os
import signal

import pytest
from PIL import Image

from tests.support import flows
from tests.support.paths import STAND_INS
from tests.support.testbed import MINER_ID, free_port, until


def test_a_task_is_answered_with_a_file_that_decodes(testbed):
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine())
    (task,) = testbed.ended(testbed.create(parameters={"image": testbed.picture((32, 24))}))
    assert (task["status"], task["msg"]) == ("finished", "")
    with Image.open(io.BytesIO(testbed.result(task))) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (128, 96))
        assert image.info == {}  # without the graph and the prompt
    assert task["inference_latency"] > 0
    assert task["upload_latency"] > 0
    assert testbed.devnet.stats()["violations"] == 0


def test_temporary_credentials_are_used_with_the_configured_bucket(testbed):
    devnet = testbed.start_devnet(s3=True)
    testbed.start_worker(
        testbed.start_engine(), upload__bucket="results", upload__endpoint=devnet.url, upload__prefix="me"
    )
    (task,) = testbed.ended(testbed.create(target="s3"))
    assert task["status"] == "finished", task["msg"]
    assert task["result"] == f"me/upscaler-lanczos-{task['answers'][0]['miner_id']}-{task['task_id']}.png"
    assert Image.open(io.BytesIO(testbed.result(task))).format == "PNG"
    assert devnet.stats()["violations"] == 0


def test_credentials_refused_by_s3_fail_the_task(testbed):
    devnet = testbed.start_devnet(s3=True)
    testbed.start_worker(testbed.start_engine(), upload__bucket="results", upload__endpoint=devnet.url)
    wrong = {part: {**testbed.s3.credential, part: "wrong"} for part in testbed.s3.credential}
    orders = [testbed.create(target="s3", extra={"credential": credential}) for credential in wrong.values()]
    answers = {task["msg"] for task in testbed.ended(*orders)}
    assert answers == {"the upload target refused the file (403)", "the upload target refused the file (400)"}
    refused = [violation["reason"] for violation in devnet.stats()["violation_list"]]
    for code in ("SignatureDoesNotMatch", "InvalidToken", "InvalidAccessKeyId"):
        assert any(code in reason for reason in refused), refused


def test_a_bucket_that_is_missing_costs_no_render_and_stops_the_leasing(testbed):
    testbed.start_devnet(s3=True)
    endpoint = {"upload__endpoint": testbed.s3.url, "network__allow": [testbed.s3.url.removeprefix("http://")]}
    testbed.start_worker(testbed.start_engine(), upload__bucket="missing", **endpoint)
    (task,) = testbed.ended(testbed.create(target="s3"))
    told = "this miner cannot upload results to where this task's credentials are for; please create it again"
    assert (task["status"], task["msg"]) == ("failed", told)
    assert not testbed.logged("task_step", step="prompted")
    (said,) = testbed.logged("cannot_upload")
    assert "[upload] bucket" in said["hint"]
    until(lambda: "no such bucket" in testbed.logged("not_leasing")[-1]["reason"], why="the pause")


def test_the_embedded_engine_is_the_default_and_stops_with_the_worker(testbed):
    testbed.start_devnet()
    worker = testbed.start_worker("", comfyui__port=free_port())
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished", task["msg"]
    pid = testbed.logged("comfyui_started")[0]["pid"]
    assert worker.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "embedded_engine" in {event["event"] for event in testbed.log()}


def test_a_second_signal_cancels_the_task_with_the_reason(testbed):
    testbed.start_devnet()
    ids = {"4": [testbed.add_workflow("slow", flows.wait(60.0))]}
    worker = testbed.start_worker(testbed.start_engine(), workflows=ids)
    task_id = testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    worker.send(signal.SIGTERM)
    until(lambda: testbed.logged("draining"), why="the drain")
    assert worker.stop() == 0
    task = testbed.task(task_id)
    assert (task["status"], task["msg"]) == ("failed", "this miner is shutting down; please create the task again")


def test_a_warm_up_renders_each_workflow_before_the_first_task(testbed):
    testbed.start_devnet()
    testbed.start_worker(
        testbed.start_engine(),
        workflows={"3": ["plain-picture"], "4": ["upscaler-lanczos"]},
        workflows__folders=[str(STAND_INS)],
        miner__warmup=True,
    )
    testbed.ended(testbed.create())
    warmed = testbed.logged("warmed_up")
    assert {event["workflow"] for event in warmed} == {"plain-picture", "upscaler-lanczos"}
    assert testbed.log().index(warmed[-1]) < testbed.log().index(testbed.logged("task_step", step="leased")[0])


def test_each_comfyui_is_a_lane_with_its_own_id_and_a_broken_one_stops_no_other(testbed):
    testbed.start_devnet()
    dead = f"http://127.0.0.1:{free_port()}"
    testbed.start_worker(f"{testbed.start_engine()},{dead}")
    tasks = testbed.ended(testbed.create(), testbed.create())
    assert [task["status"] for task in tasks] == ["finished", "finished"]
    assert {task["leases"][0]["miner_id"] for task in tasks} == {f"{MINER_ID}-0"}
    assert testbed.logged("comfyui_not_ready", lane="1")
