"""What a consumer can ask for: a task of each type, checked when it is made. Nothing here does I/O.

Names are those of the network's Node SDK, in snake case. A field that is left out is not sent, and the workflow's own
default counts; bounds belong to the workflow too, and are checked by the miner that runs it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from miner.sdk.errors import InvalidTask


class WorkflowTaskType(StrEnum):
    """The task types, as they are sent: the network's three, and two that start from a picture."""

    UPSCALER = "upscaler"
    FLUX_LORA = "txt2img"
    TEXT2VIDEO = "txt2vid"
    IMAGE2VIDEO = "img2vid"
    IMAGE2IMAGE = "img2img"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTask(ABC):
    """A task of any type. Subclass it for another type: define `task_type` and `parameters`."""

    consumer_id: str | None = None  # None: the client's
    job_id_prefix: str = "sdk-workflow"  # the job id is `<prefix>-<10 hex digits>`
    timeout_seconds: float | None = None  # how long the network may take; None: the workflow's own
    workflow_id: str | None = None  # None: any workflow of this type
    api_key: str | None = field(default=None, repr=False)  # the key alone, not the combined one; None: the client's

    @property
    @abstractmethod
    def task_type(self) -> str:
        """One of WorkflowTaskType, or the network's name of another."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The parameters by their names on the wire; None is not sent."""

    @property
    def task_details(self) -> dict[str, Any]:
        """`{"parameters": {…}}`, as it is sent."""
        return {"parameters": {name: value for name, value in self.parameters.items() if value is not None}}

    def __post_init__(self) -> None:
        _check_text(self, "job_id_prefix")
        _check_numbers(self, "timeout_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerTask(WorkflowTask):
    """Enlarge a picture. Raises InvalidTask."""

    image_url: str = field(repr=False)  # http, https or a `data:` URI

    @property
    def task_type(self) -> str:
        return WorkflowTaskType.UPSCALER

    @property
    def parameters(self) -> dict[str, Any]:
        return {"image": self.image_url}

    def __post_init__(self) -> None:
        WorkflowTask.__post_init__(self)
        _check_picture(self, self.image_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxLoraTask(WorkflowTask):
    """Draw a picture of a prompt, perhaps with a LoRA. Raises InvalidTask."""

    prompt: str = field(repr=False)
    lora_name: str | None = None  # with or without `.safetensors`; None: the base model
    strength_model: float | None = None  # of the LoRA, 0 to 1
    aspect_ratio: str | None = None  # `16:9` and the like; `custom`: width and height count
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    guidance: float | None = None
    steps: int | None = None
    seed: int | None = None  # None: drawn by the miner

    @property
    def task_type(self) -> str:
        return WorkflowTaskType.FLUX_LORA

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "lora_name": self.lora_name,
            "strength_model": self.strength_model,
            "aspect_ratio": self.aspect_ratio,
            "width": self.width,
            "height": self.height,
            "guidance": self.guidance,
            "steps": self.steps,
            "seed": self.seed,
        }

    def __post_init__(self) -> None:
        WorkflowTask.__post_init__(self)
        _check_text(self, "prompt")
        if self.lora_name is not None:
            _check_text(self, "lora_name")
        _check_whole(self, "width", "height", "steps")
        _check_whole(self, "seed", least=0)
        _check_numbers(self, "guidance", "strength_model", least=0)
        if self.aspect_ratio is not None:
            _check_text(self, "aspect_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text2VideoTask(WorkflowTask):
    """Make a video of a prompt. Raises InvalidTask."""

    prompt: str = field(repr=False)
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    length: int | None = None  # frames
    steps: int | None = None
    seed: int | None = None  # None: drawn by the miner
    fps: float | None = None  # frames per second
    quality: int | None = None  # 1–100

    @property
    def task_type(self) -> str:
        return WorkflowTaskType.TEXT2VIDEO

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "width": self.width,
            "height": self.height,
            "length": self.length,
            "steps": self.steps,
            "seed": self.seed,
            "fps": self.fps,
            "quality": self.quality,
        }

    def __post_init__(self) -> None:
        WorkflowTask.__post_init__(self)
        _check_text(self, "prompt")
        _check_whole(self, "width", "height", "length", "steps", "quality")
        _check_whole(self, "seed", least=0)
        _check_numbers(self, "fps")
        if self.quality is not None and self.quality > 100:
            raise InvalidTask(f"Text2VideoTask.quality is not from 1 to 100: {self.quality}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToVideoTask(WorkflowTask):
    """Make a video that starts with a picture and goes on as a prompt says. Raises InvalidTask."""

    image_url: str = field(repr=False)  # http, https or a `data:` URI
    prompt: str = field(repr=False)
    width: int | None = None  # pixels; the picture is scaled to fill width x height
    height: int | None = None  # pixels
    length: int | None = None  # frames
    steps: int | None = None
    seed: int | None = None  # None: drawn by the miner
    fps: float | None = None  # frames per second

    @property
    def task_type(self) -> str:
        return WorkflowTaskType.IMAGE2VIDEO

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "image": self.image_url,
            "prompt": self.prompt,
            "width": self.width,
            "height": self.height,
            "length": self.length,
            "steps": self.steps,
            "seed": self.seed,
            "fps": self.fps,
        }

    def __post_init__(self) -> None:
        WorkflowTask.__post_init__(self)
        _check_picture(self, self.image_url)
        _check_text(self, "prompt")
        _check_whole(self, "width", "height", "length", "steps")
        _check_whole(self, "seed", least=0)
        _check_numbers(self, "fps")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToImageTask(WorkflowTask):
    """Draw a picture anew after a prompt. Raises InvalidTask."""

    image_url: str = field(repr=False)  # http, https or a `data:` URI
    prompt: str = field(repr=False)
    size: int | None = None  # pixels of the result's longer side; the other follows the picture
    denoise: float | None = None  # how much may change, above 0 to 1; 1 keeps nothing of the picture
    guidance: float | None = None
    steps: int | None = None
    seed: int | None = None  # None: drawn by the miner

    @property
    def task_type(self) -> str:
        return WorkflowTaskType.IMAGE2IMAGE

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "image": self.image_url,
            "prompt": self.prompt,
            "size": self.size,
            "denoise": self.denoise,
            "guidance": self.guidance,
            "steps": self.steps,
            "seed": self.seed,
        }

    def __post_init__(self) -> None:
        WorkflowTask.__post_init__(self)
        _check_picture(self, self.image_url)
        _check_text(self, "prompt")
        _check_whole(self, "size", "steps")
        _check_whole(self, "seed", least=0)
        _check_numbers(self, "denoise")
        _check_numbers(self, "guidance", least=0)
        if self.denoise is not None and self.denoise > 1:
            raise InvalidTask(f"ImageToImageTask.denoise is above 1: {self.denoise}")


def _check_picture(task: WorkflowTask, url: str) -> None:
    _check_text(task, "image_url")
    if not url.lower().startswith(("http://", "https://", "data:image/")):
        name = type(task).__name__
        raise InvalidTask(f"{name}.image_url is not a URL: use http://…, https://… or data:image/…")


def _check_text(task: WorkflowTask, *names: str) -> None:
    for name in names:
        value = getattr(task, name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidTask(f"{type(task).__name__}.{name} is empty, or not a string")


def _check_whole(task: WorkflowTask, *names: str, least: int = 1) -> None:
    for name in names:
        value = getattr(task, name)
        # bool is an int in Python, but a consumer's mistake
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InvalidTask(f"{type(task).__name__}.{name} is not a whole number of at least {least}: {value!r}")


def _check_numbers(task: WorkflowTask, *names: str, least: float | None = None) -> None:
    """Finite, and at least `least`, or without one above 0."""
    for name in names:
        value = getattr(task, name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (value <= 0 if least is None else value < least):
            bound = "above 0" if least is None else f"of at least {least:g}"
            raise InvalidTask(f"{type(task).__name__}.{name} is not a number {bound}: {value!r}")
