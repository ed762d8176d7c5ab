from __future__ import annotations

import pytest

from miner.workflows import Library, Workflow, load_library
from tests.support.paths import ROOT
from tests.support.sample_workflow import sample as load_sample


@pytest.fixture(scope="session")
def bundled() -> Library:
    return load_library([ROOT / "workflows"], ids={})


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return load_sample(tmp_path_factory.mktemp("workflows"))
