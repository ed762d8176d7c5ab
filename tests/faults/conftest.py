"""One scene serves many cells, since starting it costs more than a cell; one that a cell spoils is replaced."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.scene import Scene, scene_in


class Stage:
    """The scene in use, and how to get another one."""

    def __init__(self, make_folder: Callable[[], Path]) -> None:
        self._make_folder = make_folder
        self._stack = ExitStack()
        self._scene: Scene | None = None
        self.usable = False

    def scene(self) -> Scene:
        if self._scene is None or not (self.usable and self._scene.sound):
            self.close()
            self._scene = self._stack.enter_context(scene_in(self._make_folder(), upload__timeout=3.0))
        self.usable = False  # until the cell has said otherwise
        return self._scene

    def close(self) -> None:
        self._stack.close()
        self._scene = None


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(lambda: tmp_path_factory.mktemp("faults"))
    yield stage
    stage.close()


@pytest.fixture
def scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    failed = request.session.testsfailed
    yield stage.scene()
    stage.usable = request.session.testsfailed == failed


@pytest.fixture
def small_disk_scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose miner keeps its state on a disk of its own, of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs one that is small, and the right to mount it: {mounted.stderr.strip()}")
    try:
        with scene_in(tmp_path, state=disk / "state") as scene:
            yield scene
    finally:
        subprocess.run(["umount", str(disk)], check=True)
