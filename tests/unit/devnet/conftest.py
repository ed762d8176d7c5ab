"""Devnets to talk to. Starting one is cheap and stopping one is not, so tests share them, emptied after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from miner.devnet.options import DevnetOptions
from tests.support.devnet import Running, serve
from tests.unit.devnet.talk import Talk

Start = Callable[..., Talk]


class _Pool:
    """Running devnets by their options."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._running: dict[str, tuple[Running, Path]] = {}

    def get(self, options: dict[str, Any]) -> tuple[Running, Path]:
        name = repr(sorted(options.items()))
        if name not in self._running:
            state = self._folder / str(len(self._running))
            running = self._stack.enter_context(serve(DevnetOptions(durable=False, state=state, **options)))
            self._running[name] = running, state
        return self._running[name]


@pytest.fixture(scope="session")
def _pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Pool]:
    with ExitStack() as stack:
        yield _Pool(stack, tmp_path_factory.mktemp("devnets"))


@pytest.fixture
def start(_pool: _Pool) -> Iterator[Start]:
    """Gives a devnet with the options that a test names."""
    with ExitStack() as stack:

        def begin(**options: Any) -> Talk:
            devnet, state = _pool.get(options)
            stack.callback(devnet.reset)
            return Talk(devnet=devnet, session=stack.enter_context(requests.Session()), state=state)

        yield begin


@pytest.fixture
def talk(start: Start) -> Talk:
    """A devnet with its defaults."""
    return start()
