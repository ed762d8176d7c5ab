"""A small disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.small_disk import SmallDisk


@pytest.fixture
def mount() -> Iterator[Callable[[Path], None]]:
    """Mounts a disk of 256 KB on a folder."""
    with ExitStack() as stack:

        def mount(folder: Path) -> None:
            if not stack.enter_context(closing(SmallDisk(folder, "256k"))).mounted:
                pytest.skip("this user may not mount a disk: run this as root")

        yield mount
