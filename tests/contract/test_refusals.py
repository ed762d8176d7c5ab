"""Prompts that are refused at submission, in ComfyUI's own words."""

from __future__ import annotations

from typing import Any

import pytest

from .graphs import Graph, empty, node, prefix, scaled, simple
from .wire import Comfy


def refused(comfy: Comfy, graph: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The error and the errors of nodes."""
    answer = comfy.prompt(graph)
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert set(body) == {"error", "node_errors"}
    assert set(body["error"]) == {"type", "message", "details", "extra_info"}
    return body["error"], body["node_errors"]


def only_error(comfy: Comfy, graph: Graph, at: str, *, output: str) -> dict[str, Any]:
    """The one error of the one node that has any."""
    error, node_errors = refused(comfy, graph)
    assert (error["type"], error["message"]) == ("prompt_outputs_failed_validation", "Prompt outputs failed validation")
    assert list(node_errors) == [at]
    assert node_errors[at]["class_type"] == graph[at]["class_type"]
    assert node_errors[at]["dependent_outputs"] == [output]
    (found,) = node_errors[at]["errors"]
    assert set(found) == {"type", "message", "details", "extra_info"}
    return found  # type: ignore[no-any-return]


def saved(**nodes: dict[str, Any]) -> Graph:
    """The given nodes, by name, and a node `save` that saves `last`."""
    return {**nodes, "save": node("SaveImage", images=["last", 0], filename_prefix=prefix())}


def test_a_value_beyond_its_bounds(comfy: Comfy, uploaded: str) -> None:
    found = only_error(comfy, scaled(uploaded, scale_by=99), "2", output="3")
    assert found["type"] == "value_bigger_than_max"
    assert found["message"] == "Value 99.0 bigger than max of 8.0"
    assert found["details"] == "scale_by"
    config = ["FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}]
    assert found["extra_info"] == {"input_name": "scale_by", "input_config": config, "received_value": 99.0}


def test_a_choice_that_is_not_offered(comfy: Comfy, uploaded: str) -> None:
    graph = scaled(uploaded)
    graph["2"]["inputs"]["upscale_method"] = "nope"
    found = only_error(comfy, graph, "2", output="3")
    methods = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
    assert found["type"] == "value_not_in_list"
    assert found["details"] == f"upscale_method: 'nope' not in {methods}"
    assert found["extra_info"]["input_config"] == [methods, {}]


def test_a_choice_of_the_second_form_is_checked_by_the_newer_version_only(comfy: Comfy) -> None:
    if not comfy.has("SaveWEBM"):
        pytest.skip("SaveWEBM is not there: the extra `engine` is not installed")
    inputs = {"fps": 6.0, "crf": 30.0, "codec": "nope", "filename_prefix": prefix()}
    graph = {"1": empty(), "2": node("SaveWEBM", images=["1", 0], **inputs)}
    if comfy.newer:
        assert only_error(comfy, graph, "2", output="2")["type"] == "value_not_in_list"
    else:
        comfy.wait(comfy.submit(graph))


def test_a_value_that_is_too_small_or_cannot_be_converted(comfy: Comfy) -> None:
    assert only_error(comfy, simple(height=0), "1", output="2")["message"] == "Value 0 smaller than min of 1"
    found = only_error(comfy, simple(width="abc"), "1", output="2")
    assert found["type"] == "invalid_input_type"
    assert found["details"] == "width, abc, invalid literal for int() with base 10: 'abc'"
    assert set(found["extra_info"]) == {"input_name", "input_config", "received_value", "exception_message"}


def test_a_missing_input(comfy: Comfy, uploaded: str) -> None:
    graph = scaled(uploaded)
    del graph["2"]["inputs"]["image"]
    found = only_error(comfy, graph, "2", output="3")
    assert (found["type"], found["details"]) == ("required_input_missing", "image")
    assert found["extra_info"] == {"input_name": "image"}


@pytest.mark.parametrize("name", ["no-such.png", "../example.png", "no-such.png [output]"])
def test_an_image_that_is_not_there(comfy: Comfy, name: str) -> None:
    found = only_error(comfy, scaled(name), "1", output="3")
    assert found["type"] == "custom_validation_failed"
    assert found["details"] == f"image - Invalid image file: {name}"
    assert found["extra_info"] == {"input_name": "image"}


def test_a_link_to_a_node_that_is_not_there(comfy: Comfy) -> None:
    graph = {"3": node("SaveImage", images=["77", 0], filename_prefix=prefix())}
    found = only_error(comfy, graph, "3", output="3")
    assert (found["type"], found["details"]) == ("exception_during_validation", "'77'")
    assert found["extra_info"]["exception_type"] == "KeyError"
    assert all(isinstance(line, str) for line in found["extra_info"]["traceback"])


def test_a_link_behind_a_node_that_leads_nowhere(comfy: Comfy) -> None:
    found = only_error(comfy, saved(last=node("ImageInvert", image=["77", 0])), "last", output="save")
    assert (found["type"], found["details"]) == ("exception_during_inner_validation", "'77'")
    assert found["extra_info"]["linked_node"] == ["last", 0]


@pytest.mark.parametrize(
    ("link", "kind", "extra"),
    [
        (["last", 7], "exception_during_validation", {"exception_type": "IndexError"}),
        (["last", 1], "return_type_mismatch", {"linked_node": ["last", 1]}),
        (["last", 0, 0], "bad_linked_input", {}),
    ],
)
def test_a_link_that_cannot_be(comfy: Comfy, uploaded: str, link: list[Any], kind: str, extra: dict[str, Any]) -> None:
    graph = saved(last=node("LoadImage", image=uploaded))
    graph["save"]["inputs"]["images"] = link
    found = only_error(comfy, graph, "save", output="save")
    assert found["type"] == kind
    assert found["extra_info"].items() >= extra.items()
    if kind == "return_type_mismatch":
        assert found["details"] == "images, received_type(MASK) mismatch input_type(IMAGE)"


def test_a_cycle(comfy: Comfy) -> None:
    graph = saved(last=node("ImageInvert", image=["other", 0]), other=node("ImageInvert", image=["last", 0]))
    error, node_errors = refused(comfy, graph)
    assert error["type"] == "prompt_outputs_failed_validation"
    if comfy.newer:
        assert set(node_errors) == {"last", "other"}
        (found,) = node_errors["last"]["errors"]
        assert found["type"] == "dependency_cycle"
        assert found["details"] == "last (ImageInvert) -> other (ImageInvert) -> last (ImageInvert)"
        assert found["extra_info"]["cycle_nodes"] == ["last", "other"]


def test_several_errors_are_all_told(comfy: Comfy) -> None:
    _, node_errors = refused(comfy, simple(width=0, height="abc"))
    assert {found["type"] for found in node_errors["1"]["errors"]} == {"value_smaller_than_min", "invalid_input_type"}


def test_an_unknown_node(comfy: Comfy) -> None:
    error, node_errors = refused(comfy, saved(last=node("NoSuchNode")))
    assert node_errors == {}
    assert error["details"] == "Node ID '#last'"
    if comfy.newer:
        assert error["type"] == "missing_node_type"
        assert error["message"] == "Node 'NoSuchNode' not found. The custom node may not be installed."
        extra = {"node_id": "last", "class_type": "NoSuchNode", "node_title": "NoSuchNode"}
        assert error["extra_info"] == extra
    else:
        assert error["type"] == "invalid_prompt"
        assert error["message"] == "Cannot execute because node NoSuchNode does not exist."


def test_a_node_without_a_class(comfy: Comfy) -> None:
    error, _ = refused(comfy, saved(last={"inputs": {}}))
    assert error["type"] == ("missing_node_type" if comfy.newer else "invalid_prompt")


@pytest.mark.parametrize("graph", [{}, {"1": empty()}])
def test_a_prompt_that_saves_nothing(comfy: Comfy, graph: Graph) -> None:
    error, node_errors = refused(comfy, graph)
    expected = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
    assert (error, node_errors) == (expected, {})


def test_no_prompt_at_all(comfy: Comfy) -> None:
    answer = comfy.post("/prompt", json={"client_id": "x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "no_prompt")


@pytest.mark.parametrize("graph", ["text", None, [1], 7])
def test_a_prompt_that_is_no_object_is_an_error_of_the_server(comfy: Comfy, graph: object) -> None:
    assert comfy.prompt(graph).status_code == 500


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/free"])
def test_a_body_that_is_no_json_is_an_error_of_the_server(comfy: Comfy, path: str) -> None:
    assert comfy.post(path, data=b"{").status_code == 500


def test_nothing_that_was_refused_is_queued(comfy: Comfy) -> None:
    refused(comfy, saved(last=node("NoSuchNode")))
    assert comfy.get("/queue").json() == {"queue_running": [], "queue_pending": []}
