"""Messages between the worker and a decoder: a few facts as JSON, and bytes. Imported by both; imports next to nothing.

A frame is the length of the facts (4 bytes), that of the body (8 bytes), the facts, the body.
"""

from __future__ import annotations

import json
import struct
from typing import Any

HEAD = struct.Struct(">IQ")
MAX_FACTS = 4096  # bytes


def head(facts: dict[str, Any], size: int) -> bytes:
    """What comes before a body of `size` bytes."""
    text = json.dumps(facts).encode()
    return HEAD.pack(len(text), size) + text
