"""What a workflow wants of a picture's transparent parts, and the graph that it has for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miner.task.errors import ConfigError
from miner.workflows.graph import is_link
from miner.workflows.library import Library, Workflow, load_library

MANIFEST = """
name = "own"
task_type = "upscaler"
description = "for a test"
timeout_seconds = 60
[output]
node = "save"
format = "png"
[needs]
vram_gb = 0
comfyui = "0.3.64"
max_pixels = 1000000
[parameters.image]
type = "image"
required = true
bind = ["image.image"]
"""


def node(name: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": name, "inputs": inputs}


def graph(source: list[Any], loader: str = "LoadImage", **more: Any) -> dict[str, Any]:
    return {
        "image": node(loader, image="a.png", **({"channel": "alpha"} if loader == "LoadImageMask" else {})),
        "save": node("SaveImage", images=source, filename_prefix="x"),
        **more,
    }


PLAIN = graph(["image", 0])
MASK = graph(["m", 0], m=node("MaskToImage", mask=["image", 1]))
LOADED_MASK = graph(["m", 0], "LoadImageMask", m=node("MaskToImage", mask=["image", 0]))
JOINED = graph(["j", 0], j=node("JoinImageWithAlpha", image=["image", 0], alpha=["image", 1]))


def load(folder: Path, plain: dict[str, Any], alpha: dict[str, Any] | None = None) -> Workflow:
    (folder / "own").mkdir()
    (folder / "own" / "workflow.toml").write_text(MANIFEST)
    (folder / "own" / "graph.json").write_text(json.dumps(plain))
    if alpha is not None:
        (folder / "own" / "graph-alpha.json").write_text(json.dumps(alpha))
    return load_library([folder], ids={}).get("own")


@pytest.mark.parametrize(
    ("plain", "alpha", "becomes"),
    [(PLAIN, None, "flat"), (MASK, None, "kept"), (LOADED_MASK, None, "kept"), (PLAIN, JOINED, "bled")],
)
def test_alpha_is_kept_for_a_graph_that_uses_it(
    tmp_path: Path, plain: dict[str, Any], alpha: dict[str, Any] | None, becomes: str
) -> None:
    assert load(tmp_path, plain, alpha).transparency("image") == becomes


@pytest.mark.parametrize("transparent", [False, True])
def test_a_transparent_picture_gets_the_graph_for_it(tmp_path: Path, transparent: bool) -> None:
    filled = load(tmp_path, PLAIN, JOINED).fill({}, images={"image": "b.png"}, prefix="p", transparent=transparent)
    assert ("j" in filled) is transparent
    assert filled["image"]["inputs"]["image"] == "b.png"
    assert filled["save"]["inputs"]["filename_prefix"] == "p"


def test_a_workflow_with_one_graph_uses_it_for_all(tmp_path: Path) -> None:
    filled = load(tmp_path, MASK).fill({}, images={"image": "b.png"}, prefix="p", transparent=True)
    assert filled["m"] == MASK["m"]


@pytest.mark.parametrize(
    ("alpha", "says"),
    [
        ({"other": node("LoadImage", image="a.png")}, "graph-alpha.json has no node 'save'"),
        ({"save": PLAIN["save"] | {"inputs": {"filename_prefix": "x"}}}, "graph-alpha.json has no node 'image'"),
        ({"save": 1}, "save.class_type: is missing"),
    ],
)
def test_the_graph_for_transparent_pictures_must_fit_the_manifest(
    tmp_path: Path, alpha: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, PLAIN, alpha)


@pytest.mark.parametrize("name", ["upscaler", "upscaler-lanczos"])
def test_the_upscalers_enlarge_alpha_as_they_enlarge_colors(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    assert workflow.transparency("image") == "bled"
    assert workflow.alpha_graph is not None
    shared = {node: body for node, body in workflow.graph.items() if node != "save"}
    assert workflow.alpha_graph.items() >= shared.items()
    constants = {
        name: value for name, value in workflow.alpha_graph["upscale_matte"]["inputs"].items() if not is_link(value)
    }
    assert constants == {"upscale_method": "lanczos", "scale_by": 4.0}
