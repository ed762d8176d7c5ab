"""One file per task: which of a node's files is the result, and which graphs save several. Pure.

Promises: a graph that is seen to save one file per picture of a batch is refused when it is loaded, and several files
are never delivered as one in silence; `[output] take` says which one counts instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from miner.task.errors import MachineFault
from miner.task.stages import Graph, OutputFile
from miner.workflows.graph import is_link
from miner.workflows.manifest import Manifest, Take
from miner.workflows.parameters import IntParameter

# Core nodes. Others are judged by what they wrote.
_ONE_FILE_EACH = frozenset({"SaveImage"})
_SIZES = ("batch_size", "amount")  # inputs with the number of pictures
_JOINS = frozenset({"ImageBatch", "BatchImagesNode", "LatentBatch"})
_PICKS = frozenset({"ImageFromBatch", "LatentFromBatch"})  # what comes before does not matter

_CURE = "set it to 1, or output.take to 'first' or 'last'"
_SUFFIXES = {"jpg": (".jpg", ".jpeg", ".png")}  # a PNG is converted


def batch_flaws(manifest: Manifest, graph: Graph) -> Iterator[str]:
    """Why the output node would save several files, as `key: reason`. The graph's links must be valid."""
    output = manifest.output
    if output.take != "only" or graph[output.node]["class_type"] not in _ONE_FILE_EACH:
        return
    sources = set(_sources(graph, output.node))
    for node in sorted(sources):
        name = graph[node]["class_type"]
        if name in _JOINS:
            yield f"output.node: '{node}' ({name}) makes '{output.node}' save several files: {_CURE.partition(', ')[2]}"
        for size in (*_SIZES, *(("length",) if name in _PICKS else ())):
            number = graph[node]["inputs"].get(size)
            if isinstance(number, int) and number > 1:
                yield f"output.node: '{node}.{size}' makes '{output.node}' save {number} files: {_CURE}"
    for name, parameter in manifest.parameters.items():
        for node, _, size in (bind.partition(".") for bind in parameter.bind):
            if isinstance(parameter, IntParameter) and node in sources and size in _SIZES and parameter.max > 1:
                yield f"parameters.{name}.max: lets '{output.node}' save {parameter.max} files: {_CURE}"


def _sources(graph: Graph, node: str) -> Iterator[str]:
    """The nodes that `node` depends on, itself not, up to those that pick from a batch."""
    seen, ahead = {node}, [node]
    while ahead:
        for value in graph[ahead.pop()]["inputs"].values():
            source = str(value[0]) if is_link(value) and value else ""
            if source in graph and source not in seen:
                seen.add(source)
                yield source
                if graph[source]["class_type"] not in _PICKS:
                    ahead.append(source)


def result_first(
    files: Sequence[OutputFile],
    *,
    node: str,
    format: str,  # noqa: A002  # as in workflow.toml
    take: Take,
) -> tuple[OutputFile, ...]:
    """All of the output node's files, the task's result first. Raises MachineFault for several that are equally it.

    A file of another format, such as the picture that some nodes write beside a video, is not the result.
    """
    suffixes = _SUFFIXES.get(format, (f".{format}",))
    fitting = [file for file in files if file.filename.lower().endswith(suffixes)] or list(files)
    if len(fitting) > 1 and take == "only":
        raise MachineFault(
            f"the output node {node!r} wrote {len(fitting)} files, and a task has one result",
            hint="make its graph.json write one (batch_size 1), or set output.take in its workflow.toml",
        )
    one = fitting[-1 if take == "last" else 0]
    return (one, *(file for file in files if file is not one))
