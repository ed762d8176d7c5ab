"""The bundled workflows: parameters, defaults, bindings."""

from __future__ import annotations

from typing import Any

import pytest

from miner.task.errors import JobFault
from miner.workflows import Library, Workflow
from miner.workflows.parameters import Plain, place_of

LORAS = ("tiny-flux.safetensors",)
LEAST = {
    "upscaler": {"image": "https://example.org/a.png"},
    "upscaler-lanczos": {"image": "https://example.org/a.png"},
    "flux-lora": {"prompt": "a cat", "lora_name": "tiny-flux"},
    "hunyuan-fp8": {"prompt": "a cat"},
    "mochi-fp8": {"prompt": "a cat"},
    "wan22-5b": {"prompt": "a cat"},
    "wan22-5b-img2vid": {"image": "https://example.org/a.png", "prompt": "a cat"},
    "flux-img2img": {"image": "https://example.org/a.png", "prompt": "a cat"},
}
# the public defaults of the protocol; of those that it does not have, the models' own
DEFAULTS: dict[str, dict[str, Any]] = {
    "upscaler": {},
    "upscaler-lanczos": {},
    "flux-lora": {
        "width": 680,
        "height": 1024,
        "steps": 15,
        "guidance": 3.5,
        "strength_model": 1.0,
        "aspect_ratio": "custom",
    },
    "hunyuan-fp8": {"width": 848, "height": 480, "length": 117, "steps": 20, "fps": 23},
    "mochi-fp8": {"width": 848, "height": 480, "length": 37, "steps": 30, "fps": 24, "quality": 80},
    "wan22-5b": {"width": 1280, "height": 704, "length": 121, "steps": 20, "fps": 24},
    "wan22-5b-img2vid": {"width": 1280, "height": 704, "length": 121, "steps": 20, "fps": 24},
    "flux-img2img": {"size": 1024, "denoise": 0.75, "steps": 20, "guidance": 3.5},
}
# parameter → where it has to arrive: class and input
ARRIVES: dict[str, dict[str, tuple[str, str]]] = {
    "upscaler": {"image": ("LoadImage", "image")},
    "upscaler-lanczos": {"image": ("LoadImage", "image")},
    "flux-lora": {
        "prompt": ("CLIPTextEncodeFlux", "t5xxl"),
        "lora_name": ("LoraLoader", "lora_name"),
        "strength_model": ("LoraLoader", "strength_model"),
        "width": ("EmptyLatentImage", "width"),
        "height": ("EmptyLatentImage", "height"),
        "guidance": ("CLIPTextEncodeFlux", "guidance"),
        "steps": ("BasicScheduler", "steps"),
        "seed": ("RandomNoise", "noise_seed"),
    },
    "hunyuan-fp8": {
        "prompt": ("CLIPTextEncode", "text"),
        "width": ("EmptyHunyuanLatentVideo", "width"),
        "height": ("EmptyHunyuanLatentVideo", "height"),
        "length": ("EmptyHunyuanLatentVideo", "length"),
        "steps": ("BasicScheduler", "steps"),
        "seed": ("RandomNoise", "noise_seed"),
        "fps": ("CreateVideo", "fps"),
    },
    "mochi-fp8": {
        "prompt": ("CLIPTextEncode", "text"),
        "width": ("EmptyMochiLatentVideo", "width"),
        "height": ("EmptyMochiLatentVideo", "height"),
        "length": ("EmptyMochiLatentVideo", "length"),
        "steps": ("KSampler", "steps"),
        "seed": ("KSampler", "seed"),
        "fps": ("SaveAnimatedWEBP", "fps"),
        "quality": ("SaveAnimatedWEBP", "quality"),
    },
    "wan22-5b": {
        "prompt": ("CLIPTextEncode", "text"),
        "width": ("Wan22ImageToVideoLatent", "width"),
        "height": ("Wan22ImageToVideoLatent", "height"),
        "length": ("Wan22ImageToVideoLatent", "length"),
        "steps": ("KSampler", "steps"),
        "seed": ("KSampler", "seed"),
        "fps": ("CreateVideo", "fps"),
    },
    "flux-img2img": {
        "image": ("LoadImage", "image"),
        "prompt": ("CLIPTextEncodeFlux", "t5xxl"),
        "size": ("ImageScaleToMaxDimension", "largest_size"),
        "denoise": ("BasicScheduler", "denoise"),
        "guidance": ("CLIPTextEncodeFlux", "guidance"),
        "steps": ("BasicScheduler", "steps"),
        "seed": ("RandomNoise", "noise_seed"),
    },
}
ARRIVES["wan22-5b-img2vid"] = ARRIVES["wan22-5b"] | {"image": ("LoadImage", "image")}
PROTOCOL = {
    "upscaler": ({"image"}, set()),
    "txt2img": (
        {"prompt"},
        {"lora_name", "strength_model", "aspect_ratio", "width", "height", "guidance", "steps", "seed"},
    ),
    "txt2vid": ({"prompt"}, {"width", "height", "length", "steps", "seed", "fps", "quality"}),
    "img2vid": ({"image", "prompt"}, {"width", "height", "length", "steps", "seed", "fps"}),
    "img2img": ({"image", "prompt"}, {"size", "denoise", "guidance", "steps", "seed"}),
}
EVERY = pytest.mark.parametrize("name", LEAST)


def test_the_library_holds_each_with_their_ids_and_formats(bundled: Library) -> None:
    assert {w.name: (w.manifest.id, w.task_type, w.manifest.output.format) for w in bundled.workflows} == {
        "upscaler": ("4", "upscaler", "png"),
        "upscaler-lanczos": ("", "upscaler", "png"),
        "flux-lora": ("3", "txt2img", "jpg"),
        "hunyuan-fp8": ("1", "txt2vid", "mp4"),
        "mochi-fp8": ("2", "txt2vid", "webp"),
        "wan22-5b": ("", "txt2vid", "mp4"),
        "wan22-5b-img2vid": ("", "img2vid", "mp4"),
        "flux-img2img": ("", "img2img", "jpg"),
    }


@EVERY
def test_every_parameter_of_the_protocol_is_taken_and_no_other(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    parameters = workflow.manifest.parameters
    required, optional = PROTOCOL[workflow.task_type]
    assert {key for key, parameter in parameters.items() if parameter.required} == required
    assert set(parameters) == required | optional


@EVERY
def test_public_defaults_are_in_force(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    values = workflow.check(LEAST[name], loras=LORAS).values
    asked = {key: values[key] for key in LEAST[name] if key in values}
    seed = {"seed": values["seed"]} if "seed" in values else {}
    assert values == DEFAULTS[name] | asked | seed
    assert ("seed" in values) == (workflow.task_type != "upscaler")


@EVERY
def test_the_graph_as_it_stands_holds_the_defaults(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    for parameter in workflow.manifest.parameters.values():
        if isinstance(parameter, Plain) and parameter.default is not None:
            for node, key in map(place_of, parameter.bind):
                assert workflow.graph[node]["inputs"][key] == parameter.default


@EVERY
def test_every_parameter_reaches_the_node_it_should(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    other: dict[str, Any] = {
        "prompt": "two dogs",
        "lora_name": "tiny-flux.safetensors",
        "strength_model": 0.25,
        "guidance": 4.5,
        "seed": 2**64 - 1,
        "size": 640,
        "denoise": 0.5,
    }
    other |= {"width": 192, "height": 256, "length": 13, "steps": 3, "fps": 12, "quality": 33}
    values = {key: other[key] for key in workflow.manifest.parameters if key in other}
    images = {"image": "mine.png"} if "image" in workflow.manifest.parameters else {}
    graph = workflow.fill(values, images=images, prefix="p")

    for key, (class_type, input_name) in ARRIVES[name].items():
        arrived = [
            body["inputs"][input_name]
            for node, body in graph.items()
            if body["class_type"] == class_type and node != "negative"
        ]
        assert arrived == [other.get(key, "mine.png")]
    assert graph[workflow.manifest.output.node]["inputs"]["filename_prefix"] == "p"


@EVERY
def test_every_weight_that_a_graph_names_is_listed_with_its_licence(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)
    bound = {place_of(bind) for parameter in workflow.manifest.parameters.values() for bind in parameter.bind}
    for one in workflow.variants:
        named = {
            value
            for node, body in one.graph.items()
            for key, value in body["inputs"].items()
            if (node, key) not in bound and str(value).endswith(".safetensors")
        }
        assert {model.name for model in one.manifest.models} == named, one.variant
    used = {model for one in workflow.variants for model in one.manifest.models}
    assert used == set(workflow.manifest.models)
    for model in workflow.manifest.models:
        assert model.url.endswith(f"/{model.name}")
        assert model.size is not None


def test_a_file_that_several_workflows_share_is_the_same_file(bundled: Library) -> None:
    facts: dict[tuple[str, str], Any] = {}
    for workflow in bundled.workflows:
        for model in workflow.manifest.models:
            assert facts.setdefault((model.folder, model.name), model) == model


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        ("1:1", (1024, 1024)),
        ("3:4", (896, 1152)),
        ("5:8", (832, 1216)),
        ("9:16", (768, 1344)),
        ("9:21", (640, 1536)),
        ("4:3", (1152, 896)),
        ("3:2", (1216, 832)),
        ("16:9", (1344, 768)),
        ("21:9", (1536, 640)),
        ("custom", (512, 768)),
    ],
)
def test_aspect_ratio_sets_the_size_in_both_spellings(bundled: Library, spelling: str, size: tuple[int, int]) -> None:
    for spelled in (spelling, f"{spelling} landscape {size[0]}x{size[1]}"):
        asked = LEAST["flux-lora"] | {"aspect_ratio": spelled, "width": 512, "height": 768}
        workflow = bundled.get("flux-lora")
        values = workflow.check(asked, loras=LORAS).values
        assert (values["width"], values["height"], values["aspect_ratio"]) == (*size, spelling)
        graph = workflow.fill(values, images={}, prefix="p")
        sizes = [(i["width"], i["height"]) for i in (body["inputs"] for body in graph.values()) if "width" in i]
        assert sizes == [size, size]  # of the latent, and of the sampling that depends on it


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("flux-lora", {"width": 683, "height": 1021}, {"width": 680, "height": 1024}),
        ("flux-lora", {"width": 684, "height": 1020}, {"width": 688, "height": 1024}),
        ("hunyuan-fp8", {"width": 850, "height": 475, "length": 73}, {"width": 848, "height": 480, "length": 73}),
        ("hunyuan-fp8", {"width": 856, "height": 471, "length": 72}, {"width": 864, "height": 464, "length": 69}),
        ("hunyuan-fp8", {"length": 120}, {"length": 117}),  # as many frames as the node makes of it
        ("mochi-fp8", {"width": 850, "height": 475, "length": 42}, {"width": 848, "height": 480, "length": 37}),
        ("mochi-fp8", {"length": 16}, {"length": 13}),
        ("mochi-fp8", {"length": 128}, {"length": 127}),
        ("wan22-5b", {"width": 848, "height": 480, "length": 73}, {"width": 864, "height": 480, "length": 73}),
    ],
)
def test_sizes_are_rounded_to_the_models_step(
    bundled: Library, name: str, asked: dict[str, Any], given: dict[str, Any]
) -> None:
    values = bundled.get(name).check(LEAST[name] | asked, loras=LORAS).values
    assert {key: values[key] for key in given} == given


@pytest.mark.parametrize(
    ("name", "asked", "reason"),
    [
        ("flux-lora", {"width": 2048, "height": 2048, "steps": 26}, "width x height x steps is 2048 x 2048 x 26"),
        ("flux-lora", {"strength_model": 1.01}, "strength_model is 1.01; it must be a number from 0 to 1"),
        ("flux-lora", {"noise_seed": 2**64}, "noise_seed is a number of 19 digits or more"),
        ("flux-lora", {"seed": 1, "noise_seed": 2}, "seed and noise_seed are names of the same parameter, but differ"),
        ("flux-lora", {"guidance": 31}, "guidance is 31; it must be a number from 0 to 30"),
        ("flux-lora", {"aspect_ratio": "2:1"}, "aspect_ratio is '2:1'; it must be one of custom, 1:1"),
        ("flux-lora", {"prompt": "x" * 4001}, "prompt is 4001 characters long"),
        ("flux-lora", {"prompt": "a cat, embedding:secret"}, "prompt contains 'embedding:'"),
        ("hunyuan-fp8", {"prompt": "embedding:a"}, "prompt contains 'embedding:'"),
        ("mochi-fp8", {"prompt": "embedding:a"}, "prompt contains 'embedding:'"),
        ("wan22-5b", {"prompt": "embedding:a"}, "prompt contains 'embedding:'"),
        ("hunyuan-fp8", {"width": 1280, "height": 1280, "length": 73}, "width x height x length is"),
        ("hunyuan-fp8", {"length": 133}, "length is 133; it must be a whole number from 1 to 129"),
        ("hunyuan-fp8", {"quality": 0}, "quality is 0; it must be a whole number from 1 to 100"),
        ("hunyuan-fp8", {"fps": 0}, "fps is 0; it must be a number from 1 to 60"),
        ("mochi-fp8", {"width": 1024, "height": 1024, "length": 55}, "width x height x length is 1024 x 1024 x 55"),
        ("mochi-fp8", {"length": 133}, "width x height x length is 848 x 480 x 133"),
        ("mochi-fp8", {"length": 128, "steps": 31}, "width x height x length x steps is 848 x 480 x 127 x 31"),
        ("mochi-fp8", {"steps": 101}, "steps is 101; it must be a whole number from 1 to 100"),
        ("wan22-5b", {"width": 1280, "height": 736}, "width x height is 1280 x 736"),
        ("wan22-5b-img2vid", {"prompt": "embedding:a"}, "prompt contains 'embedding:'"),
        ("wan22-5b-img2vid", {"width": 1280, "height": 736}, "width x height is 1280 x 736"),
        ("wan22-5b-img2vid", {"image": None}, "image is missing"),
        ("flux-img2img", {"prompt": "embedding:a"}, "prompt contains 'embedding:'"),
        ("flux-img2img", {"size": 1441}, "size is 1441; it must be a whole number from 64 to 1440"),
        ("flux-img2img", {"denoise": 0}, "denoise is 0; it must be a number from 0.05 to 1"),
    ],
)
def test_what_the_model_could_not_hold_or_should_not_do_is_refused(
    bundled: Library, name: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(JobFault) as caught:
        bundled.get(name).check(LEAST[name] | asked, loras=LORAS)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("flux-lora", {"width": 2048, "height": 2048}),
        ("flux-lora", {"steps": 100}),
        ("flux-lora", {"strength_model": 0}),
        ("hunyuan-fp8", {"width": 1280, "height": 720, "length": 73}),
        ("hunyuan-fp8", {"fps": 23.976}),
        ("mochi-fp8", {"width": 1024}),
        ("mochi-fp8", {"width": 1024, "height": 1024}),
        ("mochi-fp8", {"length": 127}),
        ("mochi-fp8", {"steps": 100, "fps": 12.5}),
        ("wan22-5b", {"width": 704, "height": 1280, "length": 121, "fps": 29.97}),
        ("wan22-5b-img2vid", {"width": 704, "height": 1280, "length": 121, "fps": 29.97}),
        ("flux-img2img", {"size": 1440, "denoise": 1, "steps": 50}),
    ],
)
def test_the_greatest_of_each_is_taken(bundled: Library, name: str, asked: dict[str, Any]) -> None:
    values = bundled.get(name).check(LEAST[name] | asked, loras=LORAS).values
    assert {key: values[key] for key in asked} == asked


def test_without_a_lora_the_base_model_renders(bundled: Library) -> None:
    workflow = bundled.get("flux-lora")
    values = workflow.check({"prompt": "a cat", "strength_model": 0.5}, loras=()).values
    graph = workflow.fill(values, images={}, prefix="p")
    assert set(graph) == set(workflow.graph) - {"lora"}
    assert graph["prompt"]["inputs"]["clip"] == ["encoders", 0]
    assert graph["shift"]["inputs"]["model"] == ["model", 0]
    assert workflow.graph["shift"]["inputs"]["model"] == ["lora", 0]


@pytest.mark.parametrize("name", sorted(set(LEAST) - {"upscaler", "upscaler-lanczos"}))
def test_a_seed_under_either_name_counts_and_one_left_open_is_drawn(bundled: Library, name: str) -> None:
    workflow = bundled.get(name)

    def seed(**given: Any) -> Any:
        checked = workflow.check({**LEAST[name], **given}, loras=LORAS)
        assert checked.ignored == ()
        return checked.values["seed"]

    assert seed(noise_seed=2**64 - 1) == 2**64 - 1
    assert seed(noise_seed="5") == seed(seed=5, noise_seed=5.0) == seed(seed=-1, noise_seed=5) == 5
    for left_open in (-1, -1.0, "-1", "random", "RANDOM", "", None):
        drawn = {seed(noise_seed=left_open), seed(seed=left_open), seed(seed=left_open, noise_seed=left_open)}
        assert len(drawn) == 3
        assert all(0 <= one < 2**53 for one in drawn)


@pytest.mark.parametrize("name", ["wan22-5b-img2vid", "flux-img2img"])
@pytest.mark.parametrize(
    ("size", "taken"),
    [((1, 1), True), ((400, 100), True), ((100, 400), True), ((401, 100), False), ((1, 5), False)],
)
def test_a_picture_of_which_too_little_would_be_left_is_refused(
    bundled: Library, name: str, size: tuple[int, int], taken: bool
) -> None:
    workflow = bundled.get(name)
    if taken:
        workflow.judge_picture("image", size)
        return
    with pytest.raises(JobFault) as caught:
        workflow.judge_picture("image", size)
    shape = f"{size[0]}x{size[1]}"
    assert caught.value.message == (f"image is {shape} pixels; its longer side may be at most 4 times the shorter one")


@pytest.mark.parametrize(("new", "old"), [("wan22-5b-img2vid", "wan22-5b"), ("flux-img2img", "flux-lora")])
def test_what_starts_from_a_picture_needs_no_other_files(bundled: Library, new: str, old: str) -> None:
    one, other = bundled.get(new), bundled.get(old)
    assert one.manifest.models == other.manifest.models
    assert one.manifest.variants == other.manifest.variants
    assert one.manifest.needs.vram_gb == other.manifest.needs.vram_gb


def test_lanczos_never_passes_for_the_model(bundled: Library) -> None:
    lanczos: Workflow = bundled.get("upscaler-lanczos")
    assert lanczos.manifest.id == ""
    assert all("upscaler-lanczos" not in names for names in bundled.ids.values())
    assert bundled.ids_of(["upscaler-lanczos"]) == ()
