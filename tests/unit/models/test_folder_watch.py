"""A model that is added or removed is reported once, and not before it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from miner.models.folder_watch import FolderWatch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "models" / "loras" / "there.safetensors").write_bytes(b"old")
    return tmp_path / "models"


def statuses(folder_watch: FolderWatch, times: int = 4) -> list[bool]:
    return [folder_watch.changed() for _ in range(times)]


ONCE = [False, True, False, False]
NEVER = [False] * 4


def put(root: Path) -> None:
    (root / "loras" / "new.safetensors").write_bytes(b"new")


def put_in_a_new_folder(root: Path) -> None:
    (root / "upscale_models" / "mine").mkdir(parents=True)
    (root / "upscale_models" / "mine" / "x4.pth").write_bytes(b"new")


def rename(root: Path) -> None:
    (root / "loras" / "there.safetensors").rename(root / "loras" / "renamed.safetensors")


def replace(root: Path) -> None:
    (root / "loras" / "there.safetensors").write_bytes(b"another")


def replace_by_one_of_the_same_size_and_time(root: Path) -> None:
    there, new = root / "loras" / "there.safetensors", root / "loras" / "new.part"
    shutil.copy2(there, new)
    new.write_bytes(b"new")
    os.utime(new, ns=(0, there.stat().st_mtime_ns))
    new.rename(there)


def delete(root: Path) -> None:
    (root / "loras" / "there.safetensors").unlink()


def link_a_folder(root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.safetensors").write_bytes(b"far")
    (root / "checkpoints").symlink_to(elsewhere)


@pytest.mark.parametrize(
    "change",
    [put, put_in_a_new_folder, rename, replace, replace_by_one_of_the_same_size_and_time, delete, link_a_folder],
)
def test_a_change_under_the_root_is_reported_once(root: Path, change: Callable[[Path], None]) -> None:
    folder_watch = FolderWatch([root])
    assert statuses(folder_watch) == NEVER
    change(root)
    assert statuses(folder_watch) == ONCE


@pytest.mark.parametrize("name", ["new.safetensors.part", "new.safetensors.part.json", "preview.png", "cache.db"])
def test_other_files_are_ignored(root: Path, name: str) -> None:
    folder_watch = FolderWatch([root])
    (root / "loras" / name).write_bytes(b"")
    assert statuses(folder_watch) == NEVER


def test_a_growing_file_is_reported_once_it_stops(root: Path) -> None:
    folder_watch = FolderWatch([root])
    with (root / "loras" / "copied.safetensors").open("wb", buffering=0) as file:
        for _ in range(3):
            file.write(b"more")
            assert not folder_watch.changed()
            assert folder_watch.unsettled
    assert statuses(folder_watch) == [True, False, False, False]
    assert not folder_watch.unsettled


def test_a_growing_file_hides_no_other_change(root: Path) -> None:
    folder_watch = FolderWatch([root])
    with (root / "loras" / "copied.safetensors").open("wb", buffering=0) as file:
        told = []
        for turn in range(6):
            file.write(b"more")
            if turn == 1:
                put(root)
            told.append(folder_watch.changed())
        assert told == [False, False, False, True, False, False]
        assert len(folder_watch.writing) == 1
    assert statuses(folder_watch) == [*ONCE[1:], False]


def test_a_model_that_is_written_over_is_gone_until_it_is_whole(root: Path) -> None:
    folder_watch = FolderWatch([root])
    with (root / "loras" / "there.safetensors").open("r+b", buffering=0) as file:
        told = []
        for _ in range(4):
            file.write(b"over")
            told.append(folder_watch.changed())
        assert told == [False, True, False, False]
    assert statuses(folder_watch) == [*ONCE[1:], False]


def test_an_abandoned_copy_is_not_reported(root: Path) -> None:
    folder_watch = FolderWatch([root])
    put(root)
    assert not folder_watch.changed()
    (root / "loras" / "new.safetensors").unlink()
    assert statuses(folder_watch) == NEVER
    assert not folder_watch.unsettled


def test_a_root_may_appear_later_and_a_link_may_lead_back(root: Path) -> None:
    folder_watch = FolderWatch([root / "loras", root.parent / "later"])
    (root.parent / "later").symlink_to(root)
    (root / "loras" / "again").symlink_to(root)
    assert statuses(folder_watch) == NEVER  # its models are known by another path
    put(root)
    assert statuses(folder_watch) == ONCE
