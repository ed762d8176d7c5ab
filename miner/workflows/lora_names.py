"""The names of LoRAs: what a task may write for one that ComfyUI lists, and the base models that they are for. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

LoraBase = Literal[
    "flux", "flux2", "hunyuan-video", "wan", "wan-1.3b", "wan-5b", "wan-14b", "mochi", "ltx", "qwen-image", "sd15",
    "sd2", "sdxl", "sd3", "sd", "hidream", "z-image", "lumina2", "auraflow",
]  # fmt: skip
"""Base models that a LoRA's tensors tell. `sd`: Stable Diffusion up to SDXL, with too few tensors to tell which; `wan`:
Wan, of unknown size."""

TITLES = {
    "flux": "FLUX.1",
    "flux2": "FLUX.2",
    "sd15": "Stable Diffusion 1.5",
    "sd2": "Stable Diffusion 2",
    "sdxl": "SDXL",
}

_SUFFIX = re.compile(r"\.safetensors\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Which references a task may write in place of a name."""

    named: Mapping[str, str] = field(default_factory=dict)  # key of a reference → the file that it was fetched as
    fetched: bool = False  # others are fetched for the task


NOWHERE = Elsewhere()


def title(base: str) -> str:
    """A base model's name for people."""
    return TITLES.get(base, base)


def find_lora(name: str, listed: Sequence[str]) -> str | None:
    """The listed name that `name` means: with or without `.safetensors` in any case, `\\` or `/` between folders, in
    any Unicode normal form. The exact name comes first, then one that only lacks its suffix. None: no such LoRA.
    """
    if name in listed:
        return name
    known: dict[str, str] = {}
    for one in listed:
        known.setdefault(_plain(one), one)
    return known.get(_plain(name)) or known.get(_plain(f"{name}.safetensors"))


def _plain(name: str) -> str:
    return _SUFFIX.sub("", unicodedata.normalize("NFC", name).replace("\\", "/"))
