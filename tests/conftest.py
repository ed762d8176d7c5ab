"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.testbed import Testbed

# a test must not depend on this machine's speed
settings.register_profile("tests", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path) as testbed:
        yield testbed
