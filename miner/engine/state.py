"""What the routes work with, in one frozen record on the application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from miner.engine.dialect import Dialect
from miner.engine.executor import Executor
from miner.engine.folders import Folders
from miner.engine.hub import Hub
from miner.engine.interrupt import Interrupt
from miner.engine.nodes import Node
from miner.engine.prompts import Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One running engine."""

    dialect: Dialect
    folders: Folders
    nodes: Mapping[str, Node]
    prompts: Prompts
    interrupt: Interrupt
    hub: Hub
    executor: Executor
    numbers: Iterator[int]  # the next prompt's
    max_upload: int  # bytes, for any body


def engine_of(connection: HTTPConnection) -> Engine:
    engine: Engine = connection.app.state.engine
    return engine
