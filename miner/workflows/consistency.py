"""Whether a manifest and its graph agree: every place that a parameter or a variant replaces is a constant of its type,
and every file of weights lies where its loader looks. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from miner.task.stages import Graph, Value
from miner.workflows.graph import Place, is_link, links
from miner.workflows.manifest import WEIGHTS, Manifest
from miner.workflows.parameters import (
    BoolParameter,
    FloatParameter,
    IntParameter,
    LoraParameter,
    Parameter,
    SeedParameter,
    place_of,
    shown,
)
from miner.workflows.results import batch_flaws

# Core loaders (nodes.py, nodes_upscale_model.py): input → the folders under ComfyUI's models where it looks.
_LOOKS_IN = {
    ("UNETLoader", "unet_name"): ("diffusion_models", "unet"),
    ("CLIPLoader", "clip_name"): ("text_encoders", "clip"),
    ("DualCLIPLoader", "clip_name1"): ("text_encoders", "clip"),
    ("DualCLIPLoader", "clip_name2"): ("text_encoders", "clip"),
    ("VAELoader", "vae_name"): ("vae",),
    ("CheckpointLoaderSimple", "ckpt_name"): ("checkpoints",),
    ("UpscaleModelLoader", "model_name"): ("upscale_models",),
}


def flaws(manifest: Manifest, graph: Graph, file: str) -> Iterator[str]:
    """Mismatches of manifest and graph, as `key: reason`."""
    output = manifest.output
    if output.node not in graph:
        yield f"output.node: {file} has no node '{output.node}'"
    elif not isinstance(graph[output.node]["inputs"].get("filename_prefix"), str):
        yield f"output.node: node '{output.node}' has no constant filename_prefix, so it saves no file"
    else:
        yield from (*batch_flaws(manifest, graph), *weights_flaws(manifest, graph))
    owners: dict[Place, str] = {(output.node, "filename_prefix"): "the output's file name"}
    for name, parameter in manifest.parameters.items():
        for number, bind in enumerate(parameter.bind):
            place = place_of(bind)
            flaw = _bind_flaw(parameter, place, graph, file)
            if not flaw and place in owners:
                flaw = f"'{bind}' is already bound to {owners[place]}"
            if flaw:
                yield f"parameters.{name}.bind.{number}: {flaw}"
            owners[place] = f"parameter '{name}'"
        if isinstance(parameter, LoraParameter) and parameter.bypass:
            for flaw in _bypass_flaws(parameter, output.node, graph):
                yield f"parameters.{name}.bypass: {flaw}"
    yield from _variant_flaws(manifest, graph, file, owners)


def _bypass_flaws(parameter: LoraParameter, output: str, graph: Graph) -> Iterator[str]:
    """What would break without the nodes that the parameter is bound to."""
    nodes = {place_of(bind)[0] for bind in parameter.bind} & set(graph)
    for node in sorted(nodes):
        if node == output:
            yield f"'{node}' is the output"
        for name in parameter.bypass:
            if not is_link(graph[node]["inputs"].get(name)):
                yield f"'{node}' has no link at an input '{name}'"
    for (node, name), source, slot in links(graph):
        if source in nodes and not 0 <= slot < len(parameter.bypass):
            yield f"'{node}.{name}' takes output {slot} of '{source}', which it does not replace"
    if not nodes:
        yield "no node is bound"


def _variant_flaws(manifest: Manifest, graph: Graph, file: str, owners: Mapping[Place, str]) -> Iterator[str]:
    listed = {model.listed for model in manifest.models}
    for number, variant in enumerate(manifest.variants):
        for place, value in variant.places.items():
            flaw = _set_flaw(place, value, graph, file, owners)
            if not flaw and str(value).endswith(WEIGHTS) and value not in listed:
                flaw = f"'{value}' is not in [[models]]"
            if flaw:
                yield f"variants.{number}.sets.{'.'.join(place)}: {flaw}"


def weights_flaws(manifest: Manifest, graph: Graph) -> Iterator[str]:
    """Files in folders where the node that loads them does not look, so that they would stay missing."""
    for node, body in graph.items():
        for name, value in body["inputs"].items():
            looks_in = _LOOKS_IN.get((body["class_type"], name))
            for model in manifest.models if looks_in and isinstance(value, str) else ():
                first = model.folder.partition("/")[0]
                if value.replace("\\", "/") == model.listed and first not in (looks_in or ()):
                    looks = " or ".join(looks_in or ())
                    yield f"models: {model.name}: '{node}' ({body['class_type']}) looks in {looks}, not in {first}"


def _set_flaw(place: Place, value: Value, graph: Graph, file: str, owners: Mapping[Place, str]) -> str:
    if flaw := _place_flaw(place, graph, file):
        return flaw
    if place in owners:
        return f"is already bound to {owners[place]}"
    constant = graph[place[0]]["inputs"][place[1]]
    if _type_of(value) != _type_of(constant):
        return f"is {shown(value)}, where the graph has {shown(constant)}"
    return ""


def _type_of(constant: object) -> type:
    """Whole and other numbers are one type, as for ComfyUI."""
    return float if type(constant) is int else type(constant)


def _place_flaw(place: Place, graph: Graph, file: str) -> str:
    node, name = place
    if node not in graph:
        return f"{file} has no node '{node}'"
    if name not in graph[node]["inputs"]:
        return f"node '{node}' has no input '{name}'"
    if is_link(graph[node]["inputs"][name]):
        return f"'{node}.{name}' is a link; only constants can be replaced"
    return ""


def _bind_flaw(parameter: Parameter, place: Place, graph: Graph, file: str) -> str:
    if flaw := _place_flaw(place, graph, file):
        return flaw
    node, name = place
    constant = graph[node]["inputs"][name]
    if not isinstance(constant, _constant_types(parameter)) or isinstance(constant, bool) != isinstance(
        parameter, BoolParameter
    ):
        return f"'{node}.{name}' is {shown(constant)}, not of type {parameter.type}"
    return ""


def _constant_types(parameter: Parameter) -> tuple[type, ...]:
    match parameter:
        case BoolParameter():
            return (bool,)
        case IntParameter() | FloatParameter() | SeedParameter():
            return (int, float)
    return (str,)
