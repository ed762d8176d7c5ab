"""The library: workflows by folder and id; checks a task and fills its graph.

Promises: in a loaded workflow, each parameter is bound to existing constants of its type, never to links. `check`
returns values within the declared bounds or raises JobFault; `fill` sets them in a copy of the graph and changes
nothing else. All but `load_library` is pure.
Never: asks ComfyUI; preflight decides what is `runnable`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from miner.task.errors import ConfigError, JobFault
from miner.task.stages import Graph, Lease, Value
from miner.workflows.consistency import flaws, weights_flaws
from miner.workflows.graph import ALPHA_GRAPH, GRAPH, Place, constants_of, filled, links, read_graph, varied, without
from miner.workflows.lora_names import NOWHERE, Elsewhere
from miner.workflows.manifest import MANIFEST, Manifest, Variant, exceeded_limit, read_manifest
from miner.workflows.parameters import (
    EnumParameter,
    ImageParameter,
    IntParameter,
    LoraParameter,
    Parameter,
    Refused,
    SeedParameter,
    StringParameter,
    place_of,
    printable,
    quoted,
    shown,
)
from miner.workflows.results import batch_flaws

MOST_IGNORED = 20  # unknown parameters to report


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A task's validated parameters."""

    values: Mapping[str, Value] = field(repr=False)  # defaults filled in, seed drawn, sizes rounded
    images: Mapping[str, str] = field(repr=False)  # parameter → URL or data URI, not yet fetched
    ignored: tuple[str, ...]  # unknown parameters, printable, at most 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A manifest and its graph."""

    manifest: Manifest
    graph: Graph = field(repr=False)
    alpha_graph: Graph | None = field(default=None, repr=False)  # instead, for pictures with transparent parts
    variant: str = ""  # the variant's name; "": the workflow as its files have it

    @property
    def name(self) -> str:
        """The folder's name, unique in a library."""
        return self.manifest.name

    @property
    def task_type(self) -> str:
        """`txt2img`, `upscaler` …"""
        return self.manifest.task_type

    @property
    def variants(self) -> tuple[Workflow, ...]:
        """A workflow per variant of the manifest, best first, each with its models, needs and graph; or only itself."""
        return tuple(map(self._as, self.manifest.variants)) or (self,)

    def _as(self, variant: Variant) -> Workflow:
        graphs = [varied(self.graph, one.places) for one in self.manifest.variants]
        graph = varied(self.graph, variant.places)
        loaded, others = constants_of(graph), set().union(*map(constants_of, graphs))
        # a file that no graph names, such as a custom node's, is every variant's
        models = tuple(m for m in self.manifest.models if m.listed in loaded or m.listed not in others)
        alpha = None if self.alpha_graph is None else varied(self.alpha_graph, variant.places)
        manifest = self.manifest.of(variant, models)
        return Workflow(manifest=manifest, graph=graph, alpha_graph=alpha, variant=variant.name)

    @property
    def lora_base(self) -> str:
        """The base model that its LoRAs have to be for; "" where it takes none, or says nothing."""
        loras = (one for one in self.manifest.parameters.values() if isinstance(one, LoraParameter))
        return next((one.base or "" for one in loras), "")

    def check(
        self,
        parameters: Mapping[str, Any],
        *,
        loras: Sequence[str],
        elsewhere: Elsewhere = NOWHERE,
        refuse_unknown: bool = False,
    ) -> Checked:
        """Validate a task's `parameters`. `null` means absent; a parameter may be given under an alias.

        `loras` are the names that ComfyUI lists; `elsewhere`: which references are taken in their place. Raises
        JobFault with one line for the consumer: the parameter, the reason and what is allowed. Pure except for random
        seeds.
        """
        known = self.manifest.parameters
        names = {alias for parameter in known.values() for alias in parameter.aliases} | known.keys()
        unknown = (printable(str(name)[:60]) for name in parameters if name not in names)
        ignored = tuple(islice(unknown, MOST_IGNORED))
        if ignored and refuse_unknown:
            raise JobFault(f"unknown parameter {quoted(ignored[0])}; {self.name} takes {', '.join(known)}")
        values: dict[str, Value] = {}
        images: dict[str, str] = {}
        for name, parameter in known.items():
            value = _take(name, parameter, parameters, loras, elsewhere)
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

    def example(
        self, *, loras: Sequence[str], image: str, smallest: bool, prompt: str = "a lighthouse by the sea"
    ) -> dict[str, Any]:
        """The required parameters of a task, for a warm-up, self-test or benchmark, and a LoRA where one is usual;
        `image` is a picture's URL.

        `smallest`: every size at its minimum. Raises JobFault if a LoRA is required but not installed.
        """
        example: dict[str, Any] = {}
        for name, parameter in self.manifest.parameters.items():
            if isinstance(parameter, IntParameter):
                if smallest and name != self.manifest.output.quality_parameter:
                    example[name] = parameter.min
            elif not parameter.required and not (isinstance(parameter, LoraParameter) and parameter.bypass and loras):
                continue
            elif isinstance(parameter, StringParameter):
                example[name] = prompt
            elif isinstance(parameter, ImageParameter):
                example[name] = image
            elif isinstance(parameter, LoraParameter):
                if not loras:
                    raise JobFault(f"{name}: no LoRA is installed")
                example[name] = loras[0]
        return example

    def judge_picture(self, name: str, size: tuple[int, int]) -> None:
        """Whether the picture `name` has a shape that the graph can take; `size` is in pixels. Raises JobFault."""
        parameter = self.manifest.parameters[name]
        if isinstance(parameter, ImageParameter):
            try:
                parameter.judge_size(size)
            except Refused as refused:
                raise JobFault(f"{name} {refused}") from None

    def transparency(self, name: str) -> Literal["flat", "kept", "bled"]:
        """What the transparent parts of the picture `name` become before it is uploaded.

        Kept for a graph that uses the loader's mask, with the colors under them. A graph of its own for such pictures
        gets them with the colors around them, since it enlarges both. Others see them on white.
        """
        loaders = {place_of(bind)[0] for bind in self.manifest.parameters[name].bind}
        masks = {source for _, source, slot in links(self.graph) if slot == 1}
        masks |= {node for node in loaders if self.graph[node]["class_type"] == "LoadImageMask"}
        if loaders & masks:
            return "kept"
        return "flat" if self.alpha_graph is None else "bled"

    def fill(
        self, values: Mapping[str, Value], *, images: Mapping[str, str], prefix: str, transparent: bool = False
    ) -> Graph:
        """The graph to submit, with `values` and `images` (ComfyUI's names of uploaded pictures) filled in.

        `transparent`: one of the pictures has an alpha channel.
        `prefix` becomes the output's filename_prefix, and, with a number, that of all other nodes that save files: none
        is left elsewhere. Use a new one per task: ComfyUI's cache can return an earlier run's file (trap 4 in
        docs/comfyui.md).
        """
        graph = self.alpha_graph if transparent and self.alpha_graph is not None else self.graph
        savers = sorted(n for n, node in graph.items() if isinstance(node["inputs"].get("filename_prefix"), str))
        constants: dict[Place, Value] = {(n, "filename_prefix"): f"{prefix}-{at}" for at, n in enumerate(savers)}
        constants[self.manifest.output.node, "filename_prefix"] = prefix
        for name, value in (*values.items(), *images.items()):
            constants |= {place_of(bind): value for bind in self.manifest.parameters[name].bind}
        graph = self.bypassing(graph, values)
        return filled(graph, {place: value for place, value in constants.items() if place[0] in graph})

    def bypassing(self, graph: Graph, given: Collection[str]) -> Graph:
        """`graph` without the nodes of LoRAs that are not among the `given` parameters, where these may be left out."""
        bypassed = {
            place_of(bind)[0]: parameter.bypass
            for name, parameter in self.manifest.parameters.items()
            if isinstance(parameter, LoraParameter) and parameter.bypass and name not in given
            for bind in parameter.bind
        }
        return without(graph, bypassed) if bypassed else graph


def _take(
    name: str, parameter: Parameter, parameters: Mapping[str, Any], loras: Sequence[str], elsewhere: Elsewhere
) -> Value | None:
    """The value of one parameter under any of its names, or None to keep the graph's. Raises JobFault."""
    taken: dict[str, Value] = {}
    is_open = parameter.is_left_open if isinstance(parameter, SeedParameter) else _is_null
    for one in (name, *parameter.aliases):
        given = parameters.get(one)
        if is_open(given):
            continue
        try:
            if isinstance(parameter, LoraParameter):
                taken[one] = parameter.pick(given, loras, elsewhere)
            else:
                taken[one] = parameter.parse(given)
        except Refused as refused:
            raise JobFault(f"{one} {refused}") from None
    if len(set(taken.values())) > 1:
        raise JobFault(f"{' and '.join(taken)} are names of the same parameter, but differ; send one of them")
    if taken:
        return next(iter(taken.values()))
    if isinstance(parameter, SeedParameter):
        return parameter.draw()
    if parameter.required:
        raise JobFault(f"{name} is missing")
    return None if isinstance(parameter, ImageParameter | LoraParameter) else parameter.default


def _is_null(given: object) -> bool:
    return given is None


def _settings(known: Mapping[str, Parameter], values: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters set by enum values."""
    settings: dict[str, Value] = {}
    for name, parameter in known.items():
        if isinstance(parameter, EnumParameter) and name in values:
            settings |= parameter.sets.get(str(values[name]), {})
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """All workflows, and their workflow ids."""

    workflows: tuple[Workflow, ...]
    ids: Mapping[str, tuple[str, ...]]  # workflow_id → names, preferred first

    def get(self, name: str) -> Workflow:
        """The workflow `name`. Raises ConfigError if unknown: names come from the configuration."""
        for workflow in self.workflows:
            if workflow.name == name:
                return workflow
        there = ", ".join(workflow.name for workflow in self.workflows)
        raise ConfigError(f"workflows: unknown workflow '{name}'; available: {there}")

    def ids_of(self, names: Collection[str]) -> tuple[str, ...]:
        """The workflow_ids to advertise if the workflows `names` are runnable, sorted."""
        return tuple(sorted(one for one, candidates in self.ids.items() if not set(candidates).isdisjoint(names)))

    def choose(self, lease: Lease, runnable: Collection[str]) -> Workflow:
        """The workflow for `lease`: the first in `runnable` for its id. Raises JobFault."""
        candidates = [self.get(name) for name in self.ids.get(lease.workflow_id, ())]
        if not candidates:
            raise JobFault(f"unknown workflow_id: {shown(lease.workflow_id)}")
        task_type = candidates[0].task_type  # load_library ensures one type per id
        if lease.task_type != task_type:
            raise JobFault(
                f"task_type is {shown(lease.task_type)}; workflow_id {shown(lease.workflow_id)} requires {task_type}"
            )
        for workflow in candidates:
            if workflow.name in runnable:
                return workflow
        raise JobFault(f"this miner cannot run workflow_id {shown(lease.workflow_id)} now; please create it again")


def load_library(folders: Sequence[Path], *, ids: Mapping[str, Sequence[str]]) -> Library:
    """Load the workflows in `folders`, each a subfolder with workflow.toml and graph.json.

    `ids` from the configuration override the manifests' ids; names go in order of preference, manifests in the order
    of `folders`. Reads the files. Raises ConfigError naming file, key and reason.
    """
    workflows: dict[str, Workflow] = {}
    for path in _manifests(folders):
        workflow = _load(path)
        if workflow.name in workflows:
            raise ConfigError(f"{path}: name: another folder also has a workflow '{workflow.name}'")
        workflows[workflow.name] = workflow
    answering: dict[str, tuple[str, ...]] = {}
    for workflow in workflows.values():
        if workflow.manifest.id:
            answering[workflow.manifest.id] = (*answering.get(workflow.manifest.id, ()), workflow.name)
    answering |= {one: tuple(names) for one, names in ids.items()}
    for one, names in answering.items():
        if strangers := [name for name in names if name not in workflows]:
            raise ConfigError(f"workflows.ids.{one}: unknown workflow '{strangers[0]}'")
        if len({workflows[name].task_type for name in names}) > 1:
            raise ConfigError(f"workflows.ids.{one}: {', '.join(names)} have different task types")
    return Library(workflows=tuple(workflows.values()), ids=answering)


def _manifests(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"workflows.folders: {folder} is not a folder")
        if not (found := sorted(folder.glob(f"*/{MANIFEST}"))):
            raise ConfigError(f"workflows.folders: {folder} has no subfolder with a {MANIFEST}")
        yield from found


def _load(path: Path) -> Workflow:
    """Load one workflow. Raises ConfigError."""
    manifest = read_manifest(path)
    if manifest.name != path.parent.name:
        raise ConfigError(f"{path}: name: '{manifest.name}' is not the folder's, '{path.parent.name}'")
    alpha = path.with_name(ALPHA_GRAPH)
    workflow = Workflow(
        manifest=manifest,
        graph=read_graph(path.with_name(GRAPH)),
        alpha_graph=read_graph(alpha) if alpha.exists() else None,
    )
    for graph, name in ((workflow.graph, GRAPH), (workflow.alpha_graph, ALPHA_GRAPH)):
        for flaw in flaws(manifest, graph, name) if graph is not None else ():
            raise ConfigError(f"{path}: {flaw}")
    for number, one in enumerate(workflow.variants if manifest.variants else ()):
        for flaw in (*batch_flaws(one.manifest, one.graph), *weights_flaws(one.manifest, one.graph)):
            raise ConfigError(f"{path}: variants.{number}: {flaw}")
    return workflow
