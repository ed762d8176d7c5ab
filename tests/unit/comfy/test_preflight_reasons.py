"""Each reason why a graph or a workflow is not runnable, over a small /object_info."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from miner.comfy.preflight import Machine, Reason, check_graph, check_workflow, machine_of
from miner.comfy.replies import parse_stats
from miner.comfy.weights import weights_of
from miner.workflows import Workflow
from tests.support.sample_workflow import MANIFEST, load, write
from tests.support.sample_workflow import sample as load_sample

INFO: dict[str, Any] = {
    "LoadImage": {
        "input": {"required": {"image": [["example.png"], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
    },
    "UNETLoader": {"input": {"required": {"unet_name": [["sample.safetensors"]]}}, "output": ["MODEL", "CLIP"]},
    "LoraLoader": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "clip": ["CLIP", {"tooltip": "…"}],
                "lora_name": ["COMBO", {"options": ["a.safetensors"]}],
                "strength_model": ["FLOAT", {"min": -10.0, "max": 10.0, "step": 0.01}],
                "strength_clip": ["FLOAT", {"min": -10.0, "max": 10.0, "step": 0.01}],
            }
        },
        "output": ["MODEL", "CLIP"],
    },
    "Text": {"input": {"required": {"clip": ["CLIP"], "text": ["STRING", {"multiline": True}]}}, "output": ["COND"]},
    "Style": {
        "input": {
            "required": {"text": ["STRING"], "tile": ["BOOLEAN", {"default": False}], "base": ["IMAGE,MASK"]},
            "optional": {"blur": ["FLOAT", {"max": 1.0, "min": 0.0}], "mask": ["MASK"]},
            "hidden": {"prompt": "PROMPT"},
        },
        "output": ["COND"],
    },
    "Latent": {
        "input": {
            "required": {
                "width": ["INT", {"min": 16, "max": 16384, "step": 16}],
                "height": ["INT", {"min": 16, "max": 16384, "step": 8}],
                "length": ["INT", {"min": 1, "max": 16384, "step": 4}],
            }
        },
        "output": ["LATENT"],
    },
    "Sampler": {
        "input": {"required": {"seed": ["INT", {"min": 0, "max": 2**64 - 1}], "model": ["MODEL"], "latent": ["*"]}},
        "output": ["IMAGE"],
    },
    "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING"]}}, "output": []},
}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return load_sample(tmp_path_factory.mktemp("workflows"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """INFO with the entry at `path` (`class/section/name`, or `class`) replaced; None takes it away."""
    info = copy.deepcopy(INFO)
    *parents, last = path.split("/")
    place = info
    for number, parent in enumerate(parents):
        place = place[parent]["input"] if number == 0 else place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return info


def reasons(workflow: Workflow, info: dict[str, Any]) -> tuple[Reason, ...]:
    return check_workflow(workflow, Machine(object_info=info, version="0.33.0"))


def test_a_workflow_that_fits_has_no_reason(workflow: Workflow) -> None:
    assert reasons(workflow, INFO) == ()


# (what is replaced, by what, the reason's kind, its text)
CHANGES: list[tuple[str, Any, str, str]] = [
    ("Sampler", None, "node", "ComfyUI has no node Sampler"),
    ("Style/required/depth", ["INT"], "input", "node 'style' lacks the input 'depth'"),
    ("Style/required/mode", ["COMFY_DYNAMICCOMBO_V3", {"options": []}], "input", "lacks the input 'mode'"),
    ("Text/required/text", None, "input", "parameter prompt is bound to 'text.text', which this ComfyUI does not have"),
    ("UNETLoader/required/unet_name", [["other.safetensors"]], "model", "the model sample.safetensors"),
    ("UNETLoader/required/unet_name", [[]], "model", "(model.unet_name) is missing"),
    ("UNETLoader/required/unet_name", ["COMBO", {"options": []}], "model", "the model sample.safetensors"),
    # a task may leave this one out, and then the graph's own constant counts
    ("LoraLoader/required/lora_name", [["b.safetensors"]], "model", "the model a.safetensors (lora.lora_name)"),
    ("Text/required/clip", ["MODEL"], "link", "text.clip expects MODEL, but gets CLIP"),
    ("Text/required/clip", ["CLIPS,MODEL"], "link", "text.clip expects CLIPS,MODEL, but gets CLIP"),
    ("Text/required/clip", [["a", "b"]], "link", "text.clip expects a choice, but gets CLIP"),
    ("Text/required/text", ["INT"], "value", "parameter prompt is STRING, but text.text is INT"),
    ("Style/required/text", ["BOOLEAN"], "value", "parameter style is STRING, but style.text is BOOLEAN"),
    ("Style/required/tile", ["STRING"], "value", "parameter tile is BOOLEAN, but style.tile is STRING"),
    ("Latent/required/width", ["INT", {"min": 128}], "value", "width is 64 to 1024, but this ComfyUI allows 128"),
    ("Latent/required/width", ["INT", {"max": 1000}], "value", "is 64 to 1024, but this ComfyUI allows 64 to 1000"),
    ("Latent/required/width", ["INT", {"min": 0, "step": 32}], "value", "values that are not 0 + k * 32"),
    ("Latent/required/length", ["INT", {"min": 0, "step": 4}], "value", "values that are not 0 + k * 4"),
    ("Latent/required/width", ["STRING"], "value", "parameter width is a number, but its input is STRING"),
    ("Style/optional/blur", ["INT", {"min": 0, "max": 1}], "value", "parameter blur is a number, but its input is INT"),
    ("Sampler/required/seed", ["INT", {"max": 2**32}], "value", "parameter seed is 0 to 18446744073709551615"),
    ("SaveImage/required/filename_prefix", ["INT"], "value", "save.filename_prefix is not a number"),
    ("SaveImage/required/filename_prefix", ["BOOLEAN"], "value", "save.filename_prefix is not a BOOLEAN"),
    ("SaveImage/required/filename_prefix", [["x", "y"]], "value", "is 'sample', which this ComfyUI does not offer"),
]


@pytest.mark.parametrize(("path", "value", "kind", "text"), CHANGES)
def test_a_comfyui_that_differs_is_one_reason_with_its_cure(
    workflow: Workflow, path: str, value: Any, kind: str, text: str
) -> None:
    [reason] = reasons(workflow, changed(path, value))
    assert (reason.kind, text in reason.text) == (kind, True), reason
    assert reason.cure


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Text/required/clip", ["*"]),
        ("Text/required/clip", ["CLIP,MODEL"]),
        ("Text/required/clip", ["COMFY_MATCHTYPE_V3", {"template": {}}]),
        ("Text/required/extra", ["COMFY_AUTOGROW_V3", {"template": {"min": 0}}]),
        ("Style/optional/extra", ["INT"]),
        ("Latent/required/width", ["FLOAT", {"min": 0.0, "step": 100.0}]),
        ("UNETLoader/required/unet_name", ["COMBO", {"options": ["x", "sample.safetensors"]}]),
        ("UNETLoader/required/unet_name", ["COMBO", {"remote": {"route": "/internal"}}]),
        ("LoadImage/required/image", ["COMBO", {"options": [], "image_upload": True}]),
    ],
)
def test_a_comfyui_that_takes_more_is_no_reason(workflow: Workflow, path: str, value: Any) -> None:
    assert reasons(workflow, changed(path, value)) == ()


def test_a_model_that_we_ship_the_address_of_is_cured_by_pulling_it(workflow: Workflow) -> None:
    [reason] = reasons(workflow, changed("UNETLoader/required/unet_name", [[]]))
    assert reason.missing == "sample.safetensors"
    assert reason.cure == "run `xalora-miner models pull sample`"


def test_a_missing_class_hides_no_other_reason(workflow: Workflow) -> None:
    info = changed("Text", None)
    del info["LoadImage"]
    assert [reason.missing for reason in reasons(workflow, info)] == ["LoadImage", "Text"]


LORA = """
[parameters.lora_name]
type = "lora"
required = true
bind = ["lora.lora_name"]
"""


@pytest.mark.parametrize("listed", [[], ["old.pt"]])
def test_a_workflow_that_must_have_a_lora_is_not_offered_without_one(tmp_path: Path, listed: list[str]) -> None:
    old = '[parameters.lora_name]\ntype = "lora"\nbind = ["lora.lora_name"]\n'
    assert old in MANIFEST
    needy = load(write(tmp_path, MANIFEST.replace(old, LORA))).get("sample")
    [reason] = reasons(needy, changed("LoraLoader/required/lora_name", [listed]))
    assert (reason.kind, reason.text) == ("lora", "no LoRA is installed")
    assert "pull-lora" in reason.cure
    assert reasons(needy, INFO) == ()
    broken = {("loras", "a.safetensors"): "it is empty"}
    [reason] = check_workflow(needy, Machine(object_info=INFO, version="0.33.0", broken=broken))
    assert (reason.kind, reason.text) == ("lora", "every LoRA is broken")


@pytest.mark.parametrize(
    ("machine", "kind", "text"),
    [
        ({"version": "0.3.63"}, "version", "ComfyUI is 0.3.63, but sample needs 0.3.64"),
        ({"version": "v0.2.99-dirty"}, "version", "ComfyUI is v0.2.99-dirty"),
        ({"vram": 3_999_999_999}, "vram", "the GPU has 4.0 GB of memory, but sample needs 4"),
        ({"vram": 0}, "vram", "the GPU has 0.0 GB of memory"),
        ({"is_cpu": True}, "vram", "sample needs a GPU; this ComfyUI runs on the CPU"),
        ({"is_cpu": True, "on_cpu": ["another"]}, "vram", "sample needs a GPU"),
        (
            {"broken": {("diffusion_models", "sample.safetensors"): "it is empty"}},
            "model",
            "sample.safetensors is broken",
        ),
        ({"broken": {("", "a.safetensors"): "it is empty"}}, "model", "a.safetensors is broken: it is empty"),
    ],
)
def test_a_machine_that_is_too_small_or_old_is_a_reason(
    workflow: Workflow, machine: dict[str, Any], kind: str, text: str
) -> None:
    [reason] = check_workflow(workflow, Machine(**{"object_info": INFO, "version": "0.3.64", **machine}))
    assert (reason.kind, text in reason.text) == (kind, True), reason
    assert reason.cure


@pytest.mark.parametrize(
    "machine",
    [
        {"version": "0.3.64"},
        {"version": "0.10.0"},
        {"version": "1.0.0rc1"},
        {"version": "unknown"},
        {"vram": 4 * 10**9},
        {"vram": None, "free_disk": None},
        {"free_disk": 0},
        {"is_cpu": True, "on_cpu": ["sample"]},
        {"broken": {("vae", "sample.safetensors"): "it is empty", ("loras", "b.safetensors"): "it is empty"}},  # others
    ],
)
def test_a_machine_that_is_large_and_new_enough_is_none(workflow: Workflow, machine: dict[str, Any]) -> None:
    assert check_workflow(workflow, Machine(**{"object_info": INFO, "version": "0.3.64", **machine})) == ()


def test_the_weights_that_a_workflow_loads_are_named(workflow: Workflow) -> None:
    """The manifest's files and the graph's constants, also the LoRA's that a task may leave out."""
    assert weights_of(workflow) == {("diffusion_models", "sample.safetensors"): 10, ("", "a.safetensors"): None}


@pytest.mark.parametrize(
    ("device", "vram", "is_cpu"),
    [
        ({"type": "cpu", "name": "cpu", "vram_total": 10**9}, None, True),
        ({"type": "cuda", "name": "cuda:0 card", "vram_total": 8 * 10**9}, 8 * 10**9, False),
        ({"type": "xpu", "name": "xpu:0", "vram_total": 8 * 10**9}, 8 * 10**9, False),
        ({"type": "npu", "name": "npu:0", "vram_total": 8 * 10**9}, 8 * 10**9, False),
        ({"type": "mps", "name": "mps", "vram_total": 16 * 10**9}, 16 * 10**9, False),  # shared with the machine
        ({"type": "privateuseone", "name": "", "vram_total": 2**30}, None, False),  # DirectML: a made-up number
        ({"type": "cuda", "name": "cuda:0 card"}, None, False),
        (None, None, False),
    ],
)
def test_memory_counts_where_it_is_known(device: dict[str, Any] | None, vram: int | None, is_cpu: bool) -> None:
    machine = machine_of({}, parse_stats({"devices": [device] if device else []}))
    assert (machine.vram, machine.is_cpu) == (vram, is_cpu)


def test_a_full_disk_is_a_reason(tmp_path: Path) -> None:
    manifest = MANIFEST.replace("vram_gb = 4", "vram_gb = 4\ndisk_gb = 2.5")
    roomy = load(write(tmp_path, manifest)).get("sample")
    [reason] = check_workflow(roomy, Machine(object_info=INFO, version="0.3.64", free_disk=10**9))
    assert reason.text == "1.0 GB of disk are free, but sample needs 2.5"


def dynamic(given: dict[str, Any]) -> list[str]:
    """The reasons for a node whose `format` unfolds, as SaveVideo's does in 0.33.0."""
    codec = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "auto", "inputs": {"required": {"crf": ["INT"]}}}]}]
    options = [
        {"key": "mp4", "inputs": {"required": {"codec": codec, "speed": ["INT", {"max": 9}]}}},
        {"key": "webm", "inputs": {"required": {}}},
    ]
    info = {"Save": {"input": {"required": {"format": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]}}, "output": []}}
    graph = {"save": {"class_type": "Save", "inputs": given}}
    return [reason.text for reason in check_graph(graph, info)]


def test_a_dynamic_combo_is_checked_with_the_inputs_of_the_chosen_option() -> None:
    assert dynamic({"format": "webm"}) == []
    assert dynamic({"format": "mp4", "format.speed": 3}) == []
    assert dynamic({"format": "mp4", "format.speed": 3, "format.codec": "auto", "format.codec.crf": 1}) == []
    assert dynamic({}) == ["node 'save' lacks the input 'format', which this ComfyUI requires"]
    assert dynamic({"format": "avi"}) == ["save.format is 'avi', which this ComfyUI does not offer"]
    assert dynamic({"format": "mp4"}) == ["node 'save' lacks the input 'format.speed', which this ComfyUI requires"]
    assert dynamic({"format": "mp4", "format.speed": 10}) == [
        "save.format.speed is 10, and this ComfyUI allows at most 9"
    ]
    assert dynamic({"format": "mp4", "format.speed": 3, "format.codec": "auto"}) == [
        "node 'save' lacks the input 'format.codec.crf', which this ComfyUI requires"
    ]


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (["made", 0], "shown.image expects IMAGE, but gets LATENT"),
        (["made", 2], "shown.image uses output 2 of Make, which has 2"),
        (["made", -1], "shown.image uses output -1 of Make, which has 2"),
    ],
)
def test_a_bad_link_is_named(link: list[Any], text: str) -> None:
    info = {
        "Make": {"input": {}, "output": ["LATENT", "IMAGE"]},
        "Show": {"input": {"required": {"image": ["IMAGE"]}}, "output": []},
    }
    graph: dict[str, dict[str, Any]] = {
        "made": {"class_type": "Make", "inputs": {}},
        "shown": {"class_type": "Show", "inputs": {"image": link}},
    }
    assert [reason.text for reason in check_graph(graph, info)] == [text]
    graph["shown"]["inputs"]["image"] = ["made", 1]
    assert check_graph(graph, info) == ()
