"""Filling changes constants, never a node, class or link, whatever the task."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miner.task.errors import JobFault
from miner.task.stages import Graph
from miner.workflows import Library, Workflow
from miner.workflows.graph import filled, without
from tests.support.sample_workflow import GRAPH, LORAS

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(LORAS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
NAMES = [
    "prompt",
    "lora_name",
    "aspect_ratio",
    "width",
    "height",
    "length",
    "guidance",
    "steps",
    "seed",
    "fps",
    "image",
]
NAMES += ["quality", "style", "shape", "strength", "blur", "tile"]
likely = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, json_values))
honest = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=40), "image": st.just("https://example.org/a.png")},
    optional={
        "width": st.integers(64, 1100),
        "height": st.integers(64, 1100) | st.integers(64, 1100).map(str),
        "length": st.integers(1, 130),
        "steps": st.integers(1, 51),
        "lora_name": st.sampled_from(["a", "b.safetensors", "sub/c"]),
        "aspect_ratio": st.sampled_from(["16:9 landscape 1344x768", "1:1", "custom"]),
        "seed": st.integers(0, 2**63),
    },
)


def shape_of(graph: Graph) -> Any:
    """Nodes, classes, input names and links, without constants."""
    return {
        node: (
            body["class_type"],
            {name: value if isinstance(value, list) else None for name, value in body["inputs"].items()},
        )
        for node, body in graph.items()
    }


def fill_as_the_lane_does(workflow: Workflow, parameters: Any) -> Graph | str:
    """The filled graph, or the message for the consumer."""
    try:
        checked = workflow.check(parameters, loras=LORAS)
    except JobFault as fault:
        return fault.message
    images = {name: f"{name}.png" for name in checked.images}
    return workflow.fill(checked.values, images=images, prefix="task/out")


@settings(max_examples=300, deadline=None)
@given(parameters=likely | honest | st.dictionaries(st.text(), json_values))
@example(parameters={"prompt": {"__value__": ["save", 0]}})
@example(parameters={"prompt": ["save", 0], "image": ["save", 0], "width": ["save", 0]})
@example(parameters={"prompt": 'x"}}, "evil": {"class_type": "Evil", "inputs": {"y": "'})
def test_any_task_at_all_is_refused_or_leaves_nodes_classes_and_links_alone(
    sample: Workflow, bundled: Library, parameters: dict[str, Any]
) -> None:
    for workflow in (sample, *bundled.workflows):
        before = copy.deepcopy(workflow.graph)
        answer = fill_as_the_lane_does(workflow, parameters)
        if isinstance(answer, str):
            assert answer.isprintable()
            assert len(answer) < 300
        else:
            plain = workflow.name == "flux-lora" and "lora" not in answer
            assert shape_of(answer) == shape_of(without(before, {"lora": ("model", "clip")}) if plain else before)
            wire = json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()  # no NaN, no lone surrogate
            assert json.loads(wire) == answer
        assert workflow.graph == before


def test_values_land_at_every_place_that_they_are_bound_to(sample: Workflow) -> None:
    graph = sample.fill(
        {"prompt": "a cat", "width": 128, "strength": 0.5, "tile": True, "seed": 7, "quality": 9},
        images={"image": "task.png"},
        prefix="task-1",
    )
    assert graph["text"]["inputs"] == {"clip": ["lora", 1], "text": "a cat"}
    assert graph["latent"]["inputs"] == {"width": 128, "height": 400, "length": 25}
    assert graph["lora"]["inputs"]["strength_model"] == graph["lora"]["inputs"]["strength_clip"] == 0.5
    assert graph["lora"]["inputs"]["lora_name"] == "a.safetensors"
    assert graph["style"]["inputs"]["tile"] is True
    assert graph["sampler"]["inputs"]["seed"] == 7
    assert graph["image"]["inputs"]["image"] == "task.png"
    assert graph["save"]["inputs"]["filename_prefix"] == "task-1"


def test_two_tasks_share_nothing(sample: Workflow) -> None:
    first = sample.fill({"prompt": "one"}, images={}, prefix="1")
    second = sample.fill({}, images={}, prefix="2")
    assert second["text"]["inputs"]["text"] == ""
    first["model"]["inputs"]["unet_name"] = "other"
    assert second["model"]["inputs"]["unet_name"] == sample.graph["model"]["inputs"]["unet_name"]


def test_what_is_left_out_is_replaced_by_what_it_took_even_in_a_row() -> None:
    def node(**inputs: Any) -> dict[str, Any]:
        return {"class_type": "Any", "inputs": inputs}

    graph = {
        "m": node(),
        "one": node(model=["m", 0], clip=["m", 1]),
        "two": node(model=["one", 0], clip=["one", 1], strength=1),
        "end": node(model=["two", 0], clip=["one", 1], text="two"),
    }
    taken = ("model", "clip")
    assert without(graph, {"one": taken, "two": taken}) == {
        "m": node(),
        "end": node(model=["m", 0], clip=["m", 1], text="two"),
    }
    assert without(graph, {"one": taken})["two"] == node(model=["m", 0], clip=["m", 1], strength=1)


def test_a_link_is_never_overwritten() -> None:
    with pytest.raises(ValueError, match=r"text\.clip is a link"):
        filled(copy.deepcopy(GRAPH), {("text", "clip"): "x"})
