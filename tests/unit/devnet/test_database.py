"""devnet's transactions."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from miner.devnet.database import transaction


def test_a_commit_that_fails_leaves_no_transaction_open() -> None:
    """Else every later write would be part of it, and none would be kept."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("CREATE TABLE parents (id PRIMARY KEY)")
        db.execute("CREATE TABLE children (parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError), transaction(db):
            db.execute("INSERT INTO children VALUES (1)")
        assert not db.in_transaction
        with transaction(db):
            db.execute("INSERT INTO parents VALUES (1)")
        assert db.execute("SELECT count(*) FROM parents").fetchone() == (1,)
