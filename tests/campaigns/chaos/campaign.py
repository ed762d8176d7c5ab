"""One campaign: tasks are fed, faults strike at random, everything is mended, and what became of each task is judged.

The seed decides which tasks and which faults there are, and in which order; what meets what is the machine's chance.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.campaigns.chaos import judge
from tests.campaigns.chaos.faults import possible
from tests.campaigns.chaos.judge import Struck
from tests.campaigns.chaos.testbed import ChaosTestbed
from tests.campaigns.chaos.work import Order, orders
from tests.support.comfyui import Installed
from tests.support.testbed import until

IN_FLIGHT = 8  # tasks that wait or run at a time
TIME_LIMIT = 900.0  # seconds of feeding; a slow machine gets through fewer tasks, and says so
LAST_PATIENCE = 180.0  # seconds for what is in hand when the last fault is mended; longer than any pause of the miner's
CLEANUP = 30.0  # seconds until what answered tasks left behind is gone
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
    wrongly_blamed: list[str]
    left_behind: dict[str, list[str]]  # place → traces of answered tasks, or files
    ready_again: bool
    repeated: int
    taken_away: int  # canceled or timed out
    silent: int  # leases that were lost for want of a sign of life
    never_leased: int  # canceled before
    pauses: int  # of a workflow, after faults
    seconds: float  # of feeding
    violations: list[str]
    bugs: list[str]  # what the worker should never do
    faults: dict[str, int]
    skipped: list[str]  # faults that cannot strike here
    burned: dict[str, int]  # the fault before → good tasks that failed
    recovery: dict[str, str]  # fault → seconds to the next result, median and most
    told: dict[str, int]  # kind of task, and what its consumer read → how often
    lost_tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        wrong = self.lost or self.answered_after_the_acknowledgement or self.wrongly_blamed or self.left_behind
        return self.ready_again and not (wrong or self.violations or self.bugs)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def run(
    *,
    tasks: int,
    seed: int,
    every: int = 8,
    installed: Installed | None = None,
    managed: bool = False,
    time_limit: float = TIME_LIMIT,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run one, with a fault `every` so many tasks on average. `say` is told of each. `keep`: a folder for its files."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with ChaosTestbed(folder, installed=installed, managed=managed) as testbed:
            return Campaign(testbed, tasks=tasks, seed=seed, every=every, time_limit=time_limit, say=say).run()


class Campaign:
    def __init__(
        self,
        testbed: ChaosTestbed,
        *,
        tasks: int,
        seed: int,
        every: int,
        time_limit: float,
        say: Callable[[str], None],
    ) -> None:
        self._testbed = testbed
        self._tasks = tasks
        self._seed = seed
        self._every = every
        self._time_limit = time_limit
        self._say = say
        self._kinds, self._skipped = possible(testbed)
        self._deck: list[str] = []
        self._struck: list[Struck] = []
        self._bugs: list[str] = []
        self._orders: dict[str, Order] = {}
        self._begun, self._fed = time.monotonic(), 0.0

    def run(self) -> Report:
        rng = random.Random(self._seed)
        work = orders(self._testbed, random.Random(rng.random()))
        next_fault = 0
        while len(self._orders) < self._tasks and self._seconds < self._time_limit:
            self._feed(work)
            self._watch_worker()
            if len(self._orders) >= next_fault:
                next_fault += rng.randint(1, 2 * self._every - 1)
                self._strike(rng)
            else:
                time.sleep(LOOK)
        self._fed = self._seconds
        self._mend_and_wait()
        return self._report()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _feed(self, work: Iterator[Order]) -> None:
        counts = self._testbed.devnet.stats()["tasks"]
        alive = counts.get("waiting", 0) + counts.get("running", 0)
        for _ in range(min(IN_FLIGHT - alive, self._tasks - len(self._orders))):
            order = next(work)
            self._orders[self._testbed.create(**order.fields)] = order

    def _strike(self, rng: random.Random) -> None:
        if not self._deck:  # each kind comes as often as any other
            self._deck = rng.sample(list(self._kinds), len(self._kinds))
        kind, began = self._deck.pop(), time.time()
        self._say(f"{self._seconds:5.0f} s  {len(self._orders):4} tasks  {kind}")
        try:
            self._kinds[kind](self._testbed, random.Random(rng.random()))
        except AssertionError as error:
            self._note_bug(f"{kind}: {error}")
        self._struck.append(Struck(kind=kind, began=began, ended=time.time()))

    def _watch_worker(self) -> None:
        """It ends when it is told to, and by itself never."""
        worker = self._testbed.worker
        if not worker.alive:
            self._note_bug(f"the worker ended by itself with {worker.popen.returncode}")

    def _note_bug(self, text: str) -> None:
        after = self._struck[-1].kind if self._struck else "no fault"
        self._bugs.append(f"{text} (after {after})")
        self._say(f"BUG: {self._bugs[-1]}")
        self._testbed.restart_worker()

    def _mend_and_wait(self) -> None:
        """Let everything run undisturbed until nothing is left to do."""
        devnet, end = self._testbed.devnet, time.monotonic() + LAST_PATIENCE
        devnet.clear_faults()
        while time.monotonic() < end:
            counts = devnet.stats()["tasks"]
            if not counts.get("running") and not counts.get("waiting"):
                return
            self._watch_worker()
            time.sleep(LOOK)

    # ---- what it showed ---------------------------------------------------------------------------

    def _report(self) -> Report:
        testbed = self._testbed
        ready_again = _happens(testbed.ready, within=LAST_PATIENCE)
        _happens(lambda: not self._left_behind(), within=CLEANUP)
        tasks, stats = testbed.devnet.tasks(), testbed.devnet.stats()
        answers = Counter(answer["verdict"] for task in tasks for answer in task["answers"])
        endings = Counter(lease["ended"] for task in tasks for lease in task["leases"])
        lost = [task for task in tasks if task["leases"] and task["leases"][-1]["ended"] is None]
        failed = [task for task in tasks if task["status"] == "failed"]
        faults = Counter(fault.kind for fault in self._struck)
        recoveries = judge.recoveries(tasks, self._struck)
        return Report(
            seed=self._seed,
            tasks=len(tasks),
            answered=answers["first"],
            finished=sum(task["status"] == "finished" for task in tasks),
            lost=len(lost),
            answered_after_the_acknowledgement=answers["differing"],
            wrongly_blamed=[
                self._told(task) for task in failed if judge.wrongly_blamed(self._order(task), task, faults)
            ],
            left_behind=self._left_behind(),
            ready_again=ready_again,
            repeated=answers["repeat"],
            taken_away=endings["canceled"] + endings["timed out"],
            silent=endings["silent"],
            never_leased=sum(not task["leases"] for task in tasks),
            pauses=len(testbed.logged("workflow_paused")),
            seconds=round(self._fed, 1),
            violations=[f"{v['route']} {v['status']}: {v['reason']}" for v in stats["violation_list"]],
            bugs=[*self._bugs, *self._seen_in_the_log(), *self._missing(tasks)],
            faults=dict(sorted(faults.items())),
            skipped=self._skipped,
            burned=judge.burned(tasks, self._orders, self._struck),
            recovery={kind: f"{statistics.median(t):.1f}, {max(t):.1f}" for kind, t in sorted(recoveries.items())},
            told=dict(Counter(self._told(task) for task in failed).most_common()),
            lost_tasks=lost,
        )

    def _order(self, task: dict[str, Any]) -> Order:
        return self._orders[task["task_id"]]

    def _told(self, task: dict[str, Any]) -> str:
        order = self._order(task)
        return f"{order.kind}: {task['msg'].replace(order.canary, '…')}"

    def _seen_in_the_log(self) -> Iterator[str]:
        for event in self._testbed.logged("loop_failed"):
            yield f"{event['loop']} loop failed"
        for event in self._testbed.logged("task_crashed"):
            yield f"a task crashed: {event.get('error', event)}"

    def _missing(self, tasks: list[dict[str, Any]]) -> Iterator[str]:
        for task in tasks:
            if task["status"] == "finished" and task["target"] == "s3" and not self._testbed.s3.has(task["result"]):
                yield f"task {task['task_id']} finished without an object"

    def _left_behind(self) -> dict[str, list[str]]:
        """Traces in every place that the miner and its ComfyUI write to, and files in ComfyUI's folders."""
        testbed, comfyui = self._testbed, self._testbed.comfyui
        places = [testbed.folder / "state", comfyui.folder, comfyui.log, testbed.folder / "worker.log"]
        pictures = {f"picture {order.canary}": order.in_base64 for order in self._orders.values() if order.in_base64}
        secrets = {name: testbed.s3.credential[name] for name in ("secret_access_key", "session_token")}
        found = judge.traces(dict.fromkeys(places), self._said_by_comfyui(), pictures | secrets)
        files = sorted(str(path) for path in comfyui.files() - testbed.files_before)
        return found | ({"files": files} if files else {})

    def _said_by_comfyui(self) -> dict[str, bytes]:
        try:
            get = self._testbed.session.get
            return {path: get(self._testbed.comfyui.url + path, timeout=10).content for path in ("/history", "/queue")}
        except requests.RequestException as error:
            return {"ComfyUI": json.dumps(str(error)).encode()}


def _happens(what: Callable[[], bool], *, within: float) -> bool:
    try:
        return bool(until(what, why="it", patience=within))
    except AssertionError:
        return False
