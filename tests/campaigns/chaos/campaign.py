"""One campaign: tasks are fed, faults strike at random, everything is mended, and what became of each task is counted.

The seed decides which tasks and which faults there are, and in which order; what meets what is the machine's chance.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.chaos.faults import ON_THE_ENGINE, ON_THE_WIRE
from tests.campaigns.chaos.testbed import ChaosTestbed
from tests.campaigns.chaos.work import orders

IN_FLIGHT = 8  # tasks that wait or run at a time
TIME_LIMIT = 540.0  # seconds of feeding; a slow machine gets through fewer tasks, and says so
LAST_PATIENCE = 180.0  # seconds for what is in hand when the last fault is mended; longer than any pause of the miner's
LOOK = 0.05  # seconds between two looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a campaign has shown."""

    seed: int
    tasks: int
    answered: int  # acknowledged, and it counted
    finished: int  # … with a result
    lost: int  # leased, and neither answered nor taken away
    answered_after_the_acknowledgement: int  # differently; a repetition is harmless
    repeated: int
    taken_away: int  # canceled or timed out
    silent: int  # leases that were lost for want of a sign of life
    never_leased: int  # canceled before
    violations: list[str]
    bugs: list[str]  # what the worker should never do
    faults: dict[str, int]
    seconds: float
    lost_tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.answered_after_the_acknowledgement or self.violations or self.bugs)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def run(
    *, tasks: int, seed: int, every: int = 8, comfyui_url: str = "", say: Callable[[str], None] = lambda _: None
) -> Report:
    """Run one in a temporary folder, with a fault `every` so many tasks on average. `say` is told of each."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        ChaosTestbed(Path(folder), comfyui_url=comfyui_url) as testbed,
    ):
        return Campaign(testbed, tasks=tasks, seed=seed, every=every, say=say).run()


class Campaign:
    def __init__(self, testbed: ChaosTestbed, *, tasks: int, seed: int, every: int, say: Callable[[str], None]) -> None:
        self._testbed = testbed
        self._tasks = tasks
        self._seed = seed
        self._every = every
        self._say = say
        self._kinds = {**ON_THE_WIRE, **(ON_THE_ENGINE if testbed.own_engine else {})}
        self._deck: list[str] = []
        self._faults: Counter[str] = Counter()
        self._bugs: list[str] = []
        self._created = 0
        self._begun = time.monotonic()

    def run(self) -> Report:
        rng = random.Random(self._seed)
        work = orders(self._testbed, random.Random(rng.random()), test_nodes=self._testbed.own_engine)
        next_fault = 0
        while self._created < self._tasks and self._seconds < TIME_LIMIT:
            self._feed(work)
            self._watch_worker()
            if self._created >= next_fault:
                next_fault += rng.randint(1, 2 * self._every - 1)
                self._strike(rng)
            else:
                time.sleep(LOOK)
        self._mend_and_wait()
        return self._report()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _feed(self, work: Any) -> None:
        counts = self._testbed.devnet.stats()["tasks"]
        alive = counts.get("waiting", 0) + counts.get("running", 0)
        for _ in range(min(IN_FLIGHT - alive, self._tasks - self._created)):
            self._testbed.create(**next(work).fields)
            self._created += 1

    def _strike(self, rng: random.Random) -> None:
        if not self._deck:  # each kind comes as often as any other
            self._deck = rng.sample(list(self._kinds), len(self._kinds))
        kind = self._deck.pop()
        self._faults[kind] += 1
        self._say(f"{self._seconds:5.0f} s  {self._created:4} tasks  {kind}")
        try:
            self._kinds[kind](self._testbed, random.Random(rng.random()))
        except AssertionError as error:
            self._note_bug(str(error))

    def _watch_worker(self) -> None:
        """It ends when it is told to, and by itself never."""
        worker = self._testbed.worker
        if not worker.alive:
            self._note_bug(f"the worker ended by itself with {worker.popen.returncode}")

    def _note_bug(self, text: str) -> None:
        self._bugs.append(text)
        self._say(f"BUG: {text}")
        self._testbed.restart_worker()

    def _mend_and_wait(self) -> None:
        """Let everything run undisturbed until nothing is left to do."""
        devnet, until = self._testbed.devnet, time.monotonic() + LAST_PATIENCE
        devnet.clear_faults()
        while time.monotonic() < until:
            counts = devnet.stats()["tasks"]
            if not counts.get("running") and not counts.get("waiting"):
                return
            self._watch_worker()
            time.sleep(LOOK)

    def _report(self) -> Report:
        devnet = self._testbed.devnet
        tasks, stats = devnet.tasks(), devnet.stats()
        answers = Counter(answer["verdict"] for task in tasks for answer in task["answers"])
        endings = Counter(lease["ended"] for task in tasks for lease in task["leases"])
        lost = [task for task in tasks if task["leases"] and task["leases"][-1]["ended"] is None]
        in_s3 = [task for task in tasks if task["status"] == "finished" and task["target"] == "s3"]
        missing = [task for task in in_s3 if not self._testbed.s3.has(task["result"])]
        return Report(
            seed=self._seed,
            tasks=len(tasks),
            answered=answers["first"],
            finished=sum(task["status"] == "finished" for task in tasks),
            lost=len(lost),
            answered_after_the_acknowledgement=answers["differing"],
            repeated=answers["repeat"],
            taken_away=endings["canceled"] + endings["timed out"],
            silent=endings["silent"],
            never_leased=sum(not task["leases"] for task in tasks),
            violations=[f"{v['route']} {v['status']}: {v['reason']}" for v in stats["violation_list"]],
            bugs=self._bugs
            + [f"{e['loop']} loop failed" for e in self._testbed.logged("loop_failed")]
            + [f"task {task['task_id']} finished without an object" for task in missing],
            faults=dict(sorted(self._faults.items())),
            seconds=round(self._seconds, 1),
            lost_tasks=lost,
        )
