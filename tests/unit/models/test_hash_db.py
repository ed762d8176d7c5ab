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


def test_a_hash_holds_until_the_file_changes(bench, file):
    bench.hash_db.add_hash(file, file.stat(), "abc")
    assert bench.hash_db.hash_of(file) == "abc"
    os.utime(file, ns=(0, 1))
    assert bench.hash_db.hash_of(file) == ""


def test_a_download_is_ours_until_somebody_changes_it(bench, file):
    bench.hash_db.add_download(file, file.stat(), "abc")
    assert bench.hash_db.downloaded_hash(file) == "abc"
    file.write_bytes(b"somebody's")
    assert bench.hash_db.downloaded_hash(file) == ""


def test_a_link_in_place_of_a_download_is_not_ours(bench, file, tmp_path):
    bench.hash_db.add_download(file, file.stat(), "abc")
    file.rename(tmp_path / "other")
    file.symlink_to(tmp_path / "other")
    assert bench.hash_db.downloaded_hash(file) == ""


def test_records_are_shared_and_kept(bench, file, tmp_path):
    bench.hash_db.add_download(file, file.stat(), "abc")
    other = HashDatabase(tmp_path / "state")
    assert other.downloaded_hash(file) == "abc"
    other.forget(file)
    other.close()
    assert bench.hash_db.hash_of(file) == bench.hash_db.downloaded_hash(file) == ""


def test_damaged_records_are_an_error_that_says_they_can_be_deleted(tmp_path):
    (tmp_path / "models.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(MachineFault) as caught:
        HashDatabase(tmp_path)
    assert "models.db" in caught.value.message
    assert "delete it" in caught.value.hint
