"""A load of made-up tasks for a real worker: devnet, engine and worker as processes.

It promises that each task of a batch was answered, and once; that no loop failed; and that the sequencer, which is
strict, had nothing to complain of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from miner.config.bundled import WORKFLOWS
from miner.worker.lane.prepare import UNDELAYED_REFUSALS
from miner.workflows import load_library
from tests.support.paths import STAND_INS
from tests.support.strategies import ANYTHING, EXTRAS, TEXTS, details
from tests.support.testbed import Testbed, until

IDS = {"2": ["plain-video"], "3": ["plain-picture"], "4": ["upscaler-lanczos"]}

Order = dict[str, Any]
"""What devnet's control creates a task from."""


class LoadTestbed(Testbed):
    """A worker, and what it is asked to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.right: list[Order] = []
        self.tried: Counter[str] = Counter()  # statuses that tasks came to
        self._library = load_library([WORKFLOWS, STAND_INS], ids=IDS)

    def set_up(self) -> None:
        devnet = self.start_devnet(s3=True)
        self.start_worker(
            self.start_engine(),
            workflows=IDS,
            workflows__folders=[str(STAND_INS)],
            sequencer__poll_interval=0.01,
            upload__bucket="results",
            upload__endpoint=devnet.url,
            log__level="INFO",
        )
        self.right = [
            {"task_type": kind, "workflow_id": workflow, "task_details": {"parameters": parameters}}
            for kind, workflow, parameters in (
                ("upscaler", "4", {"image": self.picture()}),
                ("txt2img", "3", {"prompt": "a lighthouse"}),
            )
        ]

    def finish(self) -> None:
        """Check that it still does a right task, and stops when it is told to."""
        (good,) = self.ended(self.create(**self.right[0]))
        assert good["status"] == "finished", good["msg"]
        assert self.worker.stop() == 0

    def orders(self, size: int) -> st.SearchStrategy[list[Order]]:
        """Batches of tasks, some of which are right."""
        right = st.sampled_from(self.right)
        names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
        made_up = details(self._library, tuple(IDS)) | st.fixed_dictionaries(
            {"task_type": names, "workflow_id": names, "task_details": ANYTHING}
        )
        extra = st.fixed_dictionaries({}, optional=EXTRAS) | st.dictionaries(
            TEXTS.filter(_harmless), ANYTHING, max_size=2
        )
        spoilt = st.builds(lambda task, extra: {**task, "extra": extra}, right | made_up, extra)
        targets = st.sampled_from(["presigned", "s3", "none"])
        with_target = st.builds(lambda task, target: {**task, "target": target}, right | made_up, targets)
        orders = (right | made_up | spoilt | with_target).filter(_is_unicode)
        return st.lists(orders, min_size=size // 2, max_size=size)

    def serve(self, orders: Sequence[Order]) -> None:
        """Have them all done. Raises AssertionError with what went wrong; a dead worker is not asked again."""
        assert self.worker.alive, "the worker ended in an earlier batch"
        orders = list(self._mixed(orders))
        ids = [self.create(**order) for order in orders]
        until(lambda: self._unanswered(ids) == [] or self._bugs(), why="the answers")
        assert not self._bugs(), self._bugs()
        for task, order in zip(self.ended(*ids), orders, strict=True):
            verdicts = [answer["verdict"] for answer in task["answers"]]
            assert verdicts.count("first") == 1, (order, task)
            assert set(verdicts) <= {"first", "repeat"}, (order, task)
            assert task["msg"].isprintable(), task["msg"]
            self.tried[task["status"]] += 1
        assert self.devnet.stats()["violations"] == 0, self.devnet.stats()["violation_list"]

    def _mixed(self, orders: Sequence[Order]) -> Iterator[Order]:
        """With a right one in between now and then, since wrong ones in a row are answered ever more slowly."""
        for number, order in enumerate(orders):
            if number % UNDELAYED_REFUSALS == 0:
                yield self.right[-1]
            yield order

    def _unanswered(self, ids: Sequence[str]) -> list[str]:
        waiting = {task["task_id"] for task in self.devnet.tasks() if not task["answers"]}
        return [task_id for task_id in ids if task_id in waiting]

    def _bugs(self) -> list[dict[str, Any]]:
        return self.logged("loop_failed")


def _is_unicode(order: Order) -> bool:
    """devnet takes no half of a surrogate pair; `test_lies` sends those."""
    try:
        json.dumps(order, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _harmless(name: str) -> bool:
    """Whether a field leaves the task what it is: another id would be another task."""
    return name != "task_id"
