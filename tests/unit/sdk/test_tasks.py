"""What a task puts on the wire, and what it refuses to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from miner.sdk import (
    FluxLoraTask,
    ImageToImageTask,
    ImageToVideoTask,
    InvalidTask,
    Text2VideoTask,
    UpscalerTask,
    WorkflowTask,
)

PICTURE = {"aspect_ratio": "custom", "width": 680, "height": 1024, "guidance": 3.5, "steps": 15, "seed": 0}
PHOTO = "https://a.example/b.jpg"
VIDEO = {"width": 848, "height": 480, "length": 37, "steps": 30, "seed": 7, "fps": 24, "quality": 80}


@pytest.mark.parametrize(
    ("kind", "task_type", "fields"),
    [
        (FluxLoraTask, "txt2img", {"prompt": "a cat", "lora_name": "ink"}),
        (FluxLoraTask, "txt2img", {"prompt": "a cat", "lora_name": "ink", **PICTURE}),
        (Text2VideoTask, "txt2vid", {"prompt": "a cat"}),
        (Text2VideoTask, "txt2vid", {"prompt": "a cat", **VIDEO}),
    ],
)
def test_a_task_sends_what_was_set_and_nothing_else(
    kind: type[WorkflowTask], task_type: str, fields: dict[str, Any]
) -> None:
    task = kind(**fields)
    assert task.task_type == task_type
    assert task.task_details == {"parameters": fields}


@pytest.mark.parametrize(
    ("kind", "task_type", "fields"),
    [
        (ImageToVideoTask, "img2vid", {"width": 704, "height": 1280, "length": 9, "steps": 4, "seed": 0, "fps": 12}),
        (ImageToImageTask, "img2img", {"size": 768, "denoise": 0.5, "guidance": 3.5, "steps": 4, "seed": 0}),
    ],
)
def test_a_task_that_starts_from_a_picture_sends_it_as_the_workflows_name_it(
    kind: type[WorkflowTask], task_type: str, fields: dict[str, Any]
) -> None:
    for given in ({}, fields):
        task = kind(image_url=PHOTO, prompt="a cat", **given)  # type: ignore[call-arg]
        assert task.task_type == task_type
        assert task.task_details == {"parameters": {"image": PHOTO, "prompt": "a cat", **given}}


def test_a_consumer_can_make_a_task_of_another_type() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class SongTask(WorkflowTask):
        lyrics: str

        @property
        def task_type(self) -> str:
            return "txt2song"

        @property
        def parameters(self) -> dict[str, Any]:
            return {"lyrics": self.lyrics, "key": None}

    assert SongTask(lyrics="la").task_details == {"parameters": {"lyrics": "la"}}


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: UpscalerTask(image_url=""), "UpscalerTask.image_url"),
        (lambda: UpscalerTask(image_url="photo.jpg"), "UpscalerTask.image_url"),
        (lambda: UpscalerTask(image_url="file:///etc/passwd"), "UpscalerTask.image_url"),
        (lambda: UpscalerTask(image_url="https://a.example", job_id_prefix=" "), "UpscalerTask.job_id_prefix"),
        (lambda: UpscalerTask(image_url="https://a.example", timeout_seconds=0), "UpscalerTask.timeout_seconds"),
        (lambda: FluxLoraTask(prompt=" ", lora_name="ink"), "FluxLoraTask.prompt"),
        (lambda: FluxLoraTask(prompt="a", lora_name=""), "FluxLoraTask.lora_name"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", aspect_ratio=""), "FluxLoraTask.aspect_ratio"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", width=0), "FluxLoraTask.width"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", height=True), "FluxLoraTask.height"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", steps=1.5), "FluxLoraTask.steps"),  # type: ignore[arg-type]
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", guidance=float("nan")), "FluxLoraTask.guidance"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", guidance=-1), "FluxLoraTask.guidance"),
        (lambda: FluxLoraTask(prompt="a", lora_name="ink", seed=-1), "FluxLoraTask.seed"),
        (lambda: Text2VideoTask(prompt="a", length=0), "Text2VideoTask.length"),
        (lambda: Text2VideoTask(prompt="a", fps=0), "Text2VideoTask.fps"),
        (lambda: Text2VideoTask(prompt="a", quality=101), "Text2VideoTask.quality"),
        (lambda: ImageToVideoTask(image_url="photo.jpg", prompt="a"), "ImageToVideoTask.image_url"),
        (lambda: ImageToVideoTask(image_url=PHOTO, prompt=""), "ImageToVideoTask.prompt"),
        (lambda: ImageToVideoTask(image_url=PHOTO, prompt="a", length=0), "ImageToVideoTask.length"),
        (lambda: ImageToImageTask(image_url="", prompt="a"), "ImageToImageTask.image_url"),
        (lambda: ImageToImageTask(image_url=PHOTO, prompt="a", size=0), "ImageToImageTask.size"),
        (lambda: ImageToImageTask(image_url=PHOTO, prompt="a", denoise=0), "ImageToImageTask.denoise"),
        (lambda: ImageToImageTask(image_url=PHOTO, prompt="a", denoise=1.01), "ImageToImageTask.denoise"),
    ],
)
def test_a_wrong_field_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(InvalidTask, match=field):
        make()


def test_neither_key_nor_prompt_is_in_a_tasks_repr() -> None:
    shown = repr(FluxLoraTask(prompt="a private wish", lora_name="ink", api_key="s3cret"))

    assert "private" not in shown
    assert "s3cret" not in shown
