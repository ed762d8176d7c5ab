"""A journal whose file or write-ahead log ends anywhere: the miner starts, and has what was whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Job, Lease, Outcome, Prepared, PresignedPut, Prompted

MINER = "0x00000000000000000000000000000000000d37e0"
CUTS = 40  # of each file


def write(journal: Journal, folder: Path) -> None:
    """A few tasks at every step."""
    ledger = Ledger(miner_id=MINER, journal=journal, folder=folder)
    job = Job(workflow="upscaler", values={}, images={}, deadline=60.0)
    for number in range(4):
        task_id = f"task-{number}"
        way = (
            Prepared(job=job, prompt_id=f"prompt-{number}"),
            Prompted(job=job, prompt_id=f"prompt-{number}"),
            Answered(outcome=Outcome(task_id=task_id, success=False, msg="no")),
        )
        ledger.take(
            Lease(
                task_id=task_id,
                task_type="upscaler",
                workflow_id="4",
                parameters={"image": "https://example.org/a.png"},
                target=PresignedPut(url="https://store.example.org/a.png?signature=s"),
                timeout_seconds=60.0,
                leased_at=float(number),
            )
        )
        for stage in way[:number]:
            ledger.advance(task_id, stage)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder as a power cut would leave it, with the log not yet moved into the file."""
    journal = Journal(tmp_path / "live")
    write(journal, tmp_path)
    shutil.copytree(tmp_path / "live", tmp_path / "killed", ignore=shutil.ignore_patterns("lock", "*-shm"))
    journal.close()
    return tmp_path / "killed"


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The folder after an orderly end: one file."""
    journal = Journal(tmp_path / "live")
    write(journal, tmp_path)
    journal.close()
    return tmp_path / "live"


def steps(folder: Path) -> list[str]:
    journal = Journal(folder)
    try:
        return [task.stage.name for task in journal.unfinished(MINER)]
    finally:
        journal.close()


def cut_copies(folder: Path, name: str, to: Path) -> list[Path]:
    """Copies of the folder, in each of which the file ends elsewhere."""
    size = (folder / name).stat().st_size
    copies = []
    for number in range(CUTS):
        copy = to / str(number)
        shutil.copytree(folder, copy)
        with (copy / name).open("r+b") as file:
            file.truncate(size * number // CUTS)
        copies.append(copy)
    return copies


WHOLE = ["leased", "prepared", "prompted", "answered"]


def test_a_log_that_is_cut_anywhere_costs_its_last_records_only(killed: Path, tmp_path: Path) -> None:
    seen = [len(steps(copy)) for copy in cut_copies(killed, "journal.db-wal", tmp_path / "cut")]
    assert steps(killed) == WHOLE
    assert seen == sorted(seen)  # the more is left, the more is known
    assert seen[-1] >= 3


def test_a_file_that_is_cut_anywhere_does_not_keep_the_miner_from_starting(closed: Path, tmp_path: Path) -> None:
    assert steps(closed) == WHOLE
    for copy in cut_copies(closed, "journal.db", tmp_path / "cut"):
        assert steps(copy) in ([], WHOLE)
