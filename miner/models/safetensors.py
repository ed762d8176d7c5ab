"""Checks a safetensors file by its header.

A file is eight bytes (the header's length, little-endian), the header in JSON, and the tensors without gaps: see
https://github.com/huggingface/safetensors#format. The header tells the length of the whole file, so a truncated or
padded file is found. Never: reads a tensor, or runs code.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, BinaryIO

LONGEST_HEADER = 100_000_000  # bytes: the format's own limit


def flaw_in(file: BinaryIO, size: int) -> str:
    """What is wrong with a file of `size` bytes, as the end of a sentence; "" for a complete safetensors file.

    Blocks while it reads the header. Raises OSError.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= LONGEST_HEADER:
        return "is not a safetensors file"
    if length > size - 8:
        begins = file.read(1) == b"{"
        return "is cut off: its header has no end" if begins else "is not a safetensors file"
    return header_flaw(file.read(length), data=size - 8 - length)


def read_header(file: BinaryIO) -> bytes:
    """The JSON of a file without flaws. Blocks; raises OSError."""
    return file.read(min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER))


def header_flaw(header: bytes, *, data: int) -> str:
    """The same for the header's JSON, with `data` bytes of tensors after it. Pure."""
    try:
        tensors = json.loads(header)
        spans = sorted(_span(tensor) for name, tensor in tensors.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "is not a safetensors file: invalid header"
    if any(begin > end for begin, end in spans):
        return "is not a safetensors file: a tensor ends before it begins"
    if any(one[1] != two[0] for one, two in pairwise([(0, 0), *spans])):
        return "is not a safetensors file: gaps between its tensors"
    end = spans[-1][1] if spans else 0
    if end > data:
        return f"is cut off: it has {data} bytes of tensors, but its header says {end}"
    return "" if end == data else f"has {data} bytes of tensors, but its header says {end}"


def _span(tensor: Any) -> tuple[int, int]:
    begin, end = tensor["data_offsets"]
    if type(begin) is not int or type(end) is not int or not isinstance(tensor["dtype"], str):
        raise TypeError
    return begin, end
