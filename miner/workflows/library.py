"""The library: every workflow of some folders, which ids they answer to, and what a task makes of one.

Promises: a workflow that is loaded is sound: each parameter is bound to constants that exist and are of its type, and
never to a link. `check` gives values inside the declared bounds or raises JobFault; `fill` puts them into a copy of
the graph and changes nothing else. All but `load_library` is pure.
Never: asks ComfyUI; which workflows it can run is preflight's to say, and comes in as `runnable`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from miner.task.errors import ConfigError, JobFault
from miner.task.stages import Graph, Lease, Value
from miner.workflows.graph import GRAPH, Place, filled, is_link, read_graph
from miner.workflows.manifest import MANIFEST, Manifest, exceeded_limit, read_manifest
from miner.workflows.parameters import (
    BoolParameter,
    EnumParameter,
    FloatParameter,
    ImageParameter,
    IntParameter,
    LoraParameter,
    Parameter,
    Refused,
    SeedParameter,
    StringParameter,
    place_of,
    printable,
    shown,
)

MOST_IGNORED = 20  # names of unknown parameters that are reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a task asked for, once it is believed."""

    values: Mapping[str, Value] = field(repr=False)  # defaults filled in, seed drawn, sizes rounded
    images: Mapping[str, str] = field(repr=False)  # parameter → URL or data URI as it was sent, still to be fetched
    ignored: tuple[str, ...]  # unknown parameters, printable and at most 20 of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A manifest and the graph that it is about."""

    manifest: Manifest
    graph: Graph = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name, which is unique in a library."""
        return self.manifest.name

    @property
    def task_type(self) -> str:
        """The kind of task that this answers: `txt2img`, `upscaler` …"""
        return self.manifest.task_type

    def check(self, parameters: Mapping[str, Any], *, loras: Sequence[str], refuse_unknown: bool = False) -> Checked:
        """The values that `parameters` ask for. `null` is as good as absent.

        `loras` are the names that ComfyUI lists. Raises JobFault, whose message is for the consumer: one line that
        names the parameter, the reason and what is allowed. Pure but for a seed's draw.
        """
        known = self.manifest.parameters
        unknown = (printable(str(name)[:60]) for name in parameters if name not in known)
        ignored = tuple(islice(unknown, MOST_IGNORED))
        if ignored and refuse_unknown:
            raise JobFault(f"{ignored[0]} is no parameter of {self.name}; it takes {', '.join(known)}")
        values: dict[str, Value] = {}
        images: dict[str, str] = {}
        for name, parameter in known.items():
            try:
                value = _take(parameter, parameters.get(name), loras)
            except Refused as refused:
                raise JobFault(f"{name} {refused}") from None
            if value is None:
                continue
            if isinstance(parameter, ImageParameter):
                images[name] = str(value)
            else:
                values[name] = value
        values |= _settings(known, values)
        if exceeded := exceeded_limit(self.manifest.limits, values):
            raise JobFault(exceeded)
        return Checked(values=values, images=images, ignored=ignored)

    def smallest(self, *, loras: Sequence[str], image: str) -> dict[str, Any]:
        """The parameters of the least task there is, for a warm-up or a self-test; `image` is a picture's address.

        Raises JobFault where there is none: a LoRA is wanted, and none is installed.
        """
        asked: dict[str, Any] = {}
        for name, parameter in self.manifest.parameters.items():
            if isinstance(parameter, IntParameter) and name != self.manifest.output.quality_parameter:
                asked[name] = parameter.min
            elif isinstance(parameter, StringParameter) and parameter.required:
                asked[name] = "a lighthouse by the sea"
            elif isinstance(parameter, ImageParameter):
                asked[name] = image
            elif isinstance(parameter, LoraParameter):
                if not loras:
                    raise JobFault(f"{name}: no LoRA is installed")
                asked[name] = loras[0]
        return asked

    def fill(self, values: Mapping[str, Value], *, images: Mapping[str, str], prefix: str) -> Graph:
        """The graph to submit: `values` and `images` (ComfyUI's names of uploaded pictures) at their places.

        `prefix` becomes the output's filename_prefix; give each task its own, since ComfyUI's cache can answer with
        an earlier run's file (trap 4 of the protocol notes).
        """
        constants: dict[Place, Value] = {(self.manifest.output.node, "filename_prefix"): prefix}
        for name, value in (*values.items(), *images.items()):
            constants |= {place_of(bind): value for bind in self.manifest.parameters[name].bind}
        return filled(self.graph, constants)


def _take(parameter: Parameter, given: object, loras: Sequence[str]) -> Value | None:
    """The value of one parameter, or None where the task and the manifest leave it to the graph. Raises Refused."""
    if given is None:
        if parameter.required:
            raise Refused("is missing")
        if isinstance(parameter, SeedParameter):
            return parameter.draw()
        return parameter.default
    if isinstance(parameter, LoraParameter):
        return parameter.pick(given, loras)
    return parameter.parse(given)


def _settings(known: Mapping[str, Parameter], values: Mapping[str, Value]) -> dict[str, Value]:
    """What the chosen values of enums set."""
    settings: dict[str, Value] = {}
    for name, parameter in known.items():
        if isinstance(parameter, EnumParameter) and name in values:
            settings |= parameter.sets.get(str(values[name]), {})
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Every workflow, and the ids of tasks that each answers to."""

    workflows: tuple[Workflow, ...]
    ids: Mapping[str, tuple[str, ...]]  # a task's workflow_id → names, the first choice first

    def get(self, name: str) -> Workflow:
        """The workflow called `name`. Raises ConfigError where there is none: names come from the configuration."""
        for workflow in self.workflows:
            if workflow.name == name:
                return workflow
        there = ", ".join(workflow.name for workflow in self.workflows)
        raise ConfigError(f"workflows: there is no workflow '{name}'; there are {there}")

    def ids_of(self, names: Collection[str]) -> tuple[str, ...]:
        """The workflow_ids to advertise when the workflows `names` are runnable, always in the same order."""
        return tuple(sorted(one for one, candidates in self.ids.items() if not set(candidates).isdisjoint(names)))

    def choose(self, lease: Lease, runnable: Collection[str]) -> Workflow:
        """The workflow for `lease`: the first of its id's that is in `runnable`. Raises JobFault."""
        candidates = [self.get(name) for name in self.ids.get(lease.workflow_id, ())]
        if not candidates:
            raise JobFault(f"workflow_id {shown(lease.workflow_id)} is unknown here")
        task_type = candidates[0].task_type  # one id, one type: load_library saw to it
        if lease.task_type != task_type:
            raise JobFault(
                f"task_type is {shown(lease.task_type)}; workflow_id {shown(lease.workflow_id)} is for {task_type}"
            )
        for workflow in candidates:
            if workflow.name in runnable:
                return workflow
        raise JobFault(f"workflow_id {shown(lease.workflow_id)} cannot be run by this miner now")


def load_library(folders: Sequence[Path], *, ids: Mapping[str, Sequence[str]]) -> Library:
    """The workflows in `folders`, each a sub-folder with workflow.toml and graph.json.

    `ids` are the configuration's: where it names an id, its names answer to it, in that order; otherwise the manifests
    with that id do, in the order of `folders`. Reads the files. Raises ConfigError, naming file, key and reason.
    """
    workflows: dict[str, Workflow] = {}
    for path in _manifests(folders):
        workflow = _load(path)
        if workflow.name in workflows:
            raise ConfigError(f"{path}: name: another folder has a workflow '{workflow.name}' too")
        workflows[workflow.name] = workflow
    answering: dict[str, tuple[str, ...]] = {}
    for workflow in workflows.values():
        if workflow.manifest.id:
            answering[workflow.manifest.id] = (*answering.get(workflow.manifest.id, ()), workflow.name)
    answering |= {one: tuple(names) for one, names in ids.items()}
    for one, names in answering.items():
        if strangers := [name for name in names if name not in workflows]:
            raise ConfigError(f"workflows.ids.{one}: no folder has a workflow '{strangers[0]}'")
        if len({workflows[name].task_type for name in names}) > 1:
            raise ConfigError(f"workflows.ids.{one}: {', '.join(names)} are of different task types")
    return Library(workflows=tuple(workflows.values()), ids=answering)


def _manifests(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"workflows.folders: {folder} is no folder")
        if not (found := sorted(folder.glob(f"*/{MANIFEST}"))):
            raise ConfigError(f"workflows.folders: {folder} holds no sub-folder with a {MANIFEST}")
        yield from found


def _load(path: Path) -> Workflow:
    """The workflow of one manifest. Raises ConfigError."""
    manifest = read_manifest(path)
    if manifest.name != path.parent.name:
        raise ConfigError(f"{path}: name: is '{manifest.name}', and the folder's is '{path.parent.name}'")
    workflow = Workflow(manifest=manifest, graph=read_graph(path.with_name(GRAPH)))
    for flaw in _flaws(workflow):
        raise ConfigError(f"{path}: {flaw}")
    return workflow


def _flaws(workflow: Workflow) -> Iterator[str]:
    """What is wrong between a manifest and its graph, as `key: reason`."""
    graph, output = workflow.graph, workflow.manifest.output
    if output.node not in graph:
        yield f"output.node: {GRAPH} has no node '{output.node}'"
    elif not isinstance(graph[output.node]["inputs"].get("filename_prefix"), str):
        yield f"output.node: node '{output.node}' has no constant filename_prefix, so it saves no file"
    owners: dict[Place, str] = {(output.node, "filename_prefix"): "the task's own file names"}
    for name, parameter in workflow.manifest.parameters.items():
        for number, bind in enumerate(parameter.bind):
            place = place_of(bind)
            flaw = _bind_flaw(parameter, place, graph)
            if not flaw and place in owners:
                flaw = f"'{bind}' is taken by {owners[place]}"
            if flaw:
                yield f"parameters.{name}.bind.{number}: {flaw}"
            owners[place] = f"parameter '{name}'"


def _bind_flaw(parameter: Parameter, place: Place, graph: Graph) -> str:
    node, name = place
    if node not in graph:
        return f"{GRAPH} has no node '{node}'"
    if name not in graph[node]["inputs"]:
        return f"node '{node}' has no input '{name}'"
    constant = graph[node]["inputs"][name]
    if is_link(constant):
        return f"'{node}.{name}' is a link; a parameter replaces constants only"
    if not isinstance(constant, _constant_types(parameter)) or isinstance(constant, bool) != isinstance(
        parameter, BoolParameter
    ):
        return f"'{node}.{name}' is {shown(constant)}, which is no {parameter.type}"
    return ""


def _constant_types(parameter: Parameter) -> tuple[type, ...]:
    match parameter:
        case BoolParameter():
            return (bool,)
        case IntParameter() | FloatParameter() | SeedParameter():
            return (int, float)
    return (str,)
