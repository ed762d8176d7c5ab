"""Preflight of every enabled workflow, as in the worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from miner.comfy.preflight import Machine, Reason, broken_model, check_needs
from miner.comfy.variant_choice import Choice
from miner.config import Settings
from miner.doctor.facts import Facts, choice_here
from miner.doctor.report import bad, good, warning
from miner.machine.software import version_of
from miner.models.catalogue import FileStatus, files_of
from miner.telemetry.health import Mark
from miner.workflows import Card, Workflow, ranking


def workflows(facts: Facts) -> Iterator[Mark]:
    """A mark for each workflow, on the ComfyUI that suits it best, and one for all."""
    machines = facts.machines()
    if not machines and not facts.managed:
        cure = "fix ComfyUI first"
        yield bad("Workflows", "not checked: no ComfyUI answers", cure)
        return
    says = "can run" if machines else "its files are present and it fits; its nodes are checked once ComfyUI runs"
    runnable = 0
    for workflow in facts.enabled:
        if machines:
            choice = best(facts.settings, workflow, machines)
            variant, reasons = choice.workflow.variant, choice.reasons
            kind = f" as {variant}: {choice.why}" if variant else ""
        else:
            reasons, kind = known_before_start(facts, workflow), ""
        runnable += not reasons
        yield workflow_mark(workflow, reasons, good_says=says + kind, embedded=facts.embedded)
    yield summary_mark(len(facts.enabled), runnable)


def best(settings: Settings, workflow: Workflow, machines: Sequence[Machine]) -> Choice:
    """The choice with the fewest reasons against it on any of `machines`."""
    return min((choice_here(settings, workflow, machine) for machine in machines), key=lambda one: len(one.reasons))


def known_before_start(facts: Facts, workflow: Workflow) -> tuple[Reason, ...]:
    """The same while ComfyUI does not run: files, memory, version."""
    home, cards = facts.settings.comfyui.home, facts.cards()
    card = max(cards, key=lambda card: card.memory or 0, default=Card())
    machine = Machine(
        object_info={},
        version=version_of(home) if home else "",
        vram=card.memory,
        is_cpu="--cpu" in facts.settings.comfyui.args,
        compute_capability=card.compute_capability,
        torch_cuda=card.torch_cuda,
        on_cpu=facts.settings.workflows.on_cpu,
    )
    states = {status.file.relative_path: status for status in facts.model_files().statuses}
    ranked = ranking(workflow, machine.card, pinned=facts.settings.workflows.variants.get(workflow.name, ()))
    judged = [
        (*_missing(one, [states[path] for path in _paths(one) if path in states]), *check_needs(one, machine))
        for one in ranked.variants
    ]
    return judged[0] if all(judged) else ()


def _paths(workflow: Workflow) -> list[str]:
    return [file.relative_path for file in files_of([workflow])]


def _missing(workflow: Workflow, statuses: Sequence[FileStatus]) -> Iterator[Reason]:
    cure = f"run `xalora-miner models pull {workflow.name}`"
    for status in statuses:
        if status.state in ("missing", "partial"):  # the models' own mark tells of one that differs
            text = f"the model {status.file.relative_path} is missing"
            yield Reason(kind="model", text=text, cure=cure, missing=status.file.name)
        elif status.state == "broken":
            yield broken_model(status.file.relative_path, status.reason, workflow=workflow.name)


def workflow_mark(workflow: Workflow, reasons: Sequence[Reason], *, good_says: str, embedded: bool = False) -> Mark:
    """Pure. `embedded`: updating ComfyUI is not a cure."""
    name = f"Workflow {workflow.name}"
    if not reasons:
        return good(name, good_says)
    more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    real = "use a real ComfyUI: set XALORA_COMFYUI_HOME"
    cures = dict.fromkeys(real if embedded and reason.kind == "node" else reason.cure for reason in reasons)
    return warning(name, f"cannot run: {reasons[0].text}{more}", "; ".join(cures))


def summary_mark(enabled: int, runnable: int) -> Mark:
    """Pure."""
    if not runnable:
        cure = "fix one of them; xalora-miner workflows lists their requirements"
        return bad("Workflows", f"none of the {enabled} enabled workflows can run", cure)
    return good("Workflows", f"{runnable} of the {enabled} enabled workflows can run")
