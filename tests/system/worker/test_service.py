"""Reloading the configuration."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import flows
from tests.support.testbed import MINER_ID, Testbed, until

Break = Callable[[Testbed, int], tuple[str, str]]
"""Breaks something that a reload needs, with a port that is taken; returns what to replace in config.toml, by what."""


def test_sighup_reloads_after_finishing_the_tasks_in_hand(testbed):
    testbed.start_devnet()
    worker = testbed.start_worker(testbed.start_engine())
    testbed.ended(testbed.create())
    change(testbed, MINER_ID, MINER_ID + "-second")
    worker.send(signal.SIGHUP)
    until(lambda: len(testbed.logged("started")) == 2, why="the second start")
    (task,) = testbed.ended(testbed.create())
    assert task["status"] == "finished"
    assert task["leases"][0]["miner_id"] == MINER_ID + "-second"
    assert worker.stop() == 0


# ---- reloads that cannot work -----------------------------------------------------------------------------------


def change(testbed: Testbed, old: str, new: str) -> None:
    config = testbed.folder / "config.toml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def key(section: str, line: str) -> Break:
    return lambda _testbed, _port: (f"[{section}]\n", f"[{section}]\n{line}\n")


def setting(old: str, new: str) -> Break:
    return lambda testbed, port: (old.format(testbed=testbed), new.format(port=port, testbed=testbed))


def file(name: str, content: bytes) -> Break:
    """A file of the enabled workflow `own`, or config.toml, holds `content`."""

    def spoil(testbed: Testbed, _port: int) -> tuple[str, str]:
        (testbed.folder / name).write_bytes(content)
        return "", ""

    return spoil


def gone(name: str) -> Break:
    def remove(testbed: Testbed, _port: int) -> tuple[str, str]:
        (testbed.folder / name).unlink()
        return "", ""

    return remove


ENGINE = 'url = "{testbed.engine_url}"'
MANIFEST, GRAPH = "workflows/own/workflow.toml", "workflows/own/graph.json"
REFUSED = {
    "unknown key": (key("miner", "prefetsch = 1"), "prefetsch"),
    "wrong value": (setting('level = "DEBUG"', 'level = "LOUD"'), "level"),
    "broken TOML": (key("miner", "["), "config.toml"),
    "config.toml not UTF-8": (file("config.toml", b"\xff\xfe[miner]"), "config.toml"),
    "config.toml gone": (gone("config.toml"), "config.toml"),
    "unknown workflow in ids": (setting('"4" = ["own"]', '"4" = ["nosuch"]'), "nosuch"),
    "unknown workflow enabled": (setting('enabled = ["own"]', 'enabled = ["own", "nosuch"]'), "nosuch"),
    "broken manifest": (file(MANIFEST, b"name = "), "workflow.toml"),
    "manifest not UTF-8": (file(MANIFEST, b"\xff\xfe\x00"), "workflow.toml"),
    "broken graph": (file(GRAPH, b'{"save": '), "graph.json"),
    "graph too deep": (file(GRAPH, b"[" * 100_000), "graph.json"),
    "graph gone": (gone(GRAPH), "graph.json"),
    "two suffixes for one lane": (key("miner", 'suffixes = ["a", "b"]'), "suffixes"),
    "another state folder": (setting("/state", "/elsewhere"), "restart"),
    "home without main.py": (setting(ENGINE, 'home = "{testbed.folder}"'), "main.py"),
    "home without Python": (setting(ENGINE, 'home = "{testbed.folder}/home"\npython = "/no/python"'), "/no/python"),
    "ComfyUI's port taken": (setting(ENGINE, 'home = "{testbed.folder}/home"\nport = {port}'), "port {port}"),
    "the engine's port taken": (setting(ENGINE, "port = {port}"), "port {port}"),
    "status port taken": (setting("[status]\nenabled = false", "[status]\nport = {port}"), "port {port}"),
    "status host of no interface": (setting("[status]\nenabled = false", '[status]\nhost = "::2"\ntoken = "t"'), "::2"),
    "open status without token": (setting("[status]\nenabled = false", '[status]\nhost = "0.0.0.0"'), "token"),
}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens at."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_reload_that_cannot_work_changes_nothing(testbed: Testbed, taken: int, name: str) -> None:
    spoil, reason = REFUSED[name]
    testbed.start_devnet()
    testbed.add_workflow("own", flows.plain())
    (testbed.folder / "home").mkdir()
    (testbed.folder / "home" / "main.py").touch()
    worker = testbed.start_worker(testbed.start_engine(), workflows={"4": ["own"]})
    until(lambda: testbed.logged("started"), why="the start")
    old, new = spoil(testbed, taken)
    if old:
        change(testbed, old, new)
    worker.send(signal.SIGHUP)
    (refusal,) = until(lambda: testbed.logged("configuration_refused"), why="the refusal")
    assert reason.format(port=taken) in refusal["reason"], refusal
    assert "exception" not in refusal
    (task,) = testbed.ended(testbed.create(parameters={}))
    assert task["status"] == "finished"
    assert not testbed.logged("draining")
    assert len(testbed.logged("started")) == 1
    assert worker.stop() == 0


def test_a_refused_reload_leaves_files_in_transit_alone(testbed: Testbed) -> None:
    testbed.start_devnet()
    worker = testbed.start_worker(testbed.start_engine())
    until(lambda: testbed.logged("started"), why="the start")
    file: Path = testbed.folder / "state" / "lane-0" / "in-transit"
    file.mkdir()
    change(testbed, "[miner]\n", '[miner]\nsuffixes = ["a", "b"]\n')
    worker.send(signal.SIGHUP)
    until(lambda: testbed.logged("configuration_refused"), why="the refusal")
    assert file.exists()
    assert worker.stop() == 0
