"""Prompts that end otherwise than well: errors, interrupts, deletions."""

from __future__ import annotations

import pytest

from .graphs import empty, encoded, long, node, picture, prefix, scaled, simple
from .wire import Comfy, Stream, until

KEYS_OF_ERROR = {
    "prompt_id",
    "node_id",
    "node_type",
    "executed",
    "exception_message",
    "exception_type",
    "traceback",
    "current_inputs",
    "current_outputs",
    "timestamp",
}


def start(comfy: Comfy, stream: Stream) -> str:
    """A prompt that runs, and will for long."""
    prompt_id = comfy.submit(long(), client_id=stream.client)
    stream.until_outline("executing 2")
    return prompt_id


def stop(comfy: Comfy, prompt_id: str) -> None:
    comfy.post("/interrupt", json={"prompt_id": prompt_id})
    comfy.wait(prompt_id)


def test_an_error_ends_the_prompt_and_says_where_and_why(comfy: Comfy) -> None:
    name = comfy.upload("corrupt.png", b"nothing good", subfolder="contract", overwrite="true")
    graph = scaled(name)
    ran = comfy.run(graph)
    assert ran.outline[-4:] == ["progress_state 1:running", "executing 1", "execution_error", "executing None"]
    error = ran.event("execution_error")
    assert set(error) == KEYS_OF_ERROR
    assert (error["node_id"], error["node_type"], error["executed"]) == ("1", "LoadImage", [])
    assert error["exception_type"] == "PIL.UnidentifiedImageError"
    assert error["exception_message"].startswith("cannot identify image file")
    assert error["exception_message"].endswith("\n")
    assert all(line.startswith('  File "') for line in error["traceback"])
    assert error["current_inputs"] == {"image": [name]}
    assert set(error["current_outputs"]) == set(graph)
    assert ran.message("execution_error") == error
    assert (ran.entry["status"]["status_str"], ran.entry["status"]["completed"]) == ("error", False)
    assert (ran.entry["outputs"], ran.entry["meta"]) == ({}, {})


def test_what_was_saved_before_an_error_is_in_the_history(comfy: Comfy) -> None:
    name = comfy.upload("corrupt.png", b"nothing good", subfolder="contract", overwrite="true")
    graph = {**simple(), "3": node("LoadImage", image=name), "4": node("PreviewImage", images=["3", 0])}
    graph = {key: graph[key] for key in ("1", "2", "3", "4")}
    entry = comfy.wait(comfy.submit(graph))
    assert entry["status"]["status_str"] == "error"
    assert set(entry["outputs"]) <= {"2"}  # whichever output went first


def test_a_prefix_that_leads_outside_is_an_error(comfy: Comfy) -> None:
    ran = comfy.run({"1": empty(), "2": node("SaveImage", images=["1", 0], filename_prefix="../../outside")})
    assert "outside the output folder" in ran.event("execution_error")["exception_message"]


def test_the_next_prompt_runs_after_an_error(comfy: Comfy) -> None:
    name = comfy.upload("corrupt.png", b"nothing good", subfolder="contract", overwrite="true")
    comfy.run(scaled(name))
    assert comfy.run(simple()).entry["status"]["completed"] is True


def test_a_truncated_picture_is_read_as_far_as_it_goes(comfy: Comfy) -> None:
    whole = encoded(picture((200, 200)))
    name = comfy.upload("truncated.png", whole[: len(whole) // 2], subfolder="contract", overwrite="true")
    assert comfy.image(comfy.run(scaled(name, scale_by=1)).files[0]).size == (200, 200)


@pytest.mark.parametrize("targeted", [True, False])
def test_an_interrupt_takes_effect_at_the_next_node(comfy: Comfy, targeted: bool) -> None:
    with comfy.stream() as stream:
        prompt_id = start(comfy, stream)
        body = {"prompt_id": prompt_id} if targeted else {}
        assert comfy.post("/interrupt", json=body).status_code == 200
        events = stream.until_done(prompt_id)
    entry = comfy.wait(prompt_id)
    assert [event.outline for event in events[-2:]] == ["execution_interrupted", "executing None"]
    told = dict(entry["status"]["messages"])["execution_interrupted"]
    assert set(told) == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
    assert told["node_type"] == "ImageScaleBy"
    assert "1" in told["executed"]
    assert told["node_id"] not in told["executed"]
    assert entry["status"]["status_str"] == "error"
    assert entry["outputs"] == {}


def test_an_interrupt_without_a_body_means_whatever_runs(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        prompt_id = start(comfy, stream)
        assert comfy.post("/interrupt").status_code == 200
        assert "execution_interrupted" in [event.outline for event in stream.until_done(prompt_id)]


def test_an_interrupt_for_another_prompt_does_nothing(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        prompt_id = comfy.submit(long(length=4), client_id=stream.client)
        stream.until_outline("executing 2")
        assert comfy.post("/interrupt", json={"prompt_id": "nosuch"}).status_code == 200
        stream.until_done(prompt_id)
    assert comfy.wait(prompt_id)["status"]["completed"] is True


def test_an_interrupt_while_nothing_runs_does_not_hit_the_next_prompt(comfy: Comfy) -> None:
    comfy.idle()
    assert comfy.post("/interrupt", json={}).status_code == 200
    assert comfy.run(simple()).entry["status"]["completed"] is True


def test_a_bystander_hears_of_an_interrupt_only_where_there_is_no_client(comfy: Comfy) -> None:
    with comfy.stream() as stream, comfy.stream() as bystander:
        prompt_id = start(comfy, stream)
        stop(comfy, prompt_id)
        comfy.idle()
        bystander.is_silent()
        without = comfy.submit(long())
        bystander.until(lambda event: event.outline.startswith("progress_state 1:finished 2"))
        stop(comfy, without)
        bystander.until_outline("execution_interrupted")


def test_a_waiting_prompt_is_deleted_without_a_trace(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        running = start(comfy, stream)
        waiting = comfy.submit(simple(), client_id=stream.client)
        queue = comfy.get("/queue").json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [waiting]
        assert [len(item) for item in queue["queue_running"] + queue["queue_pending"]] == [5, 5]
        assert comfy.post("/queue", json={"delete": [waiting]}).status_code == 200
        assert comfy.get("/queue").json()["queue_pending"] == []
        stop(comfy, running)
        stream.until_done(running)
        comfy.run(simple())
        assert comfy.history(waiting) is None
        assert waiting not in str(stream.seen)


def test_a_running_prompt_cannot_be_deleted(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        running = start(comfy, stream)
        comfy.post("/queue", json={"delete": [running]})
        assert [item[1] for item in comfy.get("/queue").json()["queue_running"]] == [running]
        stop(comfy, running)


def test_clearing_the_queue_leaves_what_runs(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        running = start(comfy, stream)
        waiting = [comfy.submit(simple()) for _ in range(3)]
        assert comfy.get("/prompt").json() == {"exec_info": {"queue_remaining": 4}}
        assert comfy.post("/queue", json={"clear": True}).status_code == 200
        queue = comfy.get("/queue").json()
        assert (len(queue["queue_running"]), queue["queue_pending"]) == (1, [])
        stop(comfy, running)
    comfy.idle()
    assert [comfy.history(prompt_id) for prompt_id in waiting] == [None] * 3


def test_front_goes_before_what_waits(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        running = start(comfy, stream)
        last, first = comfy.submit(simple()), comfy.submit(simple(), front=True)
        stop(comfy, running)
    times = [dict(comfy.wait(prompt_id)["status"]["messages"])["execution_start"] for prompt_id in (first, last)]
    assert times[0]["timestamp"] <= times[1]["timestamp"]


def test_the_history_can_be_read_in_parts_and_forgotten(comfy: Comfy) -> None:
    ids = [comfy.run(simple(filename_prefix=prefix())).prompt_id for _ in range(3)]
    assert list(comfy.get("/history?max_items=2").json()) == ids[1:]
    assert list(comfy.get("/history").json())[-3:] == ids
    assert comfy.post("/history", json={"delete": [ids[0]]}).status_code == 200
    assert comfy.history(ids[0]) is None
    assert comfy.post("/history", json={"clear": True}).status_code == 200
    assert comfy.get("/history").json() == {}
    assert comfy.get("/history/nosuch").json() == {}


def test_the_queue_empties(comfy: Comfy) -> None:
    comfy.submit(simple())
    until(lambda: comfy.get("/queue").json() == {"queue_running": [], "queue_pending": []})
