"""Every bundled workflow through the whole way on a real ComfyUI that has its models (or stand-ins for them).

`COMFYUI_URL=http://127.0.0.1:8188 make contract` runs these too, each workflow in every variant. One that lacks its
models is skipped.
"""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from miner.config.bundled import WORKFLOWS
from miner.workflows import load_library
from tests.support.testbed import Testbed, until

URL = os.environ.get("COMFYUI_URL", "")
pytestmark = [
    pytest.mark.skipif(not URL, reason="COMFYUI_URL is not set: there is no real ComfyUI to run on"),
    pytest.mark.timeout(900),
]

FROM_PICTURES = ("wan22-5b-img2vid", "flux-img2img")
NAMES = ("upscaler", "upscaler-lanczos", "flux-lora", "hunyuan-fp8", "mochi-fp8", "wan22-5b", *FROM_PICTURES)
SMALL = {"prompt": "a lighthouse by the sea", "steps": 2, "seed": 7}
TASKS = {
    "upscaler": ("upscaler", {}, (256, 192)),
    "upscaler-lanczos": ("upscaler", {}, (256, 192)),
    "flux-lora": ("txt2img", {**SMALL, "lora_name": "tiny-flux", "width": 64, "height": 72}, (64, 72)),
    "hunyuan-fp8": ("txt2vid", {**SMALL, "width": 64, "height": 80, "length": 5, "fps": 12}, (64, 80)),
    "mochi-fp8": ("txt2vid", {**SMALL, "width": 64, "height": 80, "length": 7, "quality": 60}, (64, 80)),
    "wan22-5b": ("txt2vid", {**SMALL, "width": 64, "height": 96, "length": 5, "fps": 12}, (64, 96)),
    "wan22-5b-img2vid": ("img2vid", {**SMALL, "width": 64, "height": 96, "length": 5, "fps": 12}, (64, 96)),
    "flux-img2img": ("img2img", {**SMALL, "size": 96}, (96, 72)),
}


VARIANTS = {one.name: one.variants for one in load_library([WORKFLOWS], ids={}).workflows}


@pytest.fixture(scope="module", params=range(max(map(len, VARIANTS.values()))))
def testbed(tmp_path_factory, request):
    """A worker that renders the first variant of each workflow, the second of those that have one, and so on."""
    names = [name for name, variants in VARIANTS.items() if len(variants) > request.param]
    pins = ",".join(f"{name}={VARIANTS[name][request.param].variant}" for name in names if len(VARIANTS[name]) > 1)
    with Testbed(tmp_path_factory.mktemp("real")) as testbed:
        testbed.start_devnet()
        ids = {name: [name] for name in names}
        environ = {"XALORA_WORKFLOWS_VARIANTS": pins}
        testbed.start_worker(URL, workflows=ids, environ=environ, sequencer__poll_interval=0.5)
        until(lambda: testbed.logged("workflows_advertised"), why="the preflight")
        yield testbed
        assert testbed.devnet.stats()["violations"] == 0
        assert testbed.worker.stop(60) == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_decodes_at_the_size_that_was_asked_for(testbed, name):
    lacking = {one["workflow"] for one in testbed.logged("workflow_not_runnable")}
    if name not in testbed.logged("workflows_advertised")[-1]["names"]:
        if name not in lacking:
            pytest.skip("it has no more variants")
        reason = testbed.logged("workflow_not_runnable", workflow=name)[-1]["reason"]
        pytest.skip(f"this ComfyUI cannot run {name}: {reason}")
    task_type, parameters, size = TASKS[name]
    if task_type == "upscaler" or name in FROM_PICTURES:
        parameters = parameters | {"image": testbed.picture((64, 48))}
    task_id = testbed.create(task_type=task_type, workflow_id=name, parameters=parameters, timeout_seconds=600.0)
    (task,) = testbed.ended(task_id, patience=600)
    assert task["status"] == "finished", task["msg"]
    assert size_of(testbed.result(task)) == size
    done = testbed.logged("task_done", task_id=task_id)[0]
    chosen = [one["variant"] for one in testbed.logged("workflow_variant", workflow=name)]
    print(f"\n{name} {' '.join(chosen)}: {done['render_s']:.1f} s to render, {done['total_s']:.1f} s in all")


ALPHA = Image.new("RGBA", (30, 40), (200, 40, 40, 90))
SHAPES = [
    (Image.new("RGB", (1, 1), "teal"), (64, 64)),
    (Image.new("RGB", (2, 3), "teal"), (40, 64)),  # 42.7 x 64
    (Image.new("RGB", (1999, 501), "teal"), (64, 16)),
    (Image.new("RGB", (301, 1200), "teal"), (16, 64)),
    (Image.new("L", (97, 131), 90), (40, 64)),
    (ALPHA, (48, 64)),
]


@pytest.mark.parametrize(("picture", "size"), SHAPES, ids=[f"{one.mode}-{one.size}" for one, _ in SHAPES])
@pytest.mark.parametrize("name", FROM_PICTURES)
def test_a_picture_of_any_shape_is_taken(testbed, request, name, picture, size):
    if request.node.callspec.params["testbed"]:
        pytest.skip("one variant is enough: none has another graph")
    if name not in testbed.logged("workflows_advertised")[-1]["names"]:
        pytest.skip(f"this ComfyUI cannot run {name}")
    asked = {"size": 64} if name == "flux-img2img" else {"width": 96, "height": 64, "length": 1}
    data = io.BytesIO()
    picture.save(data, "PNG")
    image = testbed.store_input("shape.png", data.getvalue())
    parameters = {"prompt": "a boat", "steps": 1, "seed": 7, "image": image, **asked}
    task_type = name.rpartition("-")[2]
    task_id = testbed.create(task_type=task_type, workflow_id=name, parameters=parameters, timeout_seconds=600.0)
    (task,) = testbed.ended(task_id, patience=600)
    assert task["status"] == "finished", task["msg"]
    assert size_of(testbed.result(task)) == (size if name == "flux-img2img" else (96, 64))


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a picture or a video, after decoding every frame of it."""
    if data[4:8] == b"ftyp":
        av = pytest.importorskip("av")
        with av.open(io.BytesIO(data)) as video:
            frames = [(frame.width, frame.height) for frame in video.decode(video=0)]
        assert len(set(frames)) == 1
        return frames[0]
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
        return image.size
