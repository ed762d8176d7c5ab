"""One scene serves many cells: starting its processes costs more than a cell. A cell that spoils it gets a new one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.scene import Scene, scene_in


class Stage:
    """The scene in use, and how to get another one."""

    def __init__(self, make_folder: Callable[[], Path], disk: Path) -> None:
        self._make_folder = make_folder
        self._disk = disk
        self._stack = ExitStack()
        self._scene: Scene | None = None
        self.usable = False

    def scene(self) -> Scene:
        if self._scene is None or not (self.usable and self._scene.sound):
            self.close()
            folder = self._make_folder()
            scene = scene_in(folder, state=self._disk / folder.name, upload__timeout=3.0)
            self._scene = self._stack.enter_context(scene)
        self.usable = False  # until the cell has said otherwise
        return self._scene

    def close(self) -> None:
        self._stack.close()
        self._scene = None


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 32 MB that holds the miner's state; a plain folder where this user may not mount one."""
    disk = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield disk
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, small_disk: Path) -> Iterator[Stage]:
    stage = Stage(lambda: tmp_path_factory.mktemp("faults"), small_disk)
    yield stage
    stage.close()


@pytest.fixture
def scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    failed = request.session.testsfailed
    yield stage.scene()
    stage.usable = request.session.testsfailed == failed
