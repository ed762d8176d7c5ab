"""Graphs and pictures for the tests, each different from the ones before, so that nothing is cached by accident.

They are drawn from `secrets`, since `random` may be seeded anew for each test.
"""

from __future__ import annotations

import io
import secrets
import uuid
from typing import Any

from PIL import Image

Graph = dict[str, dict[str, Any]]


def node(kind: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def color() -> int:
    return secrets.randbelow(1 << 24)


def prefix() -> str:
    return f"contract-{uuid.uuid4().hex}/out"


def empty(**inputs: Any) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 64, "height": 48, "batch_size": 1, "color": color(), **inputs})


def simple(**inputs: Any) -> Graph:
    """An empty image, saved."""
    return {"1": empty(**inputs), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix())}


def scaled(image: str, *, scale_by: float = 1.5) -> Graph:
    """A loaded image, scaled and saved: the graph of the transcripts."""
    return {
        "1": node("LoadImage", image=image),
        "2": node("ImageScaleBy", image=["1", 0], upscale_method="lanczos", scale_by=scale_by),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix()),
    }


def long(length: int = 120) -> Graph:
    """A chain of nodes that takes much longer than a request does. Interrupt it."""
    graph = {"1": empty(width=1024, height=1024)}
    for number in range(2, length):
        factor = 0.5 if number % 2 else 2.0
        last = [str(number - 1), 0]
        graph[str(number)] = node("ImageScaleBy", image=last, upscale_method="lanczos", scale_by=factor)
    return graph | {str(length): node("PreviewImage", images=[str(length - 1), 0])}


def picture(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    return Image.frombytes(mode, size, secrets.token_bytes(size[0] * size[1] * len(mode)))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
