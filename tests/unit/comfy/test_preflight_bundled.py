"""Every bundled graph and manifest against the /object_info of two real ComfyUIs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from miner.comfy.preflight import Machine, check_graph, check_workflow, inputs_of, installed_loras, offered_loras
from miner.task.errors import JobFault
from miner.workflows import Library
from miner.workflows.parameters import place_of
from tests.support.strategies import LORAS, parameters_of

ObjectInfo = dict[str, Any]
NAMES = ["upscaler", "upscaler-lanczos", "flux-lora", "hunyuan-fp8", "mochi-fp8", "wan22-5b"]
NAMES += ["wan22-5b-img2vid", "flux-img2img"]
EVERY = pytest.mark.parametrize("name", NAMES)


def on(object_info: ObjectInfo) -> Machine:
    return Machine(
        object_info=object_info, version="0.3.64", vram=80 * 10**9, compute_capability=(9, 0), free_disk=10**12
    )


@EVERY
def test_with_its_models_a_bundled_workflow_is_runnable(bundled: Library, stocked: ObjectInfo, name: str) -> None:
    for variant in bundled.get(name).variants:
        assert check_workflow(variant, on(stocked)) == (), variant.variant


@EVERY
def test_a_bundled_graph_gives_no_node_an_input_that_it_does_not_have(
    bundled: Library, stocked: ObjectInfo, name: str
) -> None:
    for node, body in bundled.get(name).graph.items():
        assert set(body["inputs"]) <= set(inputs_of(body, stocked)), node


@EVERY
def test_a_bundled_graph_has_core_nodes_alone(bundled: Library, recorded: ObjectInfo, name: str) -> None:
    for body in bundled.get(name).graph.values():
        module = recorded[body["class_type"]]["python_module"]
        assert module == "nodes" or module.startswith("comfy_extras.")


@EVERY
def test_without_models_the_reasons_are_those_models(bundled: Library, recorded: ObjectInfo, name: str) -> None:
    for workflow in bundled.get(name).variants:
        reasons = check_workflow(workflow, on(recorded))
        models = [reason for reason in reasons if reason.kind == "model"]
        assert {reason.missing for reason in models} == {model.name for model in workflow.manifest.models}
        assert all(reason.cure == f"run `xalora-miner models pull {name}`" for reason in models)
        others = [reason.kind for reason in reasons if reason.kind != "model"]
        assert others == (["lora"] if name == "flux-lora" else [])


def test_one_model_taken_away_is_one_reason(bundled: Library, stocked: ObjectInfo, recorded: ObjectInfo) -> None:
    lacking = stocked | {"VAELoader": recorded["VAELoader"]}
    [reason] = check_workflow(bundled.get("mochi-fp8").variants[0], on(lacking))
    assert reason.text == "the model mochi_vae.safetensors (vae.vae_name) is missing"


def test_the_loras_are_those_that_comfyui_lists_but_for_pickles(stocked: ObjectInfo, recorded: ObjectInfo) -> None:
    assert installed_loras(stocked) == ("detail.safetensors", "sub/line.safetensors")
    assert installed_loras(recorded) == ()
    assert installed_loras({}) == ()


def test_a_lora_for_another_base_is_not_offered_for_flux(bundled: Library, stocked: ObjectInfo) -> None:
    flux = bundled.get("flux-lora").variants[0]
    one = replace(on(stocked), lora_bases={"detail.safetensors": "sdxl"})
    assert offered_loras(one, base=flux.lora_base) == ("sub/line.safetensors",)  # of an unknown base
    both = replace(on(stocked), lora_bases={"detail.safetensors": "sdxl", "sub/line.safetensors": "wan-14b"})
    assert offered_loras(both, base=flux.lora_base) == ()
    assert offered_loras(both) == ("detail.safetensors", "sub/line.safetensors")
    [reason] = check_workflow(flux, both)
    assert reason.text == "every LoRA is for another base model than FLUX.1"
    assert check_workflow(flux, replace(both, on_demand=True)) == ()


@EVERY
def test_any_value_that_is_accepted_is_one_that_comfyui_takes(bundled: Library, stocked: ObjectInfo, name: str) -> None:
    workflow = bundled.get(name)
    parameters = workflow.manifest.parameters

    @settings(max_examples=30)
    @given(parameters_of(parameters))
    def fill(given_values: dict[str, Any]) -> None:
        try:
            checked = workflow.check(given_values, loras=LORAS)
        except JobFault:
            return
        names = dict.fromkeys(checked.images, "image.png")
        graph = workflow.fill(checked.values, images=names, prefix="out")
        uploaded = {place_of(bind) for image in names for bind in parameters[image].bind}
        assert check_graph(graph, stocked, bound=uploaded) == ()

    fill()
