"""A stub sequencer, and a place where neither the environment nor a `.env` says anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stub import Stub


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XALORA_API_KEY", "XALORA_WORKFLOW_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
