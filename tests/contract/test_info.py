"""What the server says of itself, its nodes and its models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.paths import RECORDINGS

from .conftest import REAL
from .wire import Comfy

KEYS_OF_NODE = {
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "name",
    "display_name",
    "description",
    "python_module",
    "category",
    "output_node",
}
NEWER_KEYS = {"is_input_list", "has_intermediate_output", "search_aliases"}
BASE_NODES = {
    "LoadImage",
    "EmptyImage",
    "ImageScale",
    "ImageScaleBy",
    "ImageInvert",
    "RepeatImageBatch",
    "MaskToImage",
    "ImageToMask",
    "JoinImageWithAlpha",
    "SaveImage",
    "PreviewImage",
    "SaveAnimatedWEBP",
}


def test_the_system_is_described(comfy: Comfy) -> None:
    stats = comfy.get("/system_stats").json()
    assert set(stats) == {"system", "devices"}
    assert stats["system"].keys() >= {"os", "ram_total", "ram_free", "comfyui_version", "python_version", "argv"}
    assert stats["system"]["ram_total"] >= stats["system"]["ram_free"] > 0
    for device in stats["devices"]:
        assert device.keys() >= {"name", "type", "index", "vram_total", "vram_free"}


def test_every_route_also_has_the_prefix_api(comfy: Comfy) -> None:
    for path in ("/prompt", "/queue", "/history", "/features", "/models", "/object_info/SaveImage"):
        assert comfy.get(f"/api{path}").json() == comfy.get(path).json()


def test_the_queue_can_be_asked_for_its_length(comfy: Comfy) -> None:
    assert comfy.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}


def test_models_are_listed_by_folder(comfy: Comfy) -> None:
    folders = comfy.get("/models").json()
    assert {"checkpoints", "loras", "vae", "text_encoders", "diffusion_models", "upscale_models"} <= set(folders)
    assert isinstance(comfy.get("/models/upscale_models").json(), list)
    assert comfy.get("/models/nosuch").status_code == 404


def test_a_node_that_is_not_there_has_no_description(comfy: Comfy) -> None:
    assert comfy.get("/object_info/NoSuchNode").json() == {}


def test_every_node_is_described(comfy: Comfy) -> None:
    info = comfy.get("/object_info").json()
    assert info.keys() >= BASE_NODES
    for name, entry in info.items():
        assert entry.keys() >= keys_of_node(comfy)
        assert entry["name"] == name
        assert len(entry["output"]) == len(entry["output_name"]) == len(entry["output_is_list"])


def test_an_uploaded_image_is_offered(comfy: Comfy) -> None:
    name = comfy.upload("offered.png", b"x", overwrite="true")
    (offered, _) = comfy.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]["image"]
    assert name in offered


def keys_of_node(comfy: Comfy) -> set[str]:
    return KEYS_OF_NODE | (NEWER_KEYS if comfy.newer else set())


def bare(spec: list[Any]) -> tuple[Any, dict[str, Any]]:
    """A spec without what is only for people, and without choices that the machine's files give."""
    kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
    for name in ("tooltip", "multiline", "display", "hidden"):
        options.pop(name, None)
    if options.get("image_upload"):
        kind = "files"
    return kind, options


@pytest.mark.skipif(bool(REAL), reason="the recordings are of a real ComfyUI")
def test_the_engines_nodes_are_described_as_recorded(comfy: Comfy) -> None:
    recorded = json.loads((RECORDINGS / f"object_info-{comfy.version}.json").read_text())
    for name, entry in comfy.get("/object_info").json().items():
        if name.startswith("Devnet"):
            continue
        known = recorded[name]
        assert entry.keys() == keys_of_node(comfy)
        for key in ("output", "output_name", "output_node", "python_module"):
            assert entry[key] == known[key], (name, key)
        for group, specs in entry["input"].items():
            if group == "hidden":
                assert specs.keys() == known["input"]["hidden"].keys()
                continue
            for key, spec in specs.items():
                check_spec(bare(spec), bare(known["input"][group][key]), f"{name}.{key}")
        assert set(known["input"]["required"]) == set(entry["input"]["required"]), name


def check_spec(ours: tuple[Any, dict[str, Any]], known: tuple[Any, dict[str, Any]], where: str) -> None:
    """The same, or narrower: the engine may offer fewer choices and closer bounds than ComfyUI."""
    assert ours[0] == known[0], where
    for option, value in ours[1].items():
        if option == "options" and ours[0] == "COMBO":
            assert set(value) <= set(known[1][option]) or not known[1][option], where
        elif option == "options":
            assert {one["key"] for one in value} <= {one["key"] for one in known[1][option]}, where
        elif option == "max":
            assert value <= known[1][option], where
        else:
            assert value == known[1][option], (where, option)
