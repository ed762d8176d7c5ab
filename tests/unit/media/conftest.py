from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from miner.media.uploads import Uploader
from miner.net.addresses import parse_allow
from miner.task.stages import Media
from tests.unit.media.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


@pytest.fixture
def media(tmp_path: Path) -> Callable[[bytes | int], Media]:
    """A file of these bytes, or of so many that differ from their neighbours."""

    def make(content: bytes | int) -> Media:
        if isinstance(content, int):
            content = b"".join(number.to_bytes(8) for number in range(content // 8))
        path = tmp_path / "result.png"
        path.write_bytes(content)
        return Media(path=path, content_type="image/png", size=len(content))

    return make


@pytest.fixture
def uploader_of() -> Iterator[Callable[..., Uploader]]:
    """Makes uploaders that may reach one store, with a bucket in it; `changes` replace settings."""
    with ExitStack() as stack:

        def make(store: Store, **changes: Any) -> Uploader:
            settings = {"allow": parse_allow([f"127.0.0.1:{store.port}"]), "bucket": "results", "endpoint": store.url}
            made = Uploader(**(settings | {"region": "auto", "timeout": 20.0} | changes))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def uploader(store: Store, uploader_of: Callable[..., Uploader]) -> Uploader:
    return uploader_of(store)
