"""What the measurements stand on: a folder, the bench's workflows, one engine for all, and a worker with its devnet.

Devnet runs in a thread here and does not sync its disk, since it stands for a machine elsewhere; the worker and the
engine are processes as in production. Nothing is left running, however a measurement ends.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from miner.devnet.options import DevnetOptions
from miner.task.stages import Value
from miner.workflows import Library
from tests.campaigns.bench.graphs import COLORS, TASK_TYPE, WAIT, Work, write_workflows
from tests.campaigns.bench.table import NotMeasured
from tests.support.devnet import Running, serve
from tests.support.testbed import MINER_ID, Testbed, until

PATIENCE = 60.0  # seconds until a wait means that something is broken
DEFAULTS = {  # of the worker, where the test bed has others for tests: dashboard and thumbnails cost something too
    "sequencer.heartbeat": 10.0,
    "sequencer.poll_interval": 1.0,
    "status.enabled": True,
    "status.port": 0,
    "log.level": "INFO",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """An embedded engine that runs."""

    url: str
    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def input(self) -> Path:
        return self.folder / "input"


class BenchTestbed:
    """A context manager. `folder` has to be empty, and is the caller's to delete."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.library: Library = write_workflows(folder / "workflows")
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> BenchTestbed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def engine(self) -> Engine:
        """The one that all measurements share."""
        return self.start_engine()

    def start_engine(self) -> Engine:
        """One more. It runs until the end of the bench."""
        folder = self.fresh("engine")
        testbed = self._stack.enter_context(Testbed(folder))
        # no metadata: so the worker starts a ComfyUI of its own
        url = testbed.start_engine("--preview-method", "auto", "--disable-metadata")
        return Engine(url, folder / "engine")

    def work(self, workflow: str, *, milliseconds: int = 0, **values: Value) -> Work:
        """Work for the engine, whose folders the worker shares."""
        engine = self.engine
        folders = {"comfyui.output_dir": str(engine.output), "comfyui.input_dir": str(engine.input)}
        return Work(url=engine.url, workflow=workflow, milliseconds=milliseconds, values=values, folders=folders)

    def wait_for(self, milliseconds: int, **values: Value) -> Work:
        """A graph that waits so long."""
        return self.work(WAIT, milliseconds=milliseconds, seconds=milliseconds / 1000, **values)

    def seconds(self, full: float, *, quick: float) -> float:
        """How long to measure."""
        return quick if self.quick else full

    def fresh(self, name: str) -> Path:
        """A new folder."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        return folder

    @contextmanager
    def devnet(self, **options: Any) -> Iterator[Running]:
        with serve(DevnetOptions(durable=False, **options)) as devnet:
            yield devnet

    @contextmanager
    def worker(self, devnet: Running, work: Work, **settings: Any) -> Iterator[Miner]:
        """A worker that offers the work's graph, under an id of its own; drained at the end."""
        miner_id = f"{MINER_ID}-bench{secrets.token_hex(4)}"  # never an earlier run's, whose history it would clean up
        keys = {
            **DEFAULTS,
            **work.folders,
            "miner.id": miner_id,
            "workflows.folders": [str(self.folder / "workflows")],
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        with Miner(self.fresh("worker"), miner_id=miner_id, work=work) as miner:
            miner.devnet = devnet
            program = "tests.campaigns.bench.keeps_history"
            miner.start_worker(work.url, workflows={miner_id: [work.workflow]}, program=program, **keys)
            yield miner
            miner.worker.stop()


class Miner(Testbed):
    """One worker, and the tasks that are for it alone: its workflow id is its own."""

    def __init__(self, folder: Path, *, miner_id: str, work: Work) -> None:
        super().__init__(folder)
        self.miner_id = miner_id
        self._work = work
        self._numbers = itertools.count(secrets.randbelow(COLORS))

    @property
    def pid(self) -> int:
        return self.worker.popen.pid

    def create(self, **values: Value) -> str:
        """One task, with `values` among its parameters; returns its id."""
        parameters = {**self._work.parameters(next(self._numbers)), **values}
        return self.devnet.create(
            task_type=TASK_TYPE, workflow_id=self.miner_id, task_details={"parameters": parameters}
        )

    def tasks(self) -> list[dict[str, Any]]:
        return [task for task in self.devnet.tasks() if task["workflow_id"] == self.miner_id]

    def until(self, what: Callable[[], Any], *, why: str) -> Any:
        """The first true value of `what`. Raises NotMeasured, at once where the worker has ended."""

        def look() -> Any:
            if not self.worker.alive:
                raise NotMeasured(f"the worker ended; it said last: {self._last_words()}")
            return what()

        try:
            return until(look, why=why, patience=PATIENCE)
        except AssertionError as error:
            raise NotMeasured(f"{error}; the worker said last: {self._last_words()}") from error

    def until_offered(self) -> None:
        """Until the sequencer knows that it could take a task."""
        who = {"consumer_id": "bench", "api_key": "bench", "workflow_id": self.miner_id, "task_type": TASK_TYPE}
        ask = partial(self.devnet.session.post, f"{self.devnet.url}/resource_request", json=who, timeout=30)
        self.until(lambda: ask().status_code == 200, why=f"the first request of {self.miner_id}")

    def until_ended(self, task_id: str) -> None:
        """Until the task is over. Raises NotMeasured where it failed."""
        task = self.until(
            lambda: next((t for t in self.tasks() if t["task_id"] == task_id and t["ended_at"]), None),
            why=f"the end of task {task_id}",
        )
        refuse_failures([task])

    def requests(self) -> list[dict[str, Any]]:
        """Those for a task that it made, and that have ended."""
        return [seen for seen in self.devnet.requests("miner_request") if seen["miner_id"] == self.miner_id]

    def _last_words(self) -> str:
        words = (self.folder / "worker.log").read_text().splitlines()
        return words[-1] if words else "nothing"


def refuse_failures(tasks: Sequence[dict[str, Any]]) -> None:
    """Raise NotMeasured where the worker failed a task of the bench: its time says nothing."""
    failed = [task["msg"] for task in tasks if task["status"] == "failed"]
    if failed:
        raise NotMeasured(f"{len(failed)} of the bench's own tasks failed: {failed[0]}")


def pause(seconds: float) -> None:
    """Let time go by while something is measured."""
    threading.Event().wait(seconds)
