"""Test beds for the lane: a plain one, and one with relays that stops a task at a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.relayed_testbed import RelayedTestbed


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[RelayedTestbed]:
    with RelayedTestbed(tmp_path) as relayed:
        yield relayed
