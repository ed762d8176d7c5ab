"""What a lane can run now: the enabled workflows that passed the preflight on its ComfyUI.

`refresh` is called whenever ComfyUI got ready; from then on only what runs is advertised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import structlog

from miner.comfy import preflight
from miner.comfy.client import Stats
from miner.comfy.preflight import Machine, Reason
from miner.job import Job, Lease
from miner.policy import Health
from miner.workflows import Checked, Library, Workflow

log = structlog.get_logger()


class Offer:
    """Any thread may ask; `refresh` replaces everything at once."""

    def __init__(
        self,
        library: Library,
        *,
        enabled: Collection[str],
        refuse_unknown: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError where a name in `enabled` is no workflow's."""
        self.library = library
        self._enabled = [library.get(name) for name in enabled]
        self._refuse_unknown = refuse_unknown
        self._verdicts: dict[str, tuple[Reason, ...]] = {}
        self._loras: tuple[str, ...] = ()
        self._health: dict[str, Health] = {}
        self._clock = clock

    def refresh(self, object_info: dict[str, Any], stats: Stats) -> None:
        """Judge every enabled workflow against what this ComfyUI says of itself."""
        self._loras = preflight.installed_loras(object_info)
        machine = Machine(
            object_info=object_info,
            version=stats.version,
            vram=stats.vram_total if stats.on_gpu else None,
        )
        self._verdicts = {w.name: preflight.check_workflow(w, machine) for w in self._enabled}
        for name, reasons in self._verdicts.items():
            if reasons:
                log.warning("workflow_not_runnable", workflow=name, reason=reasons[0].text, hint=reasons[0].cure)
        log.info("workflows_offered", names=list(self.runnable))

    @property
    def runnable(self) -> tuple[str, ...]:
        """Names, in the order in which they are enabled."""
        return tuple(name for name, reasons in self._verdicts.items() if not reasons)

    @property
    def loras(self) -> tuple[str, ...]:
        """The LoRAs that ComfyUI lists."""
        return self._loras

    @property
    def verdicts(self) -> dict[str, tuple[Reason, ...]]:
        """Every enabled workflow's name → why it cannot run; nothing where it can."""
        return dict(self._verdicts)

    def ids(self, *, in_hand: Collection[str] = ()) -> tuple[str, ...]:
        """What `workflow_ids` says to the sequencer; `in_hand` are the workflows of the tasks that are held."""
        now = self._clock()
        return self.library.ids_of(
            [name for name in self.runnable if self._healthy(name).offered(now=now, in_hand=name in in_hand)]
        )

    def asks_for_more(self, job: Job) -> bool:
        """Whether a task asked for more than its workflow's defaults, or brought a picture of its own."""
        parameters = self.library.get(job.workflow).manifest.parameters
        return bool(job.images) or any(
            isinstance(value, int)
            and isinstance(default := getattr(parameters[name], "default", None), int)
            and value > default
            for name, value in job.values.items()
        )

    def succeeded(self, name: str) -> None:
        """A task of this workflow was rendered."""
        if self._health.pop(name, Health()).on_trial:
            log.info("workflow_recovered", workflow=name, next="offering it as before")

    def failed(self, name: str, *, reason: str, memory: bool = False) -> None:
        """This machine spoiled a task of this workflow."""
        health = self._health[name] = self._healthy(name).after_fault(now=self._clock(), memory=memory)
        if health.not_before > self._clock():
            pause = f"not offering it for {health.not_before - self._clock():.0f} s, then one task at a time"
            log.error("workflow_paused", workflow=name, reason=reason, faults=health.faults, next=pause)

    def _healthy(self, name: str) -> Health:
        return self._health.get(name, Health())

    def choose(self, lease: Lease) -> Workflow:
        """The workflow for a task. Raises JobFault."""
        return self.library.choose(lease, self.runnable)

    def check(self, workflow: Workflow, lease: Lease) -> Checked:
        """The task's parameters, believed. Raises JobFault."""
        return workflow.check(lease.parameters, loras=self._loras, refuse_unknown=self._refuse_unknown)
