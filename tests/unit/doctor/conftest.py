from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miner.config import Loaded, Settings
from miner.config.bundled import WORKFLOWS
from miner.doctor.facts import Facts
from miner.telemetry.health import Mark
from miner.workflows import Library, load_library
from tests.support.devnet import Running, serve
from tests.support.paths import STAND_INS
from tests.support.testbed import MINER_ID, Testbed


@pytest.fixture(scope="session")
def library() -> Library:
    return load_library([WORKFLOWS, STAND_INS], ids={})


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded engine in its own process."""
    with Testbed(tmp_path_factory.mktemp("engine")) as testbed:
        yield testbed.start_engine()


@pytest.fixture(scope="session")
def devnet() -> Iterator[Running]:
    with serve() as devnet:
        yield devnet


@pytest.fixture
def facts_of(tmp_path: Path, library: Library) -> Callable[..., Facts]:
    """Facts of settings with these sections; status is off, so that no other miner is queried."""

    def make(*, warnings: tuple[str, ...] = (), file: Path | None = None, **sections: dict[str, Any]) -> Facts:
        settings = Settings(
            **{
                "state": {"dir": tmp_path / "state"},
                "miner": {"id": MINER_ID},
                "workflows": {"enabled": ("upscaler-lanczos",)},
                "status": {"enabled": False},
                **sections,
            }
        )
        return Facts(Loaded(settings=settings, file=file, origin={}, warnings=warnings), library)

    return make


def only(marks: Any, name: str) -> Mark:
    """The only mark of that name."""
    (mark,) = [mark for mark in marks if mark.name == name]
    return mark


def levels(marks: Any) -> dict[str, str]:
    return {mark.name: mark.level for mark in marks}
