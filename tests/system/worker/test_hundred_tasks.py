"""One hundred tasks of all five types in one run, including wrong ones."""

from __future__ import annotations

import io
import random
from base64 import b64encode

from PIL import Image

from tests.support.paths import STAND_INS
from tests.support.transparent import encoded

IDS = {"2": ["plain-video"], "3": ["plain-picture"], "4": ["upscaler-lanczos"]}
IDS |= {"motion": ["plain-motion"], "6": ["plain-redraw"]}


def good_tasks(testbed, rng):
    """(what to create, the size that has to come out) without end."""
    while True:
        width, height = 16 * rng.randint(1, 8), 16 * rng.randint(1, 8)
        picture = testbed.picture((width, height), f"{width}x{height}.png")
        yield {"parameters": {"image": picture}}, (4 * width, 4 * height)
        asked = {"prompt": "a lighthouse", "width": width, "height": height, "seed": rng.randint(0, 9999)}
        yield {"task_type": "txt2img", "workflow_id": "3", "parameters": asked}, (width, height)
        asked = {"prompt": "waves", "width": width, "height": height, "length": 5, "quality": 40}
        yield {"task_type": "txt2vid", "workflow_id": "2", "parameters": asked}, (width, height)
        photo = testbed.picture((37, 101), "portrait.png")  # its middle, and its shape
        asked = {"prompt": "waves", "image": photo, "width": width, "height": height, "length": 2}
        yield {"task_type": "img2vid", "workflow_id": "motion", "parameters": asked}, (width, height)
        asked = {"prompt": "waves", "image": photo, "size": 40}
        yield {"task_type": "img2img", "workflow_id": "6", "parameters": asked}, (40, 109)


NARROW = "data:image/png;base64," + b64encode(encoded(Image.new("RGB", (9, 2)), "PNG")).decode()
WRONG = (
    ({"parameters": {"image": "ftp://example.org/a.png"}}, "image"),
    ({"parameters": {"image": "http://169.254.169.254/latest/meta-data"}}, "image"),
    ({"task_type": "txt2img", "workflow_id": "3", "parameters": {"width": 64}}, "prompt is missing"),
    ({"task_type": "txt2img", "workflow_id": "3", "parameters": {"prompt": "x", "width": 10**9}}, "width"),
    ({"task_type": "txt2img", "workflow_id": "3", "parameters": {"prompt": "x", "height": True}}, "height"),
    ({"task_type": "txt2vid", "workflow_id": "2", "parameters": {"prompt": "x", "length": "many"}}, "length"),
    ({"task_type": "txt2vid", "workflow_id": "2", "parameters": {"prompt": ["x"]}}, "prompt"),
    ({"task_type": "txt2vid", "workflow_id": "4", "parameters": {"prompt": "x"}}, "task_type"),
    ({"task_type": "txt2vid", "workflow_id": "2", "task_details": [1]}, "task_details"),
    ({"target": "none"}, "upload_url"),
    ({"task_type": "img2img", "workflow_id": "6", "parameters": {"prompt": "x"}}, "image is missing"),
    (
        {"task_type": "img2img", "workflow_id": "6", "parameters": {"prompt": "x", "image": NARROW}},
        "image is 9x2 pixels",
    ),
)


def test_each_task_is_answered_once_with_its_result_or_reason(testbed):
    rng = random.Random(7)
    devnet = testbed.start_devnet(s3=True)
    testbed.start_worker(
        testbed.start_engine(),
        workflows=IDS,
        workflows__folders=[str(STAND_INS)],
        upload__bucket="results",
        upload__endpoint=devnet.url,
    )
    good, wrong = {}, {}
    tasks = good_tasks(testbed, rng)
    for number in range(100):
        if number % 8 == 7:
            changes, reason = WRONG[number // 8]
            wrong[testbed.create(**changes)] = reason
        else:
            changes, size = next(tasks)
            form = rng.choice(["object", "string"])
            target = rng.choice(["presigned", "s3"])
            good[testbed.create(**changes, details_form=form, target=target)] = size
    ended = {task["task_id"]: task for task in testbed.ended(*good, *wrong)}

    assert len(ended) == 100
    assert [len(task["answers"]) for task in ended.values()] == [1] * 100
    for task_id, size in good.items():
        assert ended[task_id]["status"] == "finished", ended[task_id]["msg"]
        with Image.open(io.BytesIO(testbed.result(ended[task_id]))) as image:
            image.load()
            assert image.size == size
            assert not {"prompt", "workflow", "exif"} & set(image.info)
    for task_id, reason in wrong.items():
        assert ended[task_id]["status"] == "failed"
        assert reason in ended[task_id]["msg"]
    assert devnet.stats()["violations"] == 0
