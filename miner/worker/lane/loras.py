"""The LoRAs of a lane's tasks that lie elsewhere: fetched while the GPU renders other tasks, then seen by ComfyUI.

A task whose LoRA is on its way lets the next one go first. Never: blocks for a download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from miner.comfy.client import ComfyClient, ComfyFault
from miner.comfy.preflight import inputs_of
from miner.models.on_demand import OnDemand
from miner.net.references import SUFFIX, Reference, parse_reference
from miner.task.errors import JobFault, MachineFault
from miner.task.stages import Job
from miner.workflows import Library, Workflow
from miner.workflows.parameters import LoraParameter, place_of


def references(library: Library, job: Job) -> Iterator[tuple[str, Reference]]:
    """The parameters whose LoRA lies elsewhere, and where; none of a workflow that is not known any more."""
    known = [one.manifest.parameters for one in library.workflows if one.name == job.workflow]
    for name, parameter in known[0].items() if known else ():
        value = job.values.get(name)
        if not isinstance(parameter, LoraParameter) or not isinstance(value, str):
            continue
        installed = value.lower().endswith(SUFFIX) and "://" not in value  # which may be named civitai:1.safetensors
        if not installed and (reference := parse_reference(value)) is not None:
            yield name, reference


@dataclass(slots=True, kw_only=True)
class Loras:
    """For one lane's prepare loop. `used` hears of every installed LoRA that a task uses."""

    library: Library
    client: ComfyClient
    on_demand: OnDemand | None
    used: Callable[[str], None] = lambda _name: None

    def is_coming(self, job: Job) -> bool:
        """Whether one of the task's LoRAs is being fetched now."""
        if self.on_demand is None:
            return False
        return any(self.on_demand.is_coming(one.key) for _, one in references(self.library, job))

    def ready(self, job: Job) -> dict[str, str] | None:
        """ComfyUI's names of those that lie elsewhere, by parameter; None while one is on its way.

        Raises JobFault with a reason for the consumer, ComfyDown, and MachineFault. Blocks for short requests to
        ComfyUI.
        """
        workflow = self.library.get(job.workflow)
        names: dict[str, str | None] = {}
        for parameter, reference in references(self.library, job):
            names[parameter] = self._want(parameter, reference, workflow.lora_base)
        if any(name is None for name in names.values()):
            return None
        ready = {parameter: name for parameter, name in names.items() if name is not None}
        for parameter, name in ready.items():
            self._show(workflow, parameter, name)
        for parameter, kind in workflow.manifest.parameters.items():
            if isinstance(kind, LoraParameter) and parameter in job.values and parameter not in ready:
                self.used(str(job.values[parameter]))
        return ready

    def late(self, job: Job) -> str:
        """What a consumer is told whose LoRA does not arrive in time."""
        names = [name for name, _ in references(self.library, job)]
        return f"{names[0] if names else 'lora_name'}: it did not arrive before the task's time runs out"

    def _want(self, parameter: str, reference: Reference, base: str) -> str | None:
        if self.on_demand is None:  # turned off since the task was checked
            raise JobFault(f"{parameter}: this miner fetches no LoRAs")
        try:
            return self.on_demand.want(reference, base=base)
        except JobFault as fault:
            raise JobFault(f"{parameter}: {fault.message}") from None

    def _show(self, workflow: Workflow, parameter: str, name: str) -> None:
        """Have ComfyUI list its LoRAs again, and only those, until this one is among them."""
        places = [place_of(bind) for bind in workflow.manifest.parameters[parameter].bind]
        for node, given in places:
            class_type = workflow.graph[node]["class_type"]
            if self._lists(class_type, given, name):
                continue
            if self.on_demand is not None:
                self.on_demand.touch()
            if not self._lists(class_type, given, name):
                hint = "set XALORA_MODELS_DIR to the models folder of this ComfyUI, or [loras] on_demand = false"
                raise MachineFault("ComfyUI does not list a LoRA that was fetched for it", hint=hint, fault="weights")

    def _lists(self, class_type: str, given: str, name: str) -> bool:
        nodes = self.client.node(class_type)
        try:
            choices = inputs_of({"class_type": class_type, "inputs": {}}, nodes)[given].choices
        except (KeyError, TypeError, IndexError, AttributeError):
            raise ComfyFault(f"ComfyUI's description of {class_type} is malformed") from None
        return choices is None or name in choices
