"""What the lane's tests share: a test bed, and a scene with relays in which a task is caught at a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scene import Scene, scene_in
from tests.support.testbed import Testbed, free_port


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path) as testbed:
        yield testbed


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


@pytest.fixture
def managed() -> dict[str, Any]:
    """Settings for an engine with test nodes that is the worker's own process."""
    return {"comfyui__port": free_port(), "comfyui__args": ["--test-nodes"], "state__keep_days": 7}
