"""Contents for tests: bytes without repeats, and complete safetensors files."""

from __future__ import annotations

import hashlib
import json


def content(size: int, seed: int = 0) -> bytes:
    """`size` bytes without two equal blocks."""
    blocks = (hashlib.sha512(b"%d %d" % (seed, number)).digest() for number in range(size // 64 + 1))
    return b"".join(blocks)[:size]


def gguf(size: int, seed: int = 0) -> bytes:
    """The same with the first bytes of a GGUF file."""
    return b"GGUF" + content(size - 4, seed)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def safetensors(size: int = 4096, *, header: object = None, data: int | None = None) -> bytes:
    """A safetensors file with one tensor of `size` bytes; `header` and `data` break it."""
    tensors = {"lora_up": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}, "__metadata__": {"a": "b"}}
    head = json.dumps(tensors if header is None else header).encode()
    return len(head).to_bytes(8, "little") + head + content(size if data is None else data)


def lora(size: int = 4096, seed: int = 0, *, layer: str = "lora_unet_single_blocks_0_linear1") -> bytes:
    """A LoRA of `size` bytes of tensors, for FLUX.1 unless `layer` says otherwise."""
    header = {f"{layer}.lora_up.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    head = json.dumps({**header, "__metadata__": {"seed": str(seed)}}).encode()
    return len(head).to_bytes(8, "little") + head + content(size, seed)
