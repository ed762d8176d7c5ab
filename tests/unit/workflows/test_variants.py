"""Which variant of a workflow a card renders, and manifests whose variants cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miner.task.errors import ConfigError
from miner.workflows import Card, Workflow, ranking
from miner.workflows.variants import capability_of, cuda_of, numbers_of
from tests.support.sample_workflow import MANIFEST, load, write

VARIANTS = """
[[models]]
folder = "diffusion_models"
name = "fast.safetensors"
url = "https://example.org/fast.safetensors"
licence = "Apache-2.0"

[[models]]
folder = "some_node"
name = "shared.safetensors"
url = "https://example.org/shared.safetensors"
licence = "Apache-2.0"

[[variants]]
name = "fast"
description = "Fast kernels"
needs = { vram_gb = 12, compute_capability = "8.9", torch_cuda = "13.0", comfyui = "0.33.0" }
sets.model = { unet_name = "fast.safetensors" }

[[variants]]
name = "large"
description = "Cards with much memory"
needs = { vram_gb = 32 }

[[variants]]
name = "small"
description = "Every other card"
sets.style = { blur = 1 }

[parameters.prompt]"""
GOOD = MANIFEST.replace("[parameters.prompt]", VARIANTS).replace('bind = ["style.blur"]', 'description = "gone"')
GB = 10**9


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return load(write(tmp_path_factory.mktemp("varied"), GOOD)).get("sample")


def card(gb: int, capability: tuple[int, int] | None, cuda: str = "13.0", comfyui: str = "0.33.0") -> Card:
    return Card(memory=gb * GB, compute_capability=capability, torch_cuda=numbers_of(cuda), comfyui=numbers_of(comfyui))


@pytest.mark.parametrize(
    ("on", "names"),
    [
        (card(24, (8, 9)), ["fast", "small"]),
        (card(80, (9, 0)), ["fast", "large", "small"]),
        (card(80, (8, 0)), ["large", "small"]),
        (card(8, (12, 0)), ["small"]),
        (card(24, (8, 9), cuda="12.8"), ["small"]),
        (card(24, (8, 9), comfyui="0.3.64"), ["small"]),
        (card(24, (8, 9), comfyui="0.33"), ["fast", "small"]),
        (card(24, (8, 9), comfyui="nightly"), ["fast", "small"]),  # judged once it runs
        (card(24, None), ["small"]),
        (card(48, None), ["large", "small"]),
        (Card(compute_capability=(8, 9), torch_cuda=(13, 0)), ["small", "fast", "large"]),
        (Card(), ["small", "large", "fast"]),
        (Card(is_cpu=True), ["small", "large"]),
    ],
)
def test_a_card_takes_the_first_that_it_can_run(varied: Workflow, on: Card, names: list[str]) -> None:
    assert [one.variant for one in ranking(varied, on).variants] == names


def test_every_refusal_says_what_the_card_lacks(varied: Workflow) -> None:
    found = ranking(varied, card(8, (7, 5), cuda="12.6", comfyui="0.3.64"))
    assert found.refused == {
        "fast": (
            "it has 8.0 GB of memory, not 12",
            "it has compute capability 7.5, not 8.9",
            "its torch is built for CUDA 12.6, not 13.0",
            "its ComfyUI is 0.3.64, not 0.33.0",
        ),
        "large": ("it has 8.0 GB of memory, not 32",),
    }
    assert ranking(varied, Card(memory=24 * GB)).refused["fast"] == (
        "its compute capability is unknown",
        "its torch's CUDA is unknown",
    )


def test_where_nothing_can_be_judged_the_least_demanding_comes_first(tmp_path: Path) -> None:
    needy = GOOD.replace('description = "Every other card"', 'description = "?"\nneeds.vram_gb = 6')
    one = load(write(tmp_path, needy)).get("sample")
    found = ranking(one, Card())
    assert [each.variant for each in found.variants] == ["small", "large", "fast"]
    assert found.why == "its video memory is unknown, and it needs least"
    assert [each.variant for each in ranking(one, card(5, (8, 9))).variants] == ["small"]
    assert "no variant fits" in ranking(one, card(5, (8, 9))).why


def test_the_operators_word_and_a_measurement_come_first(varied: Workflow) -> None:
    def first(*pinned: str, fastest: str = "") -> list[str]:
        return [one.variant for one in ranking(varied, card(40, (8, 9)), pinned=pinned, fastest=fastest).variants]

    assert first() == ["fast", "large", "small"]
    assert first(fastest="small") == ["small", "fast", "large"]
    assert first(fastest="gone") == first()
    assert first("large", fastest="small") == ["large"]
    assert first("small", "fast") == ["small", "fast"]
    with pytest.raises(ConfigError, match=r"workflows\.variants\.sample: unknown variant 'x'; .*: fast, large, small"):
        first("x")
    assert [one.variant for one in ranking(varied, card(8, (7, 0)), pinned=["fast"]).variants] == ["fast"]
    small = [one.variant for one in ranking(varied, card(8, (7, 0)), fastest="fast").variants]
    assert small == ["small"]  # measured on another card


def test_a_variant_is_the_workflow_with_its_weights_needs_and_constants(varied: Workflow) -> None:
    fast, large, small = varied.variants
    assert [model.name for model in fast.manifest.models] == ["fast.safetensors", "shared.safetensors"]
    assert [model.name for model in small.manifest.models] == ["sample.safetensors", "shared.safetensors"]
    assert fast.graph["model"]["inputs"] == {"unet_name": "fast.safetensors"}
    assert fast.manifest.needs.vram_gb == 12
    assert fast.manifest.needs.max_pixels == varied.manifest.needs.max_pixels
    assert large.graph == varied.graph
    assert small.graph["style"]["inputs"]["blur"] == 1
    assert fast.variants == (fast,)
    assert fast.name == varied.name
    plain = varied.fill({}, images={}, prefix="p")
    assert json.dumps(plain).replace("sample.safe", "fast.safe") == json.dumps(fast.fill({}, images={}, prefix="p"))


INVALID = [
    ('name = "large"', 'name = "fast"', "variants.1.name", "another variant is called 'fast'"),
    ('name = "large"', 'name = "Large!"', "variants.1.name", "should match pattern"),
    ('description = "Cards with much memory"\n', "", "variants.1.description", "Field required"),
    ("sets.style", "sets.stile", "variants.2.sets.stile.blur", "has no node 'stile'"),
    ("blur = 1", "blurr = 1", "variants.2.sets.style.blurr", "has no input 'blurr'"),
    ("blur = 1", "base = 1", "variants.2.sets.style.base", "is a link"),
    ("blur = 1", 'blur = "1"', "variants.2.sets.style.blur", "is '1', where the graph has 0.5"),
    ("blur = 1", "blur = true", "variants.2.sets.style.blur", "is true, where the graph has 0.5"),
    ("blur = 1", "blur = [1]", "variants.2.sets.style.blur", "valid"),
    ("blur = 1", "text = 'x'", "variants.2.sets.style.text", "bound to parameter 'style'"),
    ("sets.style = { blur = 1 }", "sets.save.filename_prefix = 'x'", "variants.2.sets.save", "the output's file name"),
    (
        'unet_name = "fast',
        'unet_name = "fst',
        "variants.0.sets.model.unet_name",
        "'fst.safetensors' is not in [[models]]",
    ),
    ("sets.style = { blur = 1 }", "sets.style = 1", "variants.2.sets.style", "valid dictionary"),
    ("sets.style = { blur = 1 }", "class_type = 1", "variants.2.class_type", "unknown key"),
    ("vram_gb = 32", "vram_gb = 2", "variants.1.needs.vram_gb", "less than the workflow's own, 4"),
    ("vram_gb = 32", "vram = 32", "variants.1.needs.vram", "unknown key"),
    ('"8.9"', '"Ada"', "variants.0.needs.compute_capability", "should match pattern"),
    ('"13.0"', "13.0", "variants.0.needs.torch_cuda", "valid string"),
    (
        '\nname = "fast.safetensors"',
        '\nname = "sample.safetensors"',
        "models.1",
        "diffusion_models/sample.safetensors is listed twice",
    ),
    (
        'folder = "diffusion_models"\nname = "fast',
        'folder = "vae"\nname = "fast',
        "variants.0: models: fast.safetensors",
        "'model' (UNETLoader) looks in diffusion_models or unet, not in vae",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "reason"), INVALID)
def test_an_invalid_variant_is_one_line_with_file_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.message.startswith(f"{tmp_path / 'sample' / 'workflow.toml'}: ")
    assert key in caught.value.message
    assert reason in caught.value.message


def test_an_empty_list_of_variants_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"variants: .*at least 1"):
        load(write(tmp_path, MANIFEST.replace('task_type = "txt2img"', 'task_type = "txt2img"\nvariants = []')))


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA GeForce RTX 5090", (12, 0)),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", (12, 0)),
        ("NVIDIA B200", (10, 0)),
        ("NVIDIA H100 80GB HBM3", (9, 0)),
        ("NVIDIA GH200 480GB", (9, 0)),
        ("NVIDIA H200", (9, 0)),
        ("NVIDIA GeForce RTX 4060 Ti", (8, 9)),
        ("NVIDIA RTX 6000 Ada Generation", (8, 9)),
        ("NVIDIA L40S", (8, 9)),
        ("NVIDIA A100-SXM4-80GB", (8, 0)),
        ("NVIDIA RTX A6000", (8, 6)),
        ("NVIDIA A10G", (8, 6)),
        ("NVIDIA GeForce RTX 3060", (8, 6)),
        ("Tesla T4", (7, 5)),
        ("NVIDIA GeForce GTX 1660 SUPER", (7, 5)),
        ("Quadro RTX 8000", (7, 5)),
        ("Tesla V100-SXM2-16GB", (7, 0)),
        ("Tesla P40", (6, 1)),
        ("AMD Radeon RX 7900 XTX", None),
        ("Intel(R) Arc(TM) A770 Graphics", None),
        ("mps", None),
        ("", None),
    ],
)
def test_a_card_elsewhere_is_known_by_its_name(name: str, capability: tuple[int, int] | None) -> None:
    assert capability_of(name) == capability


@pytest.mark.parametrize(
    ("torch", "cuda"),
    [("2.9.1+cu128", (12, 8)), ("2.11.0+cu130", (13, 0)), ("2.9.1+rocm6.4", None), ("2.9.1+cpu", None), ("", None)],
)
def test_a_torch_says_which_cuda_it_is_built_for(torch: str, cuda: tuple[int, ...] | None) -> None:
    assert cuda_of(torch) == cuda
