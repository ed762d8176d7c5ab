"""The form of a safetensors file, from its header alone.

A file is eight bytes (the header's length, little-endian), the header in JSON, and the tensors without a gap: see
https://github.com/huggingface/safetensors#format. So the header tells the length of the whole file, and a cut or a
padded one shows. Never: reads a tensor, or opens anything that could run code.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000  # bytes: the format's own limit


def flaw_of(path: Path) -> str:
    """Why the file at `path` is no whole safetensors file, as the end of a sentence; "" if it is one.

    Blocks for the reading of its header. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
            return "is no safetensors file"
        return header_flaw(file.read(length), data=size - 8 - length)


def header_flaw(header: bytes, *, data: int) -> str:
    """The same for the header's JSON, with `data` bytes of tensors after it. Pure."""
    try:
        tensors = json.loads(header)
        spans = sorted(_span(tensor) for name, tensor in tensors.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "is no safetensors file: its header makes no sense"
    if any(begin > end for begin, end in spans):
        return "is no safetensors file: a tensor ends before it begins"
    if any(one[1] != two[0] for one, two in pairwise([(0, 0), *spans])):
        return "is no safetensors file: its tensors do not follow each other"
    end = spans[-1][1] if spans else 0
    return "" if end == data else f"has {data} bytes of tensors, and its header says {end}"


def _span(tensor: Any) -> tuple[int, int]:
    begin, end = tensor["data_offsets"]
    if type(begin) is not int or type(end) is not int or not isinstance(tensor["dtype"], str):
        raise TypeError
    return begin, end
