from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miner.models.catalogue import ModelFile
from miner.models.download import RetryPolicy
from miner.models.hash_db import HashDatabase
from miner.models.progress import Stop
from miner.models.pull import Report, pull
from miner.models.store import Store
from tests.unit.models.server import FileServer, HubServer, hub

QUICK = RetryPolicy(attempts=4, base=0.01, cap=0.05)


class ProgressRecorder:
    """Keeps messages and the furthest byte of each file."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.furthest: dict[str, int] = {}

    def update(self, name: str, done: int, _total: int | None) -> None:
        self.furthest[name] = max(done, self.furthest.get(name, 0))

    def message(self, _name: str, text: str) -> None:
        self.messages.append(text)


class Workspace:
    """A models folder, a state folder, and a pull into them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.store = Store(self.root)
        self.hash_db = HashDatabase(folder / "state")
        self.progress = ProgressRecorder()
        self.stop = Stop()

    def pull(self, *wanted: ModelFile, **rest: Any) -> Report:
        options = {"retry": QUICK, "stop": self.stop, "progress": self.progress, **rest}
        return pull(wanted, store=self.store, hash_db=self.hash_db, **options)

    def put(self, file: ModelFile, data: bytes) -> Path:
        """Write `data` where the file belongs."""
        target = self.store.target(file)
        target.parent.mkdir(parents=True)
        target.write_bytes(data)
        return target

    def content(self, file: ModelFile) -> bytes:
        return self.store.target(file).read_bytes()

    def names(self) -> list[str]:
        """Every file under the models folder."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def hugging_face() -> Iterator[HubServer]:
    with hub() as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.hash_db.close()


@pytest.fixture
def model() -> Callable[..., ModelFile]:
    def make(url: str, **rest: Any) -> ModelFile:
        return ModelFile(**{"folder": "vae", "name": "model.bin", "url": url, **rest})

    return make
