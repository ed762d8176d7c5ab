"""Whether a file of PyTorch's older format (`torch.save` before 1.6) is whole.

Such a file is five pickles (magic, protocol, system, the object, the keys of its storages), then each storage: its
number of elements in eight bytes, and the elements. See `_legacy_save` in torch/serialization.py. The pickles are
walked as a list of opcodes, and never run.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any, BinaryIO

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MOST = 16 << 20  # bytes to read; the pickles of a model have under 1 MB
_ELEMENT = {
    **dict.fromkeys(("DoubleStorage", "LongStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage"), 1),
}
_VALUES = ("GLOBAL", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BININT", "BININT1", "BININT2", "LONG1")


def flaw_in(file: BinaryIO, size: int) -> str | None:
    """What is wrong with a file of `size` bytes that begins with MAGIC; "" if it is whole, None if it does not tell."""
    pickles = io.BytesIO(file.read(_MOST))
    try:
        for _ in ("magic", "protocol", "system"):
            _walk(pickles)
        storages, _ = _walk(pickles)
        _, keys = _walk(pickles)
    except (ValueError, UnicodeDecodeError):  # pickletools: the bytes end within an opcode
        return "is cut off: its list of tensors has no end" if size <= _MOST else None
    try:
        whole = pickles.tell() + sum(8 + storages[key] for key in keys)
    except KeyError:
        return None
    return "" if size >= whole else f"is cut off: it has {size} bytes of {whole}"


def _walk(pickles: io.BytesIO) -> tuple[dict[str, int], list[str]]:
    """Read one pickle: bytes of each storage that it refers to, by key; all its texts. Raises ValueError at an end."""
    storages: dict[str, int] = {}
    texts: list[str] = []
    memo: dict[int, Any] = {}
    items: list[Any] = []  # since the last mark: a reference is (MARK "storage" class key place elements …)
    for opcode, value, _ in pickletools.genops(pickles):
        if opcode.name == "MARK":
            items = []
        elif opcode.name in _VALUES:
            items.append(value)
            texts += [value] if isinstance(value, str) else []
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            items.append(memo.get(value or 0))
        elif opcode.name in ("BINPUT", "LONG_BINPUT") and items and isinstance(value, int):
            memo[value] = items[-1]
        elif opcode.name == "BINPERSID" and len(items) > 4 and isinstance(items[4], int):
            element = _ELEMENT.get(str(items[1]).rpartition(" ")[2])
            if element:
                storages[items[2]] = items[4] * element
    return storages, texts
