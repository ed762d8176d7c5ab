"""How ComfyUI words an exception: its full type name and its traceback as lines."""

from __future__ import annotations

import traceback

_OOM_TIPS = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have "
    "accidentally set the batch_size to a large number."
)


def type_name(error: BaseException) -> str:
    """`ValueError`, `PIL.UnidentifiedImageError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def lines(error: BaseException) -> list[str]:
    return traceback.format_tb(error.__traceback__)


def message(error: BaseException) -> str:
    """The error's text, a line break, and advice if ComfyUI has any."""
    return f"{error}\n{_OOM_TIPS if type(error).__name__ == 'OutOfMemoryError' else ''}"
