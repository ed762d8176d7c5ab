"""Whether a ComfyUI can run a graph, and what to do if not. Pure, from an `/object_info`.

Promises: without a reason, ComfyUI (with combos of either form: `[[values], …]`, `["COMBO", {options}]`) accepts the
graph with every value that the manifest lets a task choose. Each reason names one problem and the next step. The rules
are those of `validate_inputs` in ComfyUI's execution.py, 0.3.64 and 0.33.0; anything else is not judged. Never: I/O. A
missing model is a choice that a combo does not offer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from miner.comfy.replies import Stats, one_slash
from miner.comfy.weights import ON_DEMAND, WEIGHTS, Weights, replaced, weights_of
from miner.task.stages import Graph
from miner.telemetry.sizes import GIGABYTE, gb
from miner.workflows import Workflow
from miner.workflows.graph import Place, is_link, links
from miner.workflows.lora_names import title
from miner.workflows.parameters import (
    BoolParameter,
    EnumParameter,
    FloatParameter,
    IntParameter,
    LoraParameter,
    Parameter,
    SeedParameter,
    StringParameter,
    place_of,
)
from miner.workflows.variants import Card, Version, capability_of, cuda_of, lacking_kernels, numbers_of

ObjectInfo = Mapping[str, Any]
"""ComfyUI's `/object_info`: class → {"input": {"required": {name: spec}, …}, "output": [type, …], …}."""

_ANY = ("*", "COMFY_MATCHTYPE_V3")  # types that link to and from any other
_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_UNFOLDING = (_DYNAMIC_COMBO, "COMFY_AUTOGROW_V3", "COMFY_DYNAMICSLOT_V3")  # inputs that expand into others

Kind = Literal["node", "input", "link", "value", "model", "lora", "version", "vram", "card", "disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a workflow cannot run here: a sentence, and what the operator can do."""

    kind: Kind
    text: str
    cure: str
    missing: str = ""  # the missing class, model or LoRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a workflow is checked against. None: unknown, so not judged."""

    object_info: ObjectInfo
    version: str  # ComfyUI's, from /system_stats
    vram: int | None = None  # bytes of the whole card
    is_cpu: bool = False
    name: str = ""  # of the card
    compute_capability: tuple[int, int] | None = None
    torch_cuda: Version | None = None
    on_cpu: Collection[str] = ()  # workflows that the operator allows on a CPU
    free_disk: int | None = None  # bytes
    broken: Mapping[Weights, str] = field(default_factory=dict)  # what is wrong with a file: "it is a web page"
    lora_bases: Mapping[str, str] = field(default_factory=dict)  # LoRA → its base model, where known
    on_demand: bool = False  # tasks may name LoRAs that are fetched

    @property
    def card(self) -> Card:
        """What decides about variants."""
        return Card(
            name=self.name,
            memory=self.vram,
            compute_capability=self.compute_capability,
            torch_cuda=self.torch_cuda,
            comfyui=numbers_of(self.version),
            is_cpu=self.is_cpu,
        )


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of a node, as /object_info has it."""

    type: Any  # a type's name, several joined by commas, or the values of a combo of the older form
    options: Mapping[str, Any]
    required: bool

    @property
    def choices(self) -> Sequence[Any] | None:
        """A combo's values; None for other inputs and for those that ComfyUI does not check (uploads, remote lists)."""
        values = self.type if isinstance(self.type, list) else None
        if self.type == "COMBO":
            values = self.options.get("options")
        elif self.type == _DYNAMIC_COMBO:
            values = [option["key"] for option in self.options.get("options", ())]
        judged = values is not None and not any(key.endswith("_upload") for key in self.options)
        return values if judged else None


def machine_of(
    object_info: ObjectInfo,
    stats: Stats,
    *,
    on_cpu: Collection[str] = (),
    free_disk: int | None = None,
    broken: Mapping[Weights, str] | None = None,
    capabilities: Mapping[str, tuple[int, int]] | None = None,
    lora_bases: Mapping[str, str] | None = None,
    on_demand: bool = False,
) -> Machine:
    """The machine of a ComfyUI that answered. A GPU's memory counts, a CPU's does not.

    `capabilities`: compute capabilities of this machine's cards, by name; a card elsewhere is judged by its name.
    """
    known = capabilities or {}
    return Machine(
        object_info=object_info,
        version=stats.version,
        vram=(stats.vram_total or None) if stats.on_gpu else None,
        is_cpu=bool(stats.device) and not stats.on_gpu,
        name=stats.card,
        compute_capability=(known.get(stats.card) or capability_of(stats.card)) if stats.on_gpu else None,
        torch_cuda=cuda_of(stats.torch),
        on_cpu=on_cpu,
        free_disk=free_disk,
        broken=broken or {},
        lora_bases=lora_bases or {},
        on_demand=on_demand,
    )


def check_workflow(workflow: Workflow, machine: Machine) -> tuple[Reason, ...]:
    """Why `workflow` cannot run on `machine`; empty if it can. Pure."""
    pull = f"run `xalora-miner models pull {workflow.name}`"
    shipped = {model.name for model in workflow.manifest.models}
    reasons: list[Reason] = []
    for graph in filter(None, (workflow.graph, workflow.alpha_graph)):
        plain = workflow.bypassing(graph, ())
        found = [
            replace(reason, cure=pull) if reason.missing in shipped else reason
            for one in ((graph,) if plain is graph else (graph, plain))
            for reason in check_graph(one, machine.object_info, bound=replaced(workflow))
        ]
        for name, parameter in workflow.manifest.parameters.items():
            if machine.on_demand and isinstance(parameter, LoraParameter):
                continue  # none has to be installed
            for bind in parameter.bind:
                found += _check_bind(name, parameter, place_of(bind), graph, machine.object_info)
        reasons += [reason for reason in found if reason not in reasons]
    broken = tuple(_broken(workflow, machine))
    told = {
        reason.missing for reason in broken if reason.missing
    }  # a folder under a model's name is missing for ComfyUI
    return (*broken, *(one for one in reasons if one.missing not in told), *check_needs(workflow, machine))


def broken_model(name: str, flaw: str, *, workflow: str = "") -> Reason:
    """`flaw`: such as "it is a web page". `workflow`: the one whose manifest has its URL."""
    pull = f"run `xalora-miner models pull --replace {workflow}`"
    cure = pull if workflow else "delete the file and download it again"
    return Reason(kind="model", text=f"the model {name} is broken: {flaw}", cure=cure, missing=name)


def _broken(workflow: Workflow, machine: Machine) -> Iterator[Reason]:
    shipped = {model.name for model in workflow.manifest.models}
    for folder, name in weights_of(workflow):
        if flaw := machine.broken.get((folder, name)):
            yield broken_model(name, flaw, workflow=workflow.name if name.rpartition("/")[2] in shipped else "")
    needs_lora = any(isinstance(p, LoraParameter) and p.is_expected for p in workflow.manifest.parameters.values())
    if needs_lora and not machine.on_demand and installed_loras(machine.object_info):
        if not offered_loras(machine):
            yield Reason(kind="lora", text="every LoRA is broken", cure="download one again")
        elif not offered_loras(machine, base=workflow.lora_base):
            text = f"every LoRA is for another base model than {title(workflow.lora_base)}"
            yield Reason(
                kind="lora", text=text, cure="name one for it in [loras], or run `xalora-miner models pull-lora`"
            )


def check_graph(graph: Graph, object_info: ObjectInfo, *, bound: Collection[Place] = ()) -> tuple[Reason, ...]:
    """Why ComfyUI would reject `graph`: classes, required inputs, types of links, constants; empty if it accepts it.

    Constants at the places in `bound` are not checked, since they are replaced. Pure.
    """
    reasons: list[Reason] = []
    for node, body in graph.items():
        if body["class_type"] not in object_info:
            reasons.append(_missing_class(body["class_type"]))
            continue
        inputs = inputs_of(body, object_info)
        for name, spec in inputs.items():
            if name not in body["inputs"]:
                if spec.required:
                    reasons.append(
                        _reason("input", f"node '{node}' lacks the input '{name}', which this ComfyUI requires")
                    )
            elif not is_link(body["inputs"][name]) and (node, name) not in bound:
                reasons += _check_constant(f"{node}.{name}", body["inputs"][name], spec)
    return (*reasons, *_check_links(graph, object_info))


def inputs_of(body: Mapping[str, Any], object_info: ObjectInfo) -> dict[str, _Input]:
    """The inputs of a graph's node in this ComfyUI, with those of a dynamic combo's chosen option."""
    return dict(_inputs(object_info[body["class_type"]]["input"], body["inputs"], ""))


def installed_loras(object_info: ObjectInfo) -> tuple[str, ...]:
    """The LoRAs that ComfyUI lists, by its names (`sub/name.safetensors`), without pickles."""
    for class_type in ("LoraLoader", "LoraLoaderModelOnly"):
        if class_type in object_info:
            lister = dict(_inputs(object_info[class_type]["input"], {}, ""))["lora_name"]
            return _safe(lister.choices)
    return ()


def offered_loras(machine: Machine, *, base: str = "") -> tuple[str, ...]:
    """Those of them that are not broken and, if `base` is given, not known to be for another base model."""
    return tuple(
        name
        for name in installed_loras(machine.object_info)
        if ("loras", name) not in machine.broken and (not base or machine.lora_bases.get(name, base) == base)
    )


def _safe(loras: Sequence[Any] | None) -> tuple[str, ...]:
    names = [str(name) for name in loras or () if str(name).lower().endswith(".safetensors")]
    return tuple(name for name in names if not name.startswith(f"{ON_DEMAND}/"))


def _inputs(sections: Mapping[str, Any], given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, _Input]]:
    for section in ("required", "optional"):
        for name, spec in (sections.get(section) or {}).items():
            options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
            # of the inputs that expand, ComfyUI requires only a dynamic combo at the top
            asked = spec[0] not in _UNFOLDING or (spec[0] == _DYNAMIC_COMBO and not prefix)
            yield prefix + name, _Input(spec[0], options, asked and section == "required")
            for option in options.get("options", ()) if spec[0] == _DYNAMIC_COMBO else ():
                if option["key"] == given.get(prefix + name):
                    yield from _inputs(option["inputs"], given, f"{prefix}{name}.")


def _check_constant(place: str, value: Any, spec: _Input) -> Iterator[Reason]:
    choices = spec.choices
    if choices is not None:
        if not _is_among(value, choices):
            yield _missing_choice(place, value)
    elif spec.type in ("INT", "FLOAT"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _reason("value", f"{place} is not a number")
        elif value < spec.options.get("min", value):
            yield _reason("value", f"{place} is {value}, and this ComfyUI requires at least {spec.options['min']}")
        elif value > spec.options.get("max", value):
            yield _reason("value", f"{place} is {value}, and this ComfyUI allows at most {spec.options['max']}")
    elif (spec.type == "BOOLEAN" and not isinstance(value, bool)) or (
        spec.type == "STRING" and not isinstance(value, str)
    ):
        yield _reason("value", f"{place} is not a {spec.type}")


def _is_among(value: Any, choices: Sequence[Any]) -> bool:
    """A graph that was saved on Windows has `\\` in the names of files."""
    return value in choices or (isinstance(value, str) and one_slash(value) in choices)


def _check_links(graph: Graph, object_info: ObjectInfo) -> Iterator[Reason]:
    for (node, name), source, slot in links(graph):
        class_type, source_type = graph[node]["class_type"], graph[source]["class_type"]
        if class_type not in object_info or source_type not in object_info:
            continue  # reported already
        spec = inputs_of(graph[node], object_info).get(name)
        outputs = object_info[source_type]["output"]
        if not 0 <= slot < len(outputs):
            yield _reason("link", f"{node}.{name} uses output {slot} of {source_type}, which has {len(outputs)}")
        elif spec and not _fits(outputs[slot], spec.type):
            yield _reason(
                "link", f"{node}.{name} expects {_type_name(spec.type)}, but gets {_type_name(outputs[slot])}"
            )


def _fits(given: Any, wanted: Any) -> bool:
    """Whether an output's type may link to an input's: equal, a wildcard, or one in common."""
    if given == wanted or given in _ANY or wanted in _ANY or (isinstance(given, list) and wanted == "COMBO"):
        return True
    if not isinstance(given, str) or not isinstance(wanted, str):
        return False
    return not {part.strip() for part in given.split(",")}.isdisjoint(part.strip() for part in wanted.split(","))


def _check_bind(
    name: str, parameter: Parameter, place: Place, graph: Graph, object_info: ObjectInfo
) -> Iterator[Reason]:
    """Whether one of a parameter's places accepts all its values."""
    body = graph[place[0]]
    if body["class_type"] not in object_info:
        return  # reported already
    spec = inputs_of(body, object_info).get(place[1])
    if spec is None:
        yield _reason("input", f"parameter {name} is bound to '{'.'.join(place)}', which this ComfyUI does not have")
        return
    yield from _check_kind(name, parameter, ".".join(place), spec)


def _check_kind(name: str, parameter: Parameter, place: str, spec: _Input) -> Iterator[Reason]:
    match parameter:
        case LoraParameter():
            if parameter.is_expected and not _safe(spec.choices):
                cure = "add one to ComfyUI's models/loras, or run `xalora-miner models pull-lora URL`"
                yield Reason(kind="lora", text="no LoRA is installed", cure=cure)
        case IntParameter() | FloatParameter() | SeedParameter():
            yield from _check_range(name, parameter, spec)
        case EnumParameter() if spec.choices is not None:
            yield from (
                _missing_choice(place, value) for value in parameter.values if not _is_among(value, spec.choices)
            )
        case BoolParameter() | StringParameter() | EnumParameter():
            wanted = "BOOLEAN" if isinstance(parameter, BoolParameter) else "STRING"
            if not _fits(wanted, spec.type):
                yield _reason("value", f"parameter {name} is {wanted}, but {place} is {_type_name(spec.type)}")


def _check_range(name: str, parameter: IntParameter | FloatParameter | SeedParameter, spec: _Input) -> Iterator[Reason]:
    wanted = ("FLOAT",) if isinstance(parameter, FloatParameter) else ("INT", "FLOAT")
    if spec.type not in wanted:
        yield _reason("value", f"parameter {name} is a number, but its input is {_type_name(spec.type)}")
        return
    low, high = spec.options.get("min", parameter.min), spec.options.get("max", parameter.max)
    if parameter.min < low or parameter.max > high:
        text = f"parameter {name} is {parameter.min} to {parameter.max}, but this ComfyUI allows {low} to {high}"
        yield _reason("value", text)
    if isinstance(parameter, IntParameter) and spec.type == "INT":  # a FLOAT's step is for the editor only
        grid = spec.options.get("step", 1)
        if (parameter.min - low) % grid or (parameter.step or 1) % grid:
            yield _reason(
                "value", f"parameter {name} has values that are not {low} + k * {grid}, as this ComfyUI requires"
            )


def check_needs(workflow: Workflow, machine: Machine) -> Iterator[Reason]:
    """Why `machine` is too old or too small, whatever nodes its ComfyUI has. Pure."""
    needs = workflow.manifest.needs
    version = re.match(r"v?(\d+)\.(\d+)\.(\d+)", machine.version)
    if version and tuple(map(int, version.groups())) < tuple(map(int, needs.comfyui.split("."))):
        text = f"ComfyUI is {machine.version}, but {workflow.name} needs {needs.comfyui}"
        yield Reason(kind="version", text=text, cure="update ComfyUI")
    if machine.is_cpu and needs.vram_gb and workflow.name not in machine.on_cpu:
        text = f"{workflow.name} needs a GPU; this ComfyUI runs on the CPU"
        cure = f"give ComfyUI a GPU, or add {workflow.name} to `workflows.on_cpu` if slow renders are fine"
        yield Reason(kind="vram", text=text, cure=cure)
    if machine.vram is not None and machine.vram < needs.vram_gb * GIGABYTE:
        text = f"the GPU has {gb(machine.vram)} of memory, but {workflow.name} needs {needs.vram_gb:g}"
        yield Reason(kind="vram", text=text, cure="use a larger GPU, or remove it from `workflows.enabled`")
    for lack in lacking_kernels(needs, machine.card):
        cure = "use another GPU or torch, or remove it from `workflows.enabled`"
        yield Reason(kind="card", text=f"{workflow.name} cannot run on this GPU: {lack}", cure=cure)
    if machine.free_disk is not None and machine.free_disk < needs.disk_gb * GIGABYTE:
        text = f"{gb(machine.free_disk)} of disk are free, but {workflow.name} needs {needs.disk_gb:g}"
        yield Reason(kind="disk", text=text, cure="free some space, for example with `xalora-miner models prune`")


def _reason(kind: Kind, text: str) -> Reason:
    return Reason(kind=kind, text=text, cure="run a ComfyUI that this workflow supports, or fix its graph")


def _missing_class(class_type: str) -> Reason:
    cure = "update ComfyUI, or install the custom node that provides it"
    return Reason(kind="node", text=f"ComfyUI has no node {class_type}", cure=cure, missing=class_type)


def _missing_choice(place: str, value: Any) -> Reason:
    if str(value).endswith(WEIGHTS):
        text, cure = f"the model {value} ({place}) is missing", "add it to its folder under ComfyUI's models"
        return Reason(kind="model", text=text, cure=cure, missing=str(value))
    return _reason("value", f"{place} is '{value}', which this ComfyUI does not offer")


def _type_name(type_: Any) -> str:
    return "a choice" if isinstance(type_, list) else str(type_)
