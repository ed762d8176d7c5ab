from __future__ import annotations

from pathlib import Path

import pytest

from miner.workflows import Library, Workflow, load_library
from tests.workflows.sample import sample as load_sample

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bundled() -> Library:
    return load_library([ROOT / "workflows"], ids={})


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return load_sample(tmp_path_factory.mktemp("workflows"))
