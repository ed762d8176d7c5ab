"""Every enabled workflow's verdict: the preflight's, as the worker's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from miner.comfy.preflight import Machine, Reason, check_needs, check_workflow
from miner.doctor.checks.comfyui import version_of
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, warning
from miner.models.catalogue import Look
from miner.telemetry.health import Mark
from miner.workflows import Workflow


def workflows(facts: Facts) -> Iterator[Mark]:
    """One mark a workflow, and one for all. Of several ComfyUIs the best one speaks."""
    machines = [seen.machine for seen in facts.comfyuis() if seen.machine is not None]
    if not machines and not facts.managed:
        cure = "see the mark of ComfyUI"
        yield bad("Workflows", "none can be judged, for there is no ComfyUI that answers", cure)
        return
    says = "it can run" if machines else "its files are there and it fits; its nodes show once ComfyUI runs"
    runnable = 0
    for workflow in facts.enabled:
        reasons = best(workflow, machines) if machines else beforehand(facts, workflow)
        runnable += not reasons
        yield judged(workflow, reasons, good_says=says, embedded=facts.embedded)
    yield summed(len(facts.enabled), runnable)


def best(workflow: Workflow, machines: Sequence[Machine]) -> tuple[Reason, ...]:
    """The shortest of the verdicts. Pure."""
    return min((check_workflow(workflow, machine) for machine in machines), key=len)


def beforehand(facts: Facts, workflow: Workflow) -> tuple[Reason, ...]:
    """The same as far as it is known while ComfyUI does not run: files, memory, version."""
    home = facts.settings.comfyui.home
    vram = max((card.memory_bytes for card in facts.gpus().gpus), default=None)
    machine = Machine(object_info={}, version=version_of(home) if home else "", vram=vram)
    looks = [look for look in facts.shelf().looks if workflow.name in look.file.needed_by]
    return (*_missing(workflow, looks), *check_needs(workflow, machine))


def _missing(workflow: Workflow, looks: Sequence[Look]) -> Iterator[Reason]:
    cure = f"run `xalora-miner models pull {workflow.name}`"
    for look in looks:
        if look.state in ("missing", "partial"):  # of one that differs, the models' own mark tells; ComfyUI lists it
            text = f"the model {look.file.place} is not there"
            yield Reason(kind="model", text=text, cure=cure, missing=look.file.name)


def judged(workflow: Workflow, reasons: Sequence[Reason], *, good_says: str, embedded: bool = False) -> Mark:
    """Pure. `embedded`: the engine is not a ComfyUI that could be updated."""
    name = f"Workflow {workflow.name}"
    if not reasons:
        return good(name, good_says)
    more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    real = "it needs a real ComfyUI: set XALORA_COMFYUI_HOME"
    cures = dict.fromkeys(real if embedded and reason.kind == "node" else reason.cure for reason in reasons)
    return warning(name, f"it cannot run: {reasons[0].text}{more}", "; ".join(cures))


def summed(enabled: int, runnable: int) -> Mark:
    """Pure."""
    if not runnable:
        cure = "follow the cure of one of them; xalora-miner workflows lists what each needs"
        return bad("Workflows", f"none of the {enabled} that are enabled can run here", cure)
    return good("Workflows", f"{runnable} of {enabled} that are enabled can run")
