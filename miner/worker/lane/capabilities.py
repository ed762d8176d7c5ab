"""A lane's capabilities: the enabled workflows that passed the preflight on its ComfyUI. Only these are advertised.

`refresh` is called when ComfyUI gets ready, and when its models change.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import structlog

from miner.comfy import preflight
from miner.comfy.preflight import Reason
from miner.comfy.replies import Stats
from miner.machine.benchmarks import Measurement, warm_seconds
from miner.models.folders import ModelFolders
from miner.task import policy
from miner.task.blame import EVERYWHERE, Health, Incident
from miner.task.errors import MachineFault
from miner.task.policy import Average
from miner.task.stages import Job, Lease
from miner.telemetry import clock, metrics
from miner.workflows import Checked, Library, Workflow

log = structlog.get_logger()


class Capabilities:
    """Readable from any thread; `refresh` replaces everything at once."""

    def __init__(
        self,
        library: Library,
        *,
        enabled: Collection[str],
        refuse_unknown: bool,
        on_cpu: Collection[str] = (),
        model_folders: ModelFolders | None = None,
        measured: Mapping[str, Measurement] = MappingProxyType({}),
        usual: Callable[[str], float | None] = lambda _name: None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`on_cpu`: workflows that may run without a GPU. `model_folders`: ComfyUI's on this machine, as far as known.
        `measured`: this machine's benchmarks. `usual`: seconds of the last tasks, by workflow.

        Raises ConfigError for an unknown name in `enabled` or `on_cpu`.
        """
        self.library = library
        self._enabled = [library.get(name) for name in enabled]
        self._refuse_unknown = refuse_unknown
        self._on_cpu = [library.get(name).name for name in on_cpu]
        self.model_folders = model_folders or ModelFolders(None)
        self._verdicts: dict[str, tuple[Reason, ...]] = {}
        self._loras: tuple[str, ...] = ()
        self._broken_loras: dict[str, str] = {}  # name → what is wrong with it
        self._mutex = threading.Lock()  # for what follows
        self._health: dict[str, Health] = {}
        self._machine_health = Health()  # faults that would spoil every workflow's tasks
        self._doubted: set[str] = set()  # workflows to check again before another task
        self._measured = measured
        self._seconds = {name: Average(seconds) for name in enabled if (seconds := usual(name))}  # of a render
        self._warm = ""  # the workflow whose models are in memory
        self.refreshed_at = 0.0  # Unix seconds
        self._clock = clock

    def refresh(self, object_info: dict[str, Any], stats: Stats, *, free_disk: int | None = None) -> bool:
        """Check every enabled workflow against this ComfyUI; return whether the capabilities changed.

        `free_disk`: bytes; None: not checked. Raises lookup errors for an invalid `object_info`.
        """
        doubted = set(self._doubted)
        listed = preflight.installed_loras(object_info)
        broken = self.model_folders.broken(self._enabled, listed, again=bool(doubted))
        machine = preflight.machine_of(object_info, stats, on_cpu=self._on_cpu, free_disk=free_disk, broken=broken)
        verdicts = {w.name: preflight.check_workflow(w, machine) for w in self._enabled}
        loras = preflight.offered_loras(machine)
        self._log_broken_loras({name: broken["loras", name] for name in listed if ("loras", name) in broken})
        had, verdicts_before = self._all_names(), self._verdicts
        self._verdicts, self._loras = verdicts, loras
        self._doubted -= doubted
        for name, seconds in warm_seconds(self._measured, device=stats.device).items():
            self._seconds.setdefault(name, Average(seconds))
        self._log_not_runnable(verdicts_before)
        has, first = self._all_names(), not self.refreshed_at
        self.refreshed_at = self._clock()
        if first or has != had:
            came, went = ([], []) if first else (sorted(has - had), sorted(had - has))
            names, count = list(self.runnable), len(loras)
            log.info("workflows_advertised", names=names, loras=count, came=came or None, went=went or None)
        return has != had

    def cold(self) -> None:
        """ComfyUI may have restarted, without models in memory."""
        self._warm = ""

    def _all_names(self) -> set[str]:
        """Workflows and LoRAs."""
        return {*self.runnable, *self._loras}

    def _log_broken_loras(self, now: dict[str, str]) -> None:
        """Log what is wrong with a LoRA, if new."""
        before, self._broken_loras = self._broken_loras, now
        for name in now.keys() - before.keys():
            hint = "delete it and download it again"
            log.warning("lora_broken", lora=name, reason=now[name], hint=hint, next="not offering it")

    def _log_not_runnable(self, before: Mapping[str, tuple[Reason, ...]]) -> None:
        """Log why a workflow cannot run, if new."""
        for name, reasons in self._verdicts.items():
            if reasons and _without_numbers(reasons) != _without_numbers(before.get(name, ())):
                text, cure = reasons[0].text, reasons[0].cure
                log.warning("workflow_not_runnable", workflow=name, reason=text, hint=cure, next="not advertising it")

    @property
    def runnable(self) -> tuple[str, ...]:
        """Names, in the order of `enabled`."""
        return tuple(name for name, reasons in self._verdicts.items() if not reasons)

    @property
    def disk_wanted(self) -> int | None:
        """Bytes of free disk for one more runnable workflow; None if no workflow lacks disk."""
        lacking = (name for name, reasons in self._verdicts.items() if any(r.kind == "disk" for r in reasons))
        needs = (self.library.get(name).manifest.needs.disk_gb for name in lacking)
        return min((int(gigabytes * 1e9) for gigabytes in needs), default=None)

    @property
    def loras(self) -> tuple[str, ...]:
        """ComfyUI's LoRAs."""
        return self._loras

    @property
    def verdicts(self) -> dict[str, tuple[Reason, ...]]:
        """Enabled workflow → why it cannot run; empty if it can."""
        return dict(self._verdicts)

    def ids(self, *, in_hand: Collection[str] = ()) -> tuple[str, ...]:
        """`workflow_ids` for the sequencer; `in_hand`: the workflows of the tasks in hand."""
        return self.library.ids_of(self.healthy(in_hand=in_hand))

    def healthy(self, *, in_hand: Collection[str] = ()) -> tuple[str, ...]:
        """Runnable workflows that are not paused after faults."""
        now = self._clock()
        if not self._machine_health.may_advertise(now=now, in_hand=bool(in_hand)):
            return ()
        return tuple(
            name
            for name in self.runnable
            if name not in self._doubted and self._health_of(name).may_advertise(now=now, in_hand=name in in_hand)
        )

    @property
    def has_ids(self) -> bool:
        """Whether a workflow id maps to a runnable workflow."""
        return bool(self.library.ids_of(self.runnable))

    def rests_until(self, name: str) -> float:
        """When a workflow is advertised again after faults, in Unix seconds; 0.0: not paused."""
        return max(self._health_of(name).not_before, self._machine_health.not_before)

    def trouble(self, name: str) -> str:
        """The last fault since the workflow's last success, in ComfyUI's or our own words; "" without one."""
        return self._health_of(name).last.reason or self._machine_health.last.reason

    @property
    def doubted(self) -> bool:
        """Whether a workflow must be checked again: see `refresh`."""
        return bool(self._doubted)

    def exceeds_defaults(self, job: Job) -> bool:
        """Whether a task exceeds its workflow's defaults, or has an input image."""
        parameters = self.library.get(job.workflow).manifest.parameters
        return bool(job.images) or any(
            isinstance(value, int)
            and isinstance(default := getattr(parameters[name], "default", None), int)
            and value > default
            for name, value in job.values.items()
        )

    def ids_ahead(self, *, in_hand: Collection[str]) -> tuple[str, ...]:
        """`workflow_ids` to prefetch behind the tasks in hand: those expected to finish in time."""
        known = {name: average.value for name, average in self._seconds.items() if average.value is not None}
        if not in_hand or any(name not in known for name in in_hand):
            return ()
        timeouts = {w.name: w.manifest.timeout_seconds for w in self._enabled}
        busy_for = sum(known[name] for name in in_hand)
        healthy = self.healthy(in_hand=in_hand)
        return self.library.ids_of(policy.prefetchable(healthy, seconds=known, timeouts=timeouts, busy_for=busy_for))

    def warm_ids(self, ids: Collection[str]) -> tuple[str, ...]:
        """Those of `ids` whose models are in ComfyUI's memory; none if that is true of all."""
        warm = [one for one in self.library.ids_of([self._warm]) if one in ids] if self._warm else []
        return tuple(warm) if len(warm) < len(ids) else ()

    def usual_seconds(self, name: str) -> float | None:
        """A render's usual duration, by the last tasks or the benchmark; None: unknown."""
        return self._seconds.get(name, Average()).value

    def rendered(self, name: str, *, seconds: float) -> None:
        """A task of this workflow was rendered."""
        self._warm = name
        self._seconds[name] = self._seconds.get(name, Average()).after(seconds)

    def succeeded(self, name: str) -> None:
        """A task of this workflow is uploaded."""
        with self._mutex:
            on_trial = self._health.pop(name, Health()).on_trial or self._machine_health.on_trial
            self._machine_health = Health()
        if on_trial:
            log.info("workflow_recovered", workflow=name, next="advertising it again")

    def failed(self, name: str, fault: MachineFault, *, task_id: str, attempts: int, larger: bool = False) -> None:
        """This machine spoiled a render: a task's number `attempts`, or our own. `larger`: than the defaults."""
        metrics.FAULTS.labels(name, fault.fault).inc()
        incident = Incident(at=self._clock(), task_id=task_id, cause=fault.fault, reason=fault.message)
        memory = fault.fault == "memory"
        with self._mutex:
            if fault.fault in ("refused", "weights"):
                self._doubted.add(name)
            if fault.fault in EVERYWHERE:
                self._machine_health = self._machine_health.after_fault(incident)
            if memory and larger:
                self._pause(name, self._health_of(name).after_task(incident))
            else:
                self._pause(name, self._health_of(name).after_fault(incident, at_once=memory and attempts > 1))

    def ended_badly(self, job: Job, *, task_id: str, reason: str) -> None:
        """A rendered task failed in a way that seems not to be this machine's fault, unless others end alike."""
        incident = Incident(at=self._clock(), task_id=task_id, cause=reason, reason=reason)
        with self._mutex:
            self._pause(job.workflow, self._health_of(job.workflow).after_task(incident))

    def due_for_trial(self) -> str | None:
        """A workflow whose pause is over, to be rendered by ourselves before it is advertised again."""
        now = self._clock()
        if self._machine_health.not_before > now:
            return None
        machine = self._machine_health.is_due(now=now)
        names = (name for name in self.runnable if name not in self._doubted)
        return next((name for name in names if machine or self._health_of(name).is_due(now=now)), None)

    def tried(self, name: str) -> None:
        """Our own render of it succeeded: advertise it again, one task at a time."""
        with self._mutex:
            self._health[name] = replace(self._health_of(name), tried=True)
            self._machine_health = replace(self._machine_health, tried=True)
        log.info("trial_passed", workflow=name, next="advertising it again, one task at a time")

    def _pause(self, name: str, health: Health) -> None:
        before, self._health[name] = self._health_of(name), health
        if health.not_before > max(self._clock(), before.not_before):
            pause = f"not advertising it for {health.not_before - self._clock():.0f} s, then trying it"
            log.error("workflow_paused", workflow=name, reason=health.last.reason, faults=health.faults, next=pause)

    def _health_of(self, name: str) -> Health:
        return self._health.get(name, Health())

    def choose(self, lease: Lease) -> Workflow:
        """The workflow for a task. Raises JobFault."""
        return self.library.choose(lease, self.runnable)

    def check(self, workflow: Workflow, lease: Lease) -> Checked:
        """The task's parameters, checked. Raises JobFault."""
        return workflow.check(lease.parameters, loras=self._loras, refuse_unknown=self._refuse_unknown)


def _without_numbers(reasons: Collection[Reason]) -> list[tuple[str, str]]:
    """The reasons without changing numbers, to compare."""
    return [(reason.kind, re.sub(r"\d[\d.]*", "", reason.text)) for reason in reasons]
