"""All that the server shows, from the lanes, the journal and the GPUs.

Reads the journal again only after it changed. Methods may block for the disk, so the server calls them in one thread of
their own. Never changes anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from miner.comfy.variant_choice import Choice
from miner.dashboard import checks, snapshot
from miner.dashboard.checks import HealthInputs
from miner.dashboard.gpus import Card, Gpus
from miner.dashboard.history import FinishedTask, History, Totals
from miner.dashboard.snapshot import Controls, Snapshot
from miner.machine.disk import least_free
from miner.task.journal import Journal
from miner.telemetry.clock import wall
from miner.telemetry.health import Mark
from miner.telemetry.log import clean
from miner.telemetry.sizes import GIGABYTE
from miner.worker.lanes import Lanes
from miner.workflows import Workflow

DAY = 86400.0
TOTALS_EVERY = 60.0  # seconds, even if the journal has not changed
LATEST = 8  # thumbnails on the first page

WorkflowState = Literal["offered", "resting", "not runnable", "unknown", "not enabled"]

_COMMAND = re.compile(r"`(xalora-miner [^`]+)`")  # in a cure


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSnapshot:
    """One workflow of the library, on the lane where it works best."""

    name: str
    task_type: str
    description: str
    format: str
    vram_gb: float
    ids: tuple[str, ...]
    state: WorkflowState
    lanes: tuple[str, ...]  # that advertise it
    variants: tuple[str, ...]  # "fp8 on lane 0: the best that this card can run", one for each that lanes render
    rests_until: float  # Unix seconds; 0.0 unless resting
    trouble: str  # the last fault of this machine since its last success
    reasons: tuple[str, ...]
    cure: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDay:
    """The last day's totals, the latest results, and a number that changes with the journal."""

    news: int
    day: Totals
    latest: tuple[FinishedTask, ...]


class View:
    """One per server; lanes change on reload."""

    def __init__(
        self, controls: Controls, journal: Journal, history: History, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.controls = controls
        self.history = history
        self.gpus = Gpus()
        self._journal = journal
        self._clock = clock
        self._past: LastDay | None = None
        self._totals_at = 0.0

    def now(self) -> Snapshot:
        return snapshot.take(self.controls)

    def past(self) -> LastDay:
        """Raises MachineFault when the journal cannot be read."""
        news, now = self._journal.news, self._clock()
        if self._past is None or self._past.news != news or now - self._totals_at >= TOTALS_EVERY:
            self._totals_at = now
            self._past = LastDay(
                news=news,
                day=self.history.totals(since=now - DAY),
                latest=tuple(self.history.last(limit=LATEST, outcome="done")),
            )
        return self._past

    def workflows(self) -> tuple[WorkflowSnapshot, ...]:
        """Enabled ones first."""
        lanes = self.controls.lanes
        library, enabled = lanes[0].capabilities.library, self.controls.lanes.settings.workflows.enabled
        every = sorted(library.workflows, key=lambda w: (w.name not in enabled, w.name))
        return tuple(self._workflow(workflow, lanes, enabled=workflow.name in enabled) for workflow in every)

    def cards(self) -> tuple[Card, ...]:
        return self.gpus.cards()

    def health_inputs(self) -> HealthInputs:
        """The checks' input. An unreadable journal does not fail a probe."""
        lanes = self.controls.lanes
        return HealthInputs(
            now=snapshot.take(self.controls),
            at=self._clock(),
            runnable=len({name for lane in lanes for name in lane.capabilities.runnable}),
            enabled=len(lanes.settings.workflows.enabled),
            resting=tuple(f"{w.name}: {w.trouble}" for w in self.workflows() if w.state == "resting"),
            free_disk=self.free_disk(),
            least_disk=int(lanes.settings.miner.min_free_disk_gb * GIGABYTE),
            wait=lanes.settings.sequencer.wait,
            give_up_after=lanes.settings.comfyui.give_up_after,
            cards=self.cards(),
            broken_loras={name: flaw for lane in lanes for name, flaw in lane.capabilities.broken_loras.items()},
        )

    def health(self) -> tuple[Mark, ...]:
        return checks.marks(self.health_inputs())

    def free_disk(self) -> int:
        """Free bytes of the fullest file system that the miner writes to."""
        lanes = self.controls.lanes
        folders = [lanes.settings.state.dir, *(lane.host.output_dir for lane in lanes)]
        return least_free(path for path in folders if path) or 0

    def _workflow(self, workflow: Workflow, lanes: Lanes, *, enabled: bool) -> WorkflowSnapshot:
        manifest, name = workflow.manifest, workflow.name
        verdicts = [lane.capabilities.verdicts.get(name) for lane in lanes]
        checked = [reasons for reasons in verdicts if reasons is not None]
        runs = [lane for lane, reasons in zip(lanes, verdicts, strict=True) if reasons == ()]
        rests = [wall(lane.capabilities.pauses.until(name)) for lane in runs]
        state: WorkflowState = "offered"
        if not enabled:
            state = "not enabled"
        elif not checked:
            state = "unknown"
        elif not runs:
            state = "not runnable"
        elif not any(name in lane.capabilities.healthy() for lane in runs):
            state = "resting"
        reasons = min(checked, key=len, default=()) if state == "not runnable" else ()
        return WorkflowSnapshot(
            name=name,
            task_type=manifest.task_type,
            description=manifest.description,
            format=manifest.output.format,
            vram_gb=manifest.needs.vram_gb,
            ids=tuple(one for one, names in lanes[0].capabilities.library.ids.items() if name in names),
            state=state,
            lanes=tuple(lane.name for lane in runs),
            variants=variants_of([(lane.name, lane.capabilities.choices[name]) for lane in runs]),
            rests_until=min(rests) if state == "resting" else 0.0,
            trouble=clean(next(filter(None, (lane.capabilities.pauses.reason(name) for lane in runs)), "")),
            reasons=tuple(dict.fromkeys(reason.text for reason in reasons)),
            cure=reasons[0].cure if reasons else "",
            command=_command(reasons[0].cure) if reasons else "",
        )


def variants_of(choices: Sequence[tuple[str, Choice]]) -> tuple[str, ...]:
    """A line for each variant that lanes (by name) render, and why. Pure."""
    lanes: dict[tuple[str, str], list[str]] = {}
    for lane, choice in choices:
        if choice.workflow.variant:
            lanes.setdefault((choice.workflow.variant, choice.why), []).append(lane)
    where = {key: f" on lane {', '.join(names)}" if len(lanes) > 1 else "" for key, names in lanes.items()}
    return tuple(f"{variant}{where[variant, why]}: {clean(why)}" for variant, why in lanes)


def _command(cure: str) -> str:
    """The command that a preflight reason names as its cure, or ""."""
    found = _COMMAND.search(cure)
    return found[1] if found else ""
