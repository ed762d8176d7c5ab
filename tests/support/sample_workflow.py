"""A small workflow of every kind of parameter, as files that a test can spoil."""

from __future__ import annotations

import json
from pathlib import Path

from miner.workflows import Library, Workflow, load_library

MANIFEST = """
id = "7"
name = "sample"
task_type = "txt2img"
description = "A sample"
timeout_seconds = 60

[output]
node = "save"
format = "jpg"
quality_parameter = "quality"

[needs]
vram_gb = 4
comfyui = "0.3.64"
max_pixels = 1000000

[[models]]
folder = "diffusion_models"
name = "sample.safetensors"
url = "https://example.org/sample.safetensors"
size = 10
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
licence = "Apache-2.0"

[[limits]]
product = ["width", "height"]
max = 500000

[parameters.prompt]
type = "string"
required = true
max_length = 40
refuse = ["embedding:"]
bind = ["text.text"]

[parameters.style]
type = "string"
default = "plain"
max_length = 40
bind = ["style.text"]

[parameters.shape]
type = "enum"
default = "custom"
values = ["custom", "wide"]
first_word = true
sets = { wide = { width = 800, height = 400 } }

[parameters.width]
type = "int"
default = 400
min = 64
max = 1024
step = 16
bind = ["latent.width"]

[parameters.height]
type = "int"
default = 400
min = 64
max = 1024
step = 16
bind = ["latent.height"]

[parameters.length]
type = "int"
default = 25
min = 1
max = 129
step = 4
bind = ["latent.length"]

[parameters.strength]
type = "float"
default = 1.0
min = 0
max = 2
bind = ["lora.strength_model", "lora.strength_clip"]

[parameters.blur]
type = "float"
min = 0
max = 1
step = 0.25
bind = ["style.blur"]

[parameters.tile]
type = "bool"
default = false
bind = ["style.tile"]

[parameters.seed]
type = "seed"
bind = ["sampler.seed"]

[parameters.lora_name]
type = "lora"
bind = ["lora.lora_name"]

[parameters.image]
type = "image"
bind = ["image.image"]

[parameters.quality]
type = "int"
min = 1
max = 100
description = "Without effect here"
"""

GRAPH = {
    "image": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "model": {"class_type": "UNETLoader", "inputs": {"unet_name": "sample.safetensors"}},
    "lora": {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["model", 0],
            "clip": ["model", 1],
            "lora_name": "a.safetensors",
            "strength_model": 1.0,
            "strength_clip": 1,
        },
    },
    "text": {"class_type": "Text", "inputs": {"clip": ["lora", 1], "text": ""}},
    "style": {"class_type": "Style", "inputs": {"text": "plain", "tile": False, "blur": 0.5, "base": ["image", 0]}},
    "latent": {"class_type": "Latent", "inputs": {"width": 400, "height": 400, "length": 25}},
    "sampler": {"class_type": "Sampler", "inputs": {"seed": 0, "model": ["lora", 0], "latent": ["latent", 0]}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["sampler", 0], "filename_prefix": "sample"}},
}

LORAS = ("a.safetensors", "b.safetensors", "sub/c.safetensors", "sub\\d.safetensors", "a.safetensors.safetensors")


def write(folder: Path, manifest: str = MANIFEST, graph: object = GRAPH, *, name: str = "sample") -> Path:
    """The workflow `name` as a sub-folder of `folder`; returns `folder`."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "workflow.toml").write_text(manifest.replace('name = "sample"', f'name = "{name}"'), encoding="utf-8")
    (place / "graph.json").write_text(graph if isinstance(graph, str) else json.dumps(graph), encoding="utf-8")
    return folder


def load(folder: Path, **ids: list[str]) -> Library:
    return load_library([folder], ids=ids)


def sample(folder: Path) -> Workflow:
    return load(write(folder)).get("sample")
