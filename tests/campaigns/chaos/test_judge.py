"""The judge finds what it looks for: a campaign that shows nothing must have had nothing to show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns.chaos.judge import Struck, burned, recoveries, traces, wrongly_blamed
from tests.campaigns.chaos.work import Blame, Order

OURS = "this miner's renderer failed on the task; please create it again"
THEIRS = "image: the PNG file is broken"
LOST = "the miner lost this task in a restart before it could start; please create it again"
SERVER = "image: the server answered 500"
STORE = "the upload target refused the file (403)"


def order(blame: Blame) -> Order:
    return Order(kind="any", blame=blame, canary="zqx1qxz", in_base64="", fields={})


@pytest.mark.parametrize(
    ("blame", "told", "struck", "wrongly"),
    [
        ("good", OURS, "", False),
        ("good", LOST, "", False),
        ("good", THEIRS, "", True),
        ("good", SERVER, "", True),
        ("good", SERVER, "input 500", False),
        ("good", THEIRS, "input 500", True),
        ("good", STORE, "", True),
        ("good", STORE, "upload 403", False),
        ("wrong", THEIRS, "", False),
        ("wrong", OURS, "", True),
        ("wrong", LOST, "", False),
        ("wrong", "this miner cannot run workflow_id '4' now; please create it again", "", False),
        ("either", OURS, "", False),
        ("either", THEIRS, "", False),
    ],
)
def test_who_is_blamed(blame: Blame, told: str, struck: str, wrongly: bool) -> None:
    assert wrongly_blamed(order(blame), {"msg": told}, Counter([struck])) is wrongly


def test_what_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.db-wal").write_bytes(b"\0{zqx17qxz}\0signature=0123456789abcdef0123\0hush\0")
    (tmp_path / "state" / "lock").touch()
    found = traces([tmp_path / "state"], {"/history": b"a zqx2qxz", "/queue": b"[]"}, {"key": "hush", "token": "quiet"})
    assert found == {
        "state/journal.db-wal": ["key", "signature=0123456789abcdef", "zqx17qxz"],
        "/history": ["zqx2qxz"],
    }


def test_what_a_fault_cost() -> None:
    struck = [Struck(kind="first", began=10.0, ended=12.0), Struck(kind="second", began=20.0, ended=21.0)]
    tasks = [
        {"task_id": "a", "status": "failed", "answered_at": 15.0, "leases": [{"leased_at": 9.0}]},
        {"task_id": "b", "status": "finished", "answered_at": 16.0, "leases": [{"leased_at": 11.0}]},
        {"task_id": "c", "status": "finished", "answered_at": 17.5, "leases": [{"leased_at": 13.0}]},
        {"task_id": "d", "status": "failed", "answered_at": 25.0, "leases": [{"leased_at": 13.0}]},
    ]
    orders = {"a": order("good"), "d": order("wrong")}
    assert burned(tasks, orders, struck) == {"first": 1}
    assert recoveries(tasks, struck) == {"first": [5.5]}
