"""Made-up replies through the client's own parser, the check of their parameters, the ledger and its journal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal, Self

from miner.config.bundled import WORKFLOWS
from miner.sequencer.replies import parse_reply
from miner.task.errors import JobFault, Retryable
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Closed, Job, Lease, Prepared, TaskInHand
from miner.workflows import Library, load_library
from tests.support.paths import ROOT, STAND_INS
from tests.support.strategies import LORAS
from tests.support.testbed import MINER_ID

PROMPT_ID = "00000000-0000-4000-8000-000000000000"
LONGEST_MSG = 4000  # characters; the longest names eight LoRAs

End = Literal["refused", "nothing to do", "wrong task", "task"]


class Replies:
    """A context manager: the bundled workflows and the tests' stand-ins, and a journal. `ends` counts what became."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.parent.name for root in (WORKFLOWS, STAND_INS) for path in root.glob("*/workflow.toml"))
        self.library: Library = load_library([WORKFLOWS, STAND_INS], ids={name: [name] for name in names})
        self.ids = tuple(names)
        self.ends: Counter[End] = Counter()
        self._journal = Journal(folder / "state")
        self._ledger = Ledger(miner_id=MINER_ID, journal=self._journal, folder=folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def take(self, data: bytes) -> None:
        """Raises AssertionError, or whatever escapes from the code."""
        try:
            lease = parse_reply(data, leased_at=1.0).lease
            end: End = "nothing to do" if lease is None else self._task(lease)
        except Retryable as refusal:
            assert_sound(refusal.message)
            end = "refused"
        self.ends[end] += 1

    def _task(self, lease: Lease) -> End:
        self._ledger.take(lease)
        self._assert_kept(lease)
        try:
            if lease.fault:
                raise JobFault(lease.fault)
            workflow = self.library.choose(lease, self.ids)
            checked = workflow.check(lease.parameters, loras=LORAS)
            job = Job(workflow=workflow.name, values=checked.values, images=checked.images, deadline=9.0)
            prepared = self._ledger.advance(lease.task_id, Prepared(job=job, prompt_id=PROMPT_ID))
            assert self._assert_kept(lease).stage == prepared.stage
        except JobFault as fault:
            assert_sound(fault.message)
            return "wrong task"
        finally:
            self._ledger.advance(lease.task_id, Closed(verdict="taken away"))
        return "task"

    def _assert_kept(self, lease: Lease) -> TaskInHand:
        """The task as a start after a crash would read it."""
        (kept,) = self._journal.unfinished(MINER_ID)
        assert kept.lease == lease
        return kept


def assert_sound(message: str) -> None:
    """A sentence for a consumer: one printable line without a path or a traceback of this machine."""
    assert message
    assert message.isprintable(), message
    assert len(message) <= LONGEST_MSG
    assert "Traceback" not in message
    assert "object at 0x" not in message
    assert str(ROOT) not in message
