"""Which of a lane's workflows rest after faults, for how long, and why: the `Health` of each, and of the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import structlog

from miner.task.blame import EVERYWHERE, Health, Incident
from miner.task.errors import MachineFault
from miner.telemetry import clock, metrics

log = structlog.get_logger()


class Pauses:
    """Thread-safe. Nothing blocks."""

    def __init__(self, *, clock: Callable[[], float] = clock.now) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._healths: dict[str, Health] = {}
        self._machine = Health()  # faults that would spoil every workflow's tasks
        self._doubted: set[str] = set()

    # ---- reading ----------------------------------------------------------------------------------

    def awake(self, names: Iterable[str], *, in_hand: Collection[str]) -> tuple[str, ...]:
        """Those of `names` to advertise; `in_hand`: the workflows of the tasks in hand."""
        now = self._clock()
        if not self._machine.may_advertise(now=now, in_hand=bool(in_hand)):
            return ()
        return tuple(
            name
            for name in names
            if name not in self._doubted and self._health(name).may_advertise(now=now, in_hand=name in in_hand)
        )

    def due(self, names: Iterable[str]) -> str | None:
        """The first of `names` whose pause is over, to be rendered by ourselves before it is advertised again."""
        now = self._clock()
        if self._machine.not_before > now:
            return None
        machine = self._machine.is_due(now=now)
        checked = (name for name in names if name not in self._doubted)
        return next((name for name in checked if machine or self._health(name).is_due(now=now)), None)

    def until(self, name: str) -> float:
        """When a workflow is tried again, in Unix seconds; 0.0: it is not paused."""
        return max(self._health(name).not_before, self._machine.not_before)

    def reason(self, name: str) -> str:
        """The last fault since the workflow's last success, in ComfyUI's or our own words; "" without one."""
        return self._health(name).last.reason or self._machine.last.reason

    @property
    def doubted(self) -> frozenset[str]:
        """Workflows to check against ComfyUI again before another task."""
        return frozenset(self._doubted)

    # ---- what happened ----------------------------------------------------------------------------

    def failed(self, name: str, fault: MachineFault, *, task_id: str, attempts: int, larger: bool = False) -> None:
        """This machine spoiled a render: a task's number `attempts`, or our own. `larger`: than the defaults."""
        metrics.FAULTS.labels(name, fault.fault).inc()
        incident = Incident(at=self._clock(), task_id=task_id, cause=fault.fault, reason=fault.message)
        memory = fault.fault == "memory"
        with self._mutex:
            if fault.fault in ("refused", "weights"):
                self._doubted.add(name)
            if fault.fault in EVERYWHERE:
                self._machine = self._machine.after_fault(incident, at_once=fault.fault == "upload")
            if memory and larger:
                self._set(name, self._health(name).after_task(incident))
            else:
                self._set(name, self._health(name).after_fault(incident, at_once=memory and attempts > 1))

    def ended_badly(self, name: str, *, task_id: str, reason: str) -> None:
        """A rendered task failed in a way that seems not to be this machine's fault, unless others end alike."""
        incident = Incident(at=self._clock(), task_id=task_id, cause=reason, reason=reason)
        with self._mutex:
            self._set(name, self._health(name).after_task(incident))

    def succeeded(self, name: str) -> None:
        """A task of this workflow is uploaded."""
        with self._mutex:
            on_trial = self._healths.pop(name, Health()).on_trial or self._machine.on_trial
            self._machine = Health()
        if on_trial:
            log.info("workflow_recovered", workflow=name, next="advertising it again")

    def tried(self, name: str) -> None:
        """Our own render of it succeeded: advertise it again, one task at a time."""
        with self._mutex:
            self._healths[name] = replace(self._health(name), tried=True)
            self._machine = replace(self._machine, tried=True)
        log.info("trial_passed", workflow=name, next="advertising it again, one task at a time")

    def checked(self, names: Collection[str]) -> None:
        """They were checked against ComfyUI again."""
        with self._mutex:
            self._doubted.difference_update(names)

    def _set(self, name: str, health: Health) -> None:
        now, before = self._clock(), self._health(name)
        self._healths[name] = health
        if health.not_before > max(now, before.not_before):
            pause = f"not advertising it for {health.not_before - now:.0f} s, then trying it"
            log.error("workflow_paused", workflow=name, reason=health.last.reason, faults=health.faults, next=pause)

    def _health(self, name: str) -> Health:
        return self._healths.get(name, Health())
