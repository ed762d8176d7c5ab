"""Invalid workflows: the error names the file, the key and the reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from miner.task.errors import ConfigError
from miner.workflows import load_library
from tests.support.sample_workflow import GRAPH, MANIFEST, load, write

# (what is replaced in the manifest, by what, the key, the reason)
INVALID_MANIFESTS = [
    ('name = "sample"', 'name = "other"', "name", "not the folder's, 'sample'"),
    ('name = "sample"', 'name = "Sample!"', "name", "should match pattern"),
    ('name = "sample"\n', "", "name", "Field required"),
    ('id = "7"', "id = 7", "id", "valid string"),
    ('id = "7"', 'id = "7"\ncolor = "red"', "color", "unknown key"),
    ('id = "7"', 'id = "7', "line 2", "invalid TOML"),
    ("timeout_seconds = 60", "timeout_seconds = 0", "timeout_seconds", "greater than 0"),
    ("timeout_seconds = 60", 'timeout_seconds = "60"', "timeout_seconds", "valid number"),
    ("timeout_seconds = 60", "timeout_seconds = true", "timeout_seconds", "valid number"),
    ("timeout_seconds = 60", "timeout_seconds = inf", "timeout_seconds", "less than or equal"),
    ('task_type = "txt2img"', 'task_type = "txt 2 img"', "task_type", "should match pattern"),
    ('node = "save"', 'node = "store"', "output.node", "has no node 'store'"),
    ('node = "save"', 'node = "latent"', "output.node", "no constant filename_prefix"),
    ('format = "jpg"', 'format = "bmp"', "output.format", "'png', 'jpg', 'webp', 'mp4' or 'webm'"),
    (
        'quality_parameter = "quality"',
        'quality_parameter = "prompt"',
        "output.quality_parameter",
        "not an int parameter",
    ),
    ("vram_gb = 4", "vram_gb = -1", "needs.vram_gb", "greater than or equal to 0"),
    ("vram_gb = 4", "vram_gb = nan", "needs.vram_gb", "finite number"),
    ('comfyui = "0.3.64"', 'comfyui = "new"', "needs.comfyui", "should match pattern"),
    ("max_pixels = 1000000", "", "needs.max_pixels", "parameters.image takes an image"),
    ('folder = "diffusion_models"', 'folder = "../etc"', "models.0.folder", "should match pattern"),
    ('name = "sample.safetensors"', 'name = "../sample.safetensors"', "models.0.name", "should match pattern"),
    ('name = "sample.safetensors"', 'name = "sample.ckpt"', "models.0.name", "weight files can run code"),
    ('url = "https:', 'url = "http:', "models.0.url", "should match pattern"),
    ("size = 10", "size = 0", "models.0.size", "greater than or equal to 1"),
    ('sha256 = "00', 'sha256 = "', "models.0.sha256", "should match pattern"),
    ('licence = "Apache-2.0"', "", "models.0.licence", "Field required"),
    ('product = ["width", "height"]', 'product = ["width"]', "limits.0.product", "at least 2"),
    ('product = ["width", "height"]', 'product = ["width", "prompt"]', "limits.0.product", "'prompt' is not an int"),
    ('product = ["width", "height"]', 'product = ["width", "quality"]', "limits.0.product", "always has a value"),
    ("max = 500000", "max = 100000", "limits", "400 x 400 = 160000"),
    ("max = 500000", "max = 200000", "limits", "800 x 400 = 320000"),
    ("[parameters.prompt]", "[parameters.Prompt]", "parameters.Prompt", "should match pattern"),
    ('type = "string"\nrequired', 'type = "text"\nrequired', "parameters.prompt", "'text'"),
    ('type = "string"\nrequired', "required", "parameters.prompt", "Unable to extract tag"),
    ("required = true\nmax_length = 40", "required = true", "parameters.prompt.max_length", "Field required"),
    (
        "required = true",
        'required = true\ndefault = "x"',
        "parameters.prompt.default",
        "not allowed on a required parameter",
    ),
    ("required = true", "required = true\nmin = 1", "parameters.prompt.min", "unknown key"),
    ("required = true", 'required = "yes"', "parameters.prompt.required", "valid boolean"),
    ('bind = ["text.text"]', "bind = []", "parameters.prompt.bind", "say why in its description"),
    ('bind = ["text.text"]', 'bind = ["words.text"]', "parameters.prompt.bind.0", "has no node 'words'"),
    ('bind = ["text.text"]', 'bind = ["text.words"]', "parameters.prompt.bind.0", "no input 'words'"),
    ('bind = ["text.text"]', 'bind = ["text"]', "parameters.prompt.bind.0", "no input ''"),
    ('bind = ["text.text"]', 'bind = ["text.clip"]', "parameters.prompt.bind.0", "is a link"),
    ('bind = ["text.text"]', 'bind = ["latent.width"]', "parameters.prompt.bind.0", "is 400, not of type string"),
    ('bind = ["text.text"]', 'bind = ["style.text"]', "parameters.style.bind.0", "bound to parameter 'prompt'"),
    ('bind = ["text.text"]', 'bind = ["save.filename_prefix"]', "parameters.prompt.bind.0", "the output's file name"),
    ('bind = ["text.text"]', "bind = [1]", "parameters.prompt.bind.0", "valid string"),
    ('bind = ["text.text"]', 'bind = "text.text"', "parameters.prompt.bind", "valid tuple"),
    ('default = "plain"', 'default = "two\\u0000"', "parameters.style.default", "control character"),
    ('default = "custom"', 'default = "tall"', "parameters.shape.default", "must be one of custom, wide"),
    ('default = "custom"', 'default = "wide one"', "parameters.shape.default", "which rounds to wide"),
    ("sets = { wide", "sets = { tall", "parameters.shape", "'tall' is not in values"),
    ("{ width = 800", "{ size = 800", "parameters.shape.sets.wide.size", "not another settable parameter"),
    ("{ width = 800", "{ shape = 'wide'", "parameters.shape.sets.wide.shape", "not another settable parameter"),
    ("{ width = 800", "{ seed = 800", "parameters.shape.sets.wide.seed", "not another settable parameter"),
    ("{ width = 800", "{ width = 808", "parameters.shape.sets.wide.width", "which rounds to 816"),
    ("{ width = 800", "{ width = 9999", "parameters.shape.sets.wide.width", "from 64 to 1024"),
    ('values = ["custom", "wide"]', 'values = ["custom", "wide", "wide"]', "parameters.shape", "duplicate"),
    ('values = ["custom", "wide"]', "values = []", "parameters.shape.values", "at least 1"),
    ("default = 400", "default = 32", "parameters.width.default", "from 64 to 1024"),
    ("default = 400", "default = 401", "parameters.width.default", "which rounds to 400"),
    ("default = 400", "default = 400.0", "parameters.width.default", "valid integer"),
    ("max = 1024", "max = 32", "parameters.width", "min (64) is greater than max (32)"),
    ("max = 129", "max = 130", "parameters.length", "not min + k * step (1 + k * 4)"),
    ("max = 129", "max = 128", "parameters.length", "not min + k * step (1 + k * 4)"),
    ("step = 4", "step = 0", "parameters.length.step", "greater than or equal to 1"),
    ("step = 0.25", "step = 0.3", "parameters.blur", "not min + k * step"),
    ("step = 0.25", "step = inf", "parameters.blur.step", "finite number"),
    ('bind = ["style.tile"]', 'bind = ["style.blur"]', "parameters.tile.bind.0", "is 0.5, not of type bool"),
    ('bind = ["style.blur"]', 'bind = ["style.tile"]', "parameters.blur.bind.0", "is false, not of type float"),
    ('type = "seed"', 'type = "seed"\nmin = -1', "parameters.seed.min", "greater than or equal to 0"),
    ('type = "seed"', 'type = "seed"\nmax = 18446744073709551616', "parameters.seed.max", "less than"),
    (
        'type = "seed"',
        'type = "seed"\naliases = ["width"]',
        "parameters.seed.aliases",
        "'width' is already a parameter",
    ),
    ('type = "seed"', 'type = "seed"\naliases = ["x", "x"]', "parameters.seed.aliases", "another name of seed"),
    ('type = "seed"', 'type = "seed"\naliases = ["No!"]', "parameters.seed.aliases.0", "should match pattern"),
    ('type = "lora"', 'type = "lora"\nbypass = ["model"]', "parameters.lora_name.bypass", "takes output 1 of 'lora'"),
    (
        'type = "lora"',
        'type = "lora"\nbypass = ["model", "x"]',
        "parameters.lora_name.bypass",
        "no link at an input 'x'",
    ),
    ('type = "lora"', 'type = "lora"\nbypass = ["lora_name", "clip"]', "parameters.lora_name.bypass", "no link at"),
    ('type = "lora"', 'type = "lora"\nrequired = true\nbypass = ["model"]', "parameters.lora_name", "is never used"),
    ('type = "seed"', 'type = "seed"\nmin = 9\nmax = 8', "parameters.seed", "min (9) is greater than max (8)"),
    ('type = "lora"', 'type = "lora"\ndefault = "a"', "parameters.lora_name.default", "None"),
]


@pytest.mark.parametrize(("old", "new", "key", "reason"), INVALID_MANIFESTS)
def test_an_invalid_manifest_is_one_line_with_file_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    assert old in MANIFEST
    write(tmp_path, MANIFEST)
    file = tmp_path / "sample" / "workflow.toml"
    file.write_text(MANIFEST.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load(tmp_path)

    message = caught.value.message
    assert message.startswith(f"{file}: ")
    assert key in message
    assert reason in message
    assert "\n" not in message


def spoilt(node: str, **change: Any) -> dict[str, Any]:
    graph = copy.deepcopy(GRAPH)
    graph[node] |= change
    return graph


INVALID_GRAPHS = [
    ("{", "invalid JSON"),
    ('{"a": NaN}', "NaN is not a JSON number"),
    ("[" * 100_000, "invalid JSON"),
    ("[]", "not a graph"),
    ("{}", "not a graph"),
    ({"nodes": [], "links": []}, "Export (API)"),
    (GRAPH | {"a.b": GRAPH["save"]}, "a.b: node ids"),
    (GRAPH | {"extra": 5}, "extra.class_type: is missing"),
    (GRAPH | {"extra": {"class_type": "X"}}, "extra.inputs: is missing"),
    (spoilt("text", class_type=None), "text.class_type: is missing"),
    (spoilt("text", inputs={"clip": ["gone", 0], "text": ""}), "text.inputs.clip: links to missing node 'gone'"),
    (spoilt("text", inputs={"clip": ["lora"], "text": ""}), "text.inputs.clip: not a link"),
    (spoilt("text", inputs={"clip": ["lora", True], "text": ""}), "text.inputs.clip: not a link"),
    (spoilt("text", inputs={"clip": [1, 0], "text": ""}), "text.inputs.clip: not a link"),
]


@pytest.mark.parametrize(("graph", "reason"), INVALID_GRAPHS)
def test_an_invalid_graph_is_one_line_with_file_and_reason(tmp_path: Path, graph: object, reason: str) -> None:
    write(tmp_path, graph=graph)

    with pytest.raises(ConfigError) as caught:
        load(tmp_path)

    assert caught.value.message.startswith(f"{tmp_path / 'sample' / 'graph.json'}: ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no subfolder with a workflow\.toml"):
        load(tmp_path)
    write(tmp_path)
    (tmp_path / "sample" / "graph.json").unlink()
    with pytest.raises(ConfigError, match=r"graph\.json: cannot be read: No such file"):
        load(tmp_path)


def test_a_manifest_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "sample" / "workflow.toml").write_bytes(b'id = "\xff"')
    with pytest.raises(ConfigError, match=r"workflow\.toml: invalid TOML"):
        load(tmp_path)


def test_two_workflows_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    with pytest.raises(ConfigError, match="another folder also has a workflow 'sample'"):
        load_library([tmp_path / "one", tmp_path / "two"], ids={})


def test_other_files_and_folders_are_ignored(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").touch()
    assert [workflow.name for workflow in load(tmp_path).workflows] == ["sample"]
