"""One test bed serves many cells, since starting its processes costs more than a cell. A cell that fails spoils it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.relayed_testbed import RelayedTestbed
from tests.support.small_disk import SmallDisk


class Beds:
    """The test bed in use, and how to get another one."""

    def __init__(self, make_folder: Callable[[], Path], disk: Path) -> None:
        self._make_folder = make_folder
        self._disk = disk
        self._stack = ExitStack()
        self._testbed: RelayedTestbed | None = None
        self.usable = False

    def testbed(self) -> RelayedTestbed:
        if self._testbed is None or not (self.usable and self._testbed.sound):
            self.close()
            folder = self._make_folder()
            testbed = RelayedTestbed(folder, state=self._disk / folder.name, s3=True, upload__timeout=3.0)
            self._testbed = self._stack.enter_context(testbed)
        self.usable = False  # until the cell has said otherwise
        return self._testbed

    def close(self) -> None:
        self._stack.close()
        self._testbed = None


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 32 MB that holds the miner's state; a plain folder where this user may not mount one."""
    with closing(SmallDisk(tmp_path_factory.mktemp("disk"), "32m")) as disk:
        yield disk.folder


@pytest.fixture(scope="session")
def beds(tmp_path_factory: pytest.TempPathFactory, small_disk: Path) -> Iterator[Beds]:
    beds = Beds(lambda: tmp_path_factory.mktemp("faults"), small_disk)
    yield beds
    beds.close()


@pytest.fixture
def testbed(beds: Beds, request: pytest.FixtureRequest) -> Iterator[RelayedTestbed]:
    failed = request.session.testsfailed
    yield beds.testbed()
    beds.usable = request.session.testsfailed == failed
