"""One result per task: which graphs are seen to save several files, and which of several counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miner.task.errors import ConfigError, MachineFault
from miner.task.stages import OutputFile
from miner.workflows.library import Workflow, load_library
from miner.workflows.results import result_first

SAVE = {"class_type": "SaveImage", "inputs": {"images": ["pictures", 0], "filename_prefix": "x"}}
MANIFEST = """
id = "21"
name = "batch"
task_type = "txt2img"
description = "a case"
timeout_seconds = 60
[output]
node = "save"
format = "png"
{take}
[needs]
vram_gb = 0
comfyui = "0.3.64"
[parameters.count]
type = "int"
default = 1
min = 1
max = {most}
bind = {bind}
description = "pictures"
"""


def load(folder: Path, graph: dict[str, Any], *, take: str = "", most: int = 1, bind: tuple[str, ...] = ()) -> Workflow:
    (folder / "batch").mkdir()
    text = MANIFEST.format(take=f'take = "{take}"' if take else "", most=most, bind=json.dumps(bind))
    (folder / "batch" / "workflow.toml").write_text(text)
    (folder / "batch" / "graph.json").write_text(json.dumps(graph))
    return load_library([folder], ids={}).get("batch")


def node(name: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": name, "inputs": inputs}


def empty(size: int) -> dict[str, Any]:
    return node("EmptyImage", width=64, height=64, batch_size=size, color=1)


SEVERAL = {
    "the case": ({"save": SAVE, "pictures": empty(4)}, "'pictures.batch_size' makes 'save' save 4 files"),
    "through other nodes": (
        {
            "save": SAVE,
            "pictures": node("VAEDecode", samples=["sample", 0]),
            "sample": node("KSampler", latent_image=["latent", 0]),
            "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=2),
        },
        "'latent.batch_size' makes 'save' save 2 files",
    ),
    "repeated": (
        {"save": SAVE, "pictures": node("RepeatImageBatch", image=["a", 0], amount=3), "a": empty(1)},
        "'pictures.amount' makes 'save' save 3 files",
    ),
    "several picked": (
        {"save": SAVE, "pictures": node("ImageFromBatch", image=["a", 0], batch_index=0, length=2), "a": empty(4)},
        "'pictures.length' makes 'save' save 2 files",
    ),
    "joined": (
        {"save": SAVE, "pictures": node("ImageBatch", image1=["a", 0], image2=["a", 0]), "a": empty(1)},
        r"'pictures' \(ImageBatch\) makes 'save' save several files",
    ),
}
ONE = {
    "one picture": {"save": SAVE, "pictures": empty(1)},
    "picked from a batch": {
        "save": SAVE,
        "pictures": node("ImageFromBatch", image=["a", 0], batch_index=0, length=1),
        "a": empty(4),
    },
    "frames of a video": {
        "save": node("SaveVideo", video=["pictures", 0], filename_prefix="x", format="mp4", codec="h264"),
        "pictures": node("CreateVideo", images=["a", 0], fps=24),
        "a": empty(24),
    },
    "a batch elsewhere": {
        "save": SAVE,
        "pictures": empty(1),
        "other": node("PreviewImage", images=["a", 0]),
        "a": empty(4),
    },
    "a circle": {"save": SAVE, "pictures": node("VAEDecode", samples=["pictures", 0])},
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_graph_that_saves_several_files_is_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    graph, says = SEVERAL[name]
    with pytest.raises(ConfigError, match=f"output.node: {says}: .*output.take to 'first' or 'last'"):
        load(tmp_path, graph)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("take", ["first", "last"])
def test_a_manifest_may_say_which_one_counts(tmp_path: Path, name: str, take: str) -> None:
    assert load(tmp_path, SEVERAL[name][0], take=take).manifest.output.take == take


@pytest.mark.parametrize("name", ONE)
def test_a_graph_that_saves_one_file_is_taken(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, ONE[name]).name == "batch"


def test_a_parameter_must_not_ask_for_several_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parameters.count.max: lets 'save' save 8 files"):
        load(tmp_path, {"save": SAVE, "pictures": empty(1)}, most=8, bind=("pictures.batch_size",))


def files(*names: str) -> list[OutputFile]:
    return [OutputFile(filename=name, subfolder="a", kind="output") for name in names]


@pytest.mark.parametrize(
    ("names", "format_", "take", "first"),
    [
        (["a_1.png"], "png", "only", "a_1.png"),
        (["a_1.PNG"], "jpg", "only", "a_1.PNG"),
        (["a.png", "a.mp4"], "mp4", "only", "a.mp4"),
        (["a.mp4", "a.png"], "mp4", "only", "a.mp4"),
        (["a.bin"], "mp4", "only", "a.bin"),
        (["a_1.png", "a_2.png"], "png", "first", "a_1.png"),
        (["a_1.png", "a_2.png", "a.json"], "png", "last", "a_2.png"),
    ],
)
def test_the_result_comes_first_and_all_files_are_kept_to_be_cleaned(
    names: list[str], format_: str, take: Any, first: str
) -> None:
    found = result_first(files(*names), node="save", format=format_, take=take)
    assert found[0].filename == first
    assert sorted(file.filename for file in found) == sorted(names)


@pytest.mark.parametrize("format_", ["png", "jpg", "mp4"])
def test_several_files_are_a_fault_that_tells_the_cure(format_: str) -> None:
    with pytest.raises(MachineFault, match="'save' wrote 4 files, and a task has one result") as caught:
        result_first(files(*(f"a_{number}.png" for number in range(4))), node="save", format=format_, take="only")
    assert "output.take" in caught.value.hint
