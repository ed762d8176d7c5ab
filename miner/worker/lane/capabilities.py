"""A lane's capabilities: the enabled workflows that passed the preflight on its ComfyUI, and the variant that each is
rendered with: the first of the card's ranking that is ready. Only these are advertised.

`refresh` is called when ComfyUI gets ready, and when its models change.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import structlog

from miner.comfy import preflight
from miner.comfy.preflight import Machine, Reason
from miner.comfy.replies import Stats
from miner.comfy.variant_choice import Choice, choose_variant
from miner.machine.benchmarks import Measurement, warm_seconds
from miner.models.folders import ModelFolders
from miner.task import policy
from miner.task.policy import Average
from miner.task.stages import Job, Lease
from miner.telemetry import clock
from miner.telemetry.sizes import GIGABYTE
from miner.worker.lane.pauses import Pauses
from miner.workflows import Checked, Library, Workflow, ranking
from miner.workflows.lora_names import NOWHERE, Elsewhere
from miner.workflows.variants import check_pins

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one look at ComfyUI and its models found."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    loras: tuple[str, ...] = ()  # that load
    lora_bases: Mapping[str, str] = field(default_factory=dict)  # LoRA → its base model, where known
    broken_loras: Mapping[str, str] = field(default_factory=dict)  # name → what is wrong with it

    @property
    def verdicts(self) -> dict[str, tuple[Reason, ...]]:
        return {name: choice.reasons for name, choice in self.choices.items()}

    @property
    def runnable(self) -> tuple[str, ...]:
        return tuple(name for name, choice in self.choices.items() if not choice.reasons)

    @property
    def names(self) -> set[str]:
        """Workflows and LoRAs."""
        return {*self.runnable, *self.loras}


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
        pinned: Mapping[str, Sequence[str]] = MappingProxyType({}),
        fastest: Mapping[str, str] = MappingProxyType({}),
        compute_capabilities: Callable[[], Mapping[str, tuple[int, int]]] = dict,
        elsewhere: Elsewhere = NOWHERE,
        measured: Mapping[str, Measurement] = MappingProxyType({}),
        usual: Callable[[str], float | None] = lambda _name: None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`on_cpu`: workflows that may run without a GPU. `model_folders`: ComfyUI's on this machine, as far as known.
        `pinned`: workflow → the variants that the operator wants. `fastest`: workflow → the variant that was measured
        as the fastest. `compute_capabilities`: of this machine's cards, by name. `measured`: this machine's
        benchmarks. `usual`: seconds of the last tasks, by workflow. `elsewhere`: LoRAs that tasks may name by
        reference.

        Raises ConfigError for an unknown name in `enabled`, `on_cpu` or `pinned`.
        """
        self.library = library
        self._enabled = [library.get(name) for name in enabled]
        self._refuse_unknown = refuse_unknown
        self._on_cpu = [library.get(name).name for name in on_cpu]
        check_pins(library, pinned)
        self._pinned, self._fastest, self._compute_capabilities = pinned, fastest, compute_capabilities
        self._variants = [one for workflow in self._enabled for one in workflow.variants]
        self.model_folders = model_folders or ModelFolders(None)
        self._elsewhere = elsewhere
        self.pauses = Pauses(clock=clock)
        self._offer = Offer()  # replaced as a whole
        self._refreshing = threading.Lock()
        self._measured = measured
        self._seconds = {name: Average(seconds) for name in enabled if (seconds := usual(name))}  # of a render
        self._warm = ""  # the workflow whose models are in memory
        self.refreshed_at = 0.0  # Unix seconds
        self._clock = clock

    def refresh(self, object_info: dict[str, Any], stats: Stats, *, free_disk: int | None = None) -> bool:
        """Check every enabled workflow against this ComfyUI; return whether the capabilities changed.

        `free_disk`: bytes; None: not checked. Raises lookup errors for an invalid `object_info`.
        """
        with self._refreshing:  # the render loop and the refresh loop
            doubted, before = self.pauses.doubted, self._offer
            listed = preflight.installed_loras(object_info)
            broken = self.model_folders.broken(self._variants, listed, again=bool(doubted))
            machine = preflight.machine_of(
                object_info,
                stats,
                on_cpu=self._on_cpu,
                free_disk=free_disk,
                broken=broken,
                capabilities=self._compute_capabilities(),
                lora_bases=self.model_folders.lora_bases(listed),
                on_demand=self._elsewhere.fetched,
            )
            now = self._offer = Offer(
                choices={w.name: self._choose(w, machine) for w in self._enabled},
                loras=preflight.offered_loras(machine),
                lora_bases=machine.lora_bases,
                broken_loras={name: broken["loras", name] for name in listed if ("loras", name) in broken},
            )
            self.pauses.checked(doubted)
            for name, seconds in warm_seconds(self._measured, device=stats.device).items():
                self._seconds.setdefault(name, Average(seconds))
            first, self.refreshed_at = not self.refreshed_at, self._clock()
        _log_news(before, now, first=first)
        return now.names != before.names

    def _choose(self, workflow: Workflow, machine: Machine) -> Choice:
        pinned, fastest = self._pinned.get(workflow.name, ()), self._fastest.get(workflow.name, "")
        return choose_variant(ranking(workflow, machine.card, pinned=pinned, fastest=fastest), machine)

    def cold(self) -> None:
        """ComfyUI may have restarted, without models in memory."""
        self._warm = ""

    @property
    def runnable(self) -> tuple[str, ...]:
        """Names, in the order of `enabled`."""
        return self._offer.runnable

    @property
    def disk_wanted(self) -> int | None:
        """Bytes of free disk for one more runnable workflow; None if no workflow lacks disk."""
        lacking = (name for name, reasons in self._offer.verdicts.items() if any(r.kind == "disk" for r in reasons))
        needs = (self.library.get(name).manifest.needs.disk_gb for name in lacking)
        return min((int(gigabytes * GIGABYTE) for gigabytes in needs), default=None)

    @property
    def loras(self) -> tuple[str, ...]:
        """ComfyUI's LoRAs."""
        return self._offer.loras

    def loras_for(self, workflow: Workflow) -> tuple[str, ...]:
        """Those of them that are not known to be for another base model than the workflow's."""
        base, bases = workflow.lora_base, self._offer.lora_bases
        return tuple(name for name in self._offer.loras if not base or bases.get(name, base) == base)

    @property
    def broken_loras(self) -> dict[str, str]:
        """LoRAs that ComfyUI lists and could not load → what is wrong with them: "it is empty"."""
        return dict(self._offer.broken_loras)

    @property
    def verdicts(self) -> dict[str, tuple[Reason, ...]]:
        """Enabled workflow → why it cannot run; empty if it can."""
        return self._offer.verdicts

    @property
    def choices(self) -> dict[str, Choice]:
        """Enabled workflow → its variant here, and why; empty before the first refresh."""
        return dict(self._offer.choices)

    def workflow(self, name: str) -> Workflow:
        """The workflow `name` in the variant that this lane renders now."""
        choice = self._offer.choices.get(name)
        return choice.workflow if choice else self.library.get(name).variants[0]

    def ids(self, *, in_hand: Collection[str] = ()) -> tuple[str, ...]:
        """`workflow_ids` for the sequencer; `in_hand`: the workflows of the tasks in hand."""
        return self.library.ids_of(self.healthy(in_hand=in_hand))

    def healthy(self, *, in_hand: Collection[str] = ()) -> tuple[str, ...]:
        """Runnable workflows that are not paused after faults."""
        return self.pauses.awake(self.runnable, in_hand=in_hand)

    @property
    def has_ids(self) -> bool:
        """Whether a workflow id maps to a runnable workflow."""
        return bool(self.library.ids_of(self.runnable))

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

    def nodes(self, name: str) -> int:
        """How many nodes the workflow's graph has; 0 for one that is no longer known."""
        return next((len(workflow.graph) for workflow in self.library.workflows if workflow.name == name), 0)

    def usual_seconds(self, name: str) -> float | None:
        """A render's usual duration, by the last tasks or the benchmark; None: unknown."""
        return self._seconds.get(name, Average()).value

    def rendered(self, name: str, *, seconds: float) -> None:
        """A task of this workflow was rendered."""
        self._warm = name
        self._seconds[name] = self._seconds.get(name, Average()).after(seconds)

    def choose(self, lease: Lease) -> Workflow:
        """The workflow for a task. Raises JobFault."""
        return self.workflow(self.library.choose(lease, self.runnable).name)

    def check(self, workflow: Workflow, lease: Lease) -> Checked:
        """The task's parameters, checked. Raises JobFault."""
        return workflow.check(
            lease.parameters,
            loras=self.loras_for(workflow),
            elsewhere=self._elsewhere,
            refuse_unknown=self._refuse_unknown,
        )


def _log_news(before: Offer, now: Offer, *, first: bool) -> None:
    """Log what has changed since the last look."""
    for name in now.broken_loras.keys() - before.broken_loras.keys():
        hint = "delete it and download it again"
        log.warning("lora_broken", lora=name, reason=now.broken_loras[name], hint=hint, next="not offering it")
    for name, choice in now.choices.items():
        if choice.workflow.variant and not choice.reasons and _chosen(choice) != _chosen(before.choices.get(name)):
            log.info("workflow_variant", workflow=name, variant=choice.workflow.variant, reason=choice.why)
    for name, reasons in now.verdicts.items():
        if reasons and _without_numbers(reasons) != _without_numbers(before.verdicts.get(name, ())):
            text, cure = reasons[0].text, reasons[0].cure
            log.warning("workflow_not_runnable", workflow=name, reason=text, hint=cure, next="not advertising it")
    if first or now.names != before.names:
        came, went = ([], []) if first else (sorted(now.names - before.names), sorted(before.names - now.names))
        names, count = list(now.runnable), len(now.loras)
        log.info("workflows_advertised", names=names, loras=count, came=came or None, went=went or None)


def _chosen(choice: Choice | None) -> tuple[str, str]:
    return (choice.workflow.variant, choice.why) if choice and not choice.reasons else ("", "")


def _without_numbers(reasons: Collection[Reason]) -> list[tuple[str, str]]:
    """The reasons without changing numbers, to compare."""
    return [(reason.kind, re.sub(r"\d[\d.]*", "", reason.text)) for reason in reasons]
