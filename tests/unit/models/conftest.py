from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miner.models.catalogue import ModelFile
from miner.models.download import Patience
from miner.models.hash_db import Records
from miner.models.progress import Stop
from miner.models.pull import Report, pull
from miner.models.store import Store
from tests.unit.models.server import Files, Hub, files, hub

QUICK = Patience(attempts=4, base=0.01, cap=0.05)


class Seen:
    """A Watch that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.most: dict[str, int] = {}

    def at(self, place: str, done: int, _total: int | None) -> None:
        self.most[place] = max(done, self.most.get(place, 0))

    def says(self, _place: str, text: str) -> None:
        self.said.append(text)


class Bench:
    """A models folder, a state folder, and one way to pull into them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.store = Store(self.root)
        self.records = Records(folder / "state")
        self.watch = Seen()
        self.stop = Stop()

    def pull(self, *wanted: ModelFile, **rest: Any) -> Report:
        options = {"patience": QUICK, "stop": self.stop, "watch": self.watch, **rest}
        return pull(wanted, store=self.store, records=self.records, **options)

    def content(self, file: ModelFile) -> bytes:
        return self.store.target(file).read_bytes()

    def names(self) -> list[str]:
        """Every file under the models folder."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Iterator[Files]:
    with files() as server:
        yield server


@pytest.fixture
def hugging_face() -> Iterator[Hub]:
    with hub() as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.records.close()


@pytest.fixture
def model() -> Callable[..., ModelFile]:
    def make(url: str, **rest: Any) -> ModelFile:
        return ModelFile(**{"folder": "vae", "name": "model.pth", "url": url, **rest})

    return make
