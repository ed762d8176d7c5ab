from __future__ import annotations

import os

import pytest

from miner.models.hash_db import HashDatabase
from miner.task.errors import MachineFault


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"model")
    return path


def test_hash_and_download_count_until_the_file_changes(workspace, file):
    workspace.hash_db.add_download(file, file.stat(), "abc")
    assert workspace.hash_db.hash_of(file) == workspace.hash_db.downloaded_hash(file) == "abc"
    os.utime(file, ns=(0, 1))
    assert workspace.hash_db.hash_of(file) == workspace.hash_db.downloaded_hash(file) == ""
    workspace.hash_db.add_hash(file, file.stat(), "def")
    assert workspace.hash_db.hash_of(file) == "def"


def test_a_link_in_place_of_a_download_does_not_count(workspace, file, tmp_path):
    workspace.hash_db.add_download(file, file.stat(), "abc")
    file.rename(tmp_path / "other")
    file.symlink_to(tmp_path / "other")
    assert workspace.hash_db.downloaded_hash(file) == ""


def test_the_database_is_shared_between_processes_and_kept(workspace, file, tmp_path):
    workspace.hash_db.add_download(file, file.stat(), "abc")
    other = HashDatabase(tmp_path / "state")
    assert other.downloaded_hash(file) == "abc"
    other.forget(file)
    other.close()
    assert workspace.hash_db.hash_of(file) == workspace.hash_db.downloaded_hash(file) == ""


def test_a_damaged_database_is_an_error_that_says_to_delete_it(tmp_path):
    (tmp_path / "models.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(MachineFault) as caught:
        HashDatabase(tmp_path)
    assert "models.db" in caught.value.message
    assert "delete it" in caught.value.hint
