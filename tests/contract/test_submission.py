"""What a good prompt is answered with, what is told while it runs, and what is left of it."""

from __future__ import annotations

import uuid

import pytest
from PIL import Image

from .graphs import color, empty, encoded, node, picture, prefix, scaled, simple
from .wire import Comfy, Event, until


def test_a_run_tells_every_step_in_order(comfy: Comfy, uploaded: str) -> None:
    comfy.upload("base.png", encoded(picture()), subfolder="contract", overwrite="true")  # so that it is not cached
    ran = comfy.run(scaled(uploaded))
    assert ran.outline == [
        "execution_start",
        "execution_cached []",
        "progress_state 1:running",
        "executing 1",
        "progress_state 1:finished",
        "progress_state 1:finished 2:running",
        "executing 2",
        "progress_state 1:finished 2:finished",
        "progress_state 1:finished 2:finished 3:running",
        "executing 3",
        "executed 3",
        "progress_state 1:finished 2:finished 3:finished",
        "execution_success",
        "executing None",
    ]


def test_each_event_has_its_fields(comfy: Comfy) -> None:
    ran = comfy.run(simple())
    fields = {event.type: set(event.data) for event in ran.events[:-1] if isinstance(event, Event)}
    assert fields == {
        "execution_start": {"prompt_id", "timestamp"},
        "execution_cached": {"nodes", "prompt_id", "timestamp"},
        "progress_state": {"prompt_id", "nodes"},
        "executing": {"node", "display_node", "prompt_id"},
        "executed": {"node", "display_node", "output", "prompt_id"},
        "execution_success": {"prompt_id", "timestamp"},
    }
    assert ran.events[-1] == Event("executing", {"node": None, "prompt_id": ran.prompt_id})


def test_the_history_is_complete_after_the_last_event(comfy: Comfy) -> None:
    graph = simple()
    ran = comfy.run(graph, extra_data={"note": "kept"})
    number, prompt_id, prompt, extra, outputs = ran.entry["prompt"]
    assert (prompt_id, prompt, outputs) == (ran.prompt_id, graph, ["2"])
    assert isinstance(number, int)
    assert extra["note"] == "kept"
    assert ("create_time" in extra) is comfy.newer
    assert ran.entry["outputs"] == {"2": ran.event("executed")["output"]}
    assert ran.entry["meta"] == {"2": {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}}
    assert ran.entry["status"]["status_str"] == "success"
    assert ran.entry["status"]["completed"] is True
    kinds = [kind for kind, _ in ran.entry["status"]["messages"]]
    assert kinds == ["execution_start", "execution_cached", "execution_success"]


def test_a_saved_file_is_named_by_prefix_and_counter(comfy: Comfy) -> None:
    where = prefix()
    for number in (1, 3):
        graph = {"1": empty(batch_size=2), "2": node("SaveImage", images=["1", 0], filename_prefix=where)}
        assert comfy.run(graph).files == [
            {"filename": f"out_{number + more:05}_.png", "subfolder": where.split("/")[0], "type": "output"}
            for more in (0, 1)
        ]


def test_a_cached_run_runs_nothing_and_names_the_earlier_file(comfy: Comfy, uploaded: str) -> None:
    graph = scaled(uploaded)
    first, second = comfy.run(graph), comfy.run(graph)
    assert second.outline == [
        "execution_start",
        "execution_cached ['1', '2', '3']",
        "executed 3",
        "progress_state 3:finished",
        "execution_success",
        "executing None",
    ]
    assert second.files == first.files


def test_what_depends_on_a_changed_input_is_run_again(comfy: Comfy, uploaded: str) -> None:
    graph = scaled(uploaded)
    comfy.run(graph)
    comfy.upload("base.png", encoded(picture()), subfolder="contract", overwrite="true")
    assert "execution_cached []" in comfy.run(graph).outline


def test_what_does_not_depend_on_a_change_stays_cached(comfy: Comfy, uploaded: str) -> None:
    comfy.run(scaled(uploaded, scale_by=1.5))
    assert "execution_cached ['1']" in comfy.run(scaled(uploaded, scale_by=1.25)).outline


def test_results_do_not_outlive_another_prompt(comfy: Comfy) -> None:
    graph = simple()
    comfy.run(graph)
    comfy.run(simple())
    assert "execution_cached []" in comfy.run(graph).outline


def test_free_memory_forgets_results(comfy: Comfy) -> None:
    graph = simple()
    comfy.run(graph)
    assert comfy.post("/free", json={"unload_models": True, "free_memory": True}).status_code == 200
    until(lambda: "execution_cached []" in comfy.run(graph).outline)  # it is done between two prompts


def test_the_client_can_choose_the_id(comfy: Comfy) -> None:
    chosen = str(uuid.uuid4())
    assert comfy.run(simple(), prompt_id=chosen).prompt_id == chosen


@pytest.mark.parametrize(
    "wrong", ["my-task", "ABCDEF00-0000-4000-8000-000000000000", "0123456789ab4def8000000000000000", 7]
)
def test_only_the_newer_version_minds_what_an_id_looks_like(comfy: Comfy, wrong: object) -> None:
    answer = comfy.prompt(simple(), prompt_id=wrong)
    if not comfy.newer:
        assert answer.json()["prompt_id"] == str(wrong)
        comfy.wait(str(wrong))
        return
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("invalid_prompt_id", "prompt_id must be a valid UUID")
    assert answer.json()["node_errors"] == {}


def test_an_id_that_is_used_twice_is_run_twice(comfy: Comfy) -> None:
    chosen = str(uuid.uuid4())
    first = comfy.run(simple(), prompt_id=chosen)
    second = comfy.run(simple(), prompt_id=chosen)
    assert second.files != first.files
    assert second.entry["outputs"] == comfy.wait(chosen)["outputs"]


def test_numbers_count_up_and_front_counts_down(comfy: Comfy) -> None:
    numbers = [comfy.prompt(simple(), **fields).json()["number"] for fields in ({}, {"front": True}, {"number": 0.5})]
    comfy.idle()
    assert numbers[1:] == [-numbers[0] - 1, 0.5]


def test_without_a_client_nobody_is_told_but_the_history_knows(comfy: Comfy) -> None:
    with comfy.stream() as bystander:
        entry = comfy.wait(comfy.submit(simple()))
        bystander.until(lambda event: isinstance(event, Event) and event.type == "status" and event.remaining == 0)
    assert entry["status"]["completed"] is True
    told = {event.type for event in bystander.seen if isinstance(event, Event)}
    assert told <= {"status", "progress_state"}  # progress is for everyone where there is no client


def test_a_good_output_runs_though_another_is_dropped(comfy: Comfy) -> None:
    graph = {
        "1": empty(),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix()),
        "3": empty(width=0),
        "4": node("SaveImage", images=["3", 0], filename_prefix=prefix()),
    }
    answer = comfy.prompt(graph)
    assert answer.status_code == 200
    (error,) = answer.json()["node_errors"]["3"]["errors"]
    assert (error["type"], error["details"]) == ("value_smaller_than_min", "width")
    assert answer.json()["node_errors"]["3"]["dependent_outputs"] == ["4"]
    entry = comfy.wait(answer.json()["prompt_id"])
    assert (list(entry["outputs"]), entry["prompt"][4]) == (["2"], ["2"])


def test_outputs_come_as_soon_as_they_can(comfy: Comfy) -> None:
    graph = {
        "1": empty(),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("PreviewImage", images=["3", 0]),
        "5": node("PreviewImage", images=["1", 0]),
    }
    order = [event.data["node"] for event in comfy.run(graph).events if event.outline.startswith("executing")]
    assert order.index("5") < order.index("3")


def test_files_embed_the_graph(comfy: Comfy) -> None:
    graph = simple()
    (file,) = comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}}).files
    text = comfy.image(file).text  # type: ignore[attr-defined]
    assert set(text) == {"prompt", "workflow"}
    assert graph["2"]["inputs"]["filename_prefix"] in text["prompt"]


def test_a_preview_goes_to_the_temporary_folder(comfy: Comfy) -> None:
    ran = comfy.run({"1": empty(color=0x336699), "2": node("PreviewImage", images=["1", 0])})
    (file,) = ran.files
    assert (file["type"], file["subfolder"]) == ("temp", "")
    assert comfy.image(file).convert("RGB").getpixel((0, 0)) == (0x33, 0x66, 0x99)


def test_values_are_converted_to_the_type_of_their_input(comfy: Comfy) -> None:
    shade = color()
    graph = simple(width="32", height=24.9, color=str(shade))
    ran = comfy.run(graph)
    assert ran.entry["prompt"][2]["1"]["inputs"] == {"width": 32, "height": 24, "batch_size": 1, "color": shade}
    assert comfy.image(ran.files[0]).size == (32, 24)


def test_an_input_that_a_node_does_not_have_is_ignored(comfy: Comfy) -> None:
    assert comfy.run(simple(nonsense=[1, 2, 3])).entry["status"]["completed"] is True


def test_the_picture_is_the_one_that_was_asked_for(comfy: Comfy) -> None:
    source = picture((40, 30))
    name = comfy.upload("exact.png", encoded(source), subfolder="contract", overwrite="true")
    found = comfy.image(comfy.run(scaled(name, scale_by=2)).files[0])
    assert found.convert("RGB").tobytes() == source.resize((80, 60), Image.Resampling.LANCZOS).tobytes()
