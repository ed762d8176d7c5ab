"""What the lane's tests share: a test bed, and one with relays that catches a task at a step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import make_home
from tests.support.relayed_testbed import RelayedTestbed
from tests.support.testbed import free_port


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[RelayedTestbed]:
    with RelayedTestbed(tmp_path) as relayed:
        yield relayed


@pytest.fixture
def managed(tmp_path: Path) -> dict[str, Any]:
    """Settings for an engine with trial nodes that is the worker's own process."""
    home = make_home(tmp_path / "home")
    return {
        "comfyui__home": str(home),
        "comfyui__python": sys.executable,
        "comfyui__port": free_port(),
        "state__keep_days": 7,
    }
