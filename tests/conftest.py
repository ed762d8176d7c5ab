"""What every test shares."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.engine import make_home
from tests.support.forks import Fork
from tests.support.systemd import Manager
from tests.support.testbed import Testbed, free_port

# a test must not depend on this machine's speed
settings.register_profile("tests", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
Fork.in_use = True
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path) as testbed:
        yield testbed


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


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as manager:
        yield manager
