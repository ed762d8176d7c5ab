"""One run of one prompt: what is cached, what runs in which order, what is reported, how it ends.

An error in a node ends the run, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from miner.engine import exceptions
from miner.engine.cache import Cache
from miner.engine.dialect import Dialect
from miner.engine.flags import PREVIEW_METHODS
from miner.engine.folders import Folders
from miner.engine.graph import is_link, run_order, signatures
from miner.engine.interrupt import Interrupt, Interrupted
from miner.engine.nodes.base import Node, Result
from miner.engine.prompts import Submission
from miner.engine.report import Report
from miner.engine.validate import DYNAMIC

log = logging.getLogger("engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What every run works with."""

    dialect: Dialect
    nodes: Mapping[str, Node]
    folders: Folders
    cache: Cache
    interrupt: Interrupt
    metadata: bool  # embed the graph in saved files
    previews: bool
    preview_size: int  # longest side, pixels


class Run:
    """Executed once, in the executor's thread; `node` may be read from others."""

    def __init__(self, workshop: Workshop, submission: Submission, report: Report) -> None:
        self.node: str | None = None  # the one that runs
        self.shown: dict[str, dict[str, Any]] = {"outputs": {}, "meta": {}}
        self._workshop = workshop
        self._prompt = submission.prompt
        self._wanted = submission.outputs
        self._report = report
        method = submission.extra.get("preview_method") if workshop.dialect.previews_by_prompt else None
        self._previews = method != "none" if method in PREVIEW_METHODS else workshop.previews
        self.folders = workshop.folders
        self.dialect = workshop.dialect
        self.embedded: Mapping[str, Any] = {}
        if workshop.metadata:
            self.embedded = {"prompt": submission.prompt, **(submission.extra.get("extra_pnginfo") or {})}
        self._results: dict[str, Result] = {}
        self._executed: list[str] = []

    def execute(self) -> bool:
        """Run it to its end; returns whether it succeeded. Blocks."""
        self._report.message("execution_start")
        known = signatures(self._prompt, self._fingerprint)
        cache = self._workshop.cache
        cache.keep_only(known.values())
        cached = {node: result for node in self._prompt if (result := cache.get(known.get(node)))}
        self._report.message("execution_cached", nodes=list(cached))
        self._results.update(cached)
        savers = {node for node in self._prompt if self._kind(node).saves}
        for node in run_order(self._prompt, self._wanted, cached=cached, savers=savers):
            if node in cached:
                self._show(node, cached[node])
                self._report.finished(node)
            elif not self._run_node(node):
                self.node = None
                return False
            else:
                cache.put(known.get(node), self._results[node])
        self.node = None
        self._report.message("execution_success")
        return True

    def _run_node(self, node: str) -> bool:
        self.node = node
        self._report.started(node)
        self._report.executing(node)
        inputs: dict[str, Any] = {}
        try:
            inputs = self._inputs(node)
            self._workshop.interrupt.heed()
            result = self._kind(node).run(self, **inputs)
        except Interrupted:
            self._report.message("execution_interrupted", broadcast=True, **self._which(node))
            return False
        except Exception as error:  # any error of any node: ComfyUI ends the prompt with it, and goes on
            log.exception("node %s (%s) failed", node, self._kind(node).name)
            self._report.message(
                "execution_error",
                **self._which(node),
                exception_message=exceptions.message(error),
                exception_type=exceptions.type_name(error),
                traceback=exceptions.lines(error),
                current_inputs={name: [_printable(value)] for name, value in inputs.items()},
                current_outputs=list(self._prompt),
            )
            return False
        self._results[node] = result
        if result.shown is not None:
            self._show(node, result)
        self._report.finished(node)
        self._executed.append(node)
        return True

    def _show(self, node: str, result: Result) -> None:
        self._report.executed(node, result.shown)
        if result.shown is not None:
            self.shown["outputs"][node] = result.shown
            meta = {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
            self.shown["meta"][node] = meta

    def _which(self, node: str) -> dict[str, Any]:
        return {"node_id": node, "node_type": self._kind(node).name, "executed": list(self._executed)}

    def _kind(self, node: str) -> Node:
        return self._workshop.nodes[self._prompt[node]["class_type"]]

    def _inputs(self, node: str) -> dict[str, Any]:
        """A node's inputs, links followed; what its schema does not name is left out."""
        schema = self._kind(node).schema(self._workshop.folders, self._workshop.dialect)
        specs = {**schema["required"], **schema.get("optional", {})}
        inputs = {}
        for name, value in self._prompt[node]["inputs"].items():
            spec = specs.get(name.partition(".")[0])
            if spec is None or (name not in specs and spec[0] != DYNAMIC):
                continue
            inputs[name] = self._results[value[0]].outputs[int(value[1])] if is_link(value) else value
        return inputs

    def _fingerprint(self, node: str) -> str | None:
        outside = self._kind(node).fingerprint
        try:
            return outside(self._workshop.folders, self._prompt[node]["inputs"]) if outside else ""
        except (OSError, LookupError, TypeError) as error:
            log.warning("node %s cannot be cached: %s", node, error)
            return None

    # A node's view of its run: `miner.engine.nodes.base.Context`.

    def progress(self, value: float, maximum: float, preview: Image.Image | None = None) -> None:
        self._workshop.interrupt.heed()
        self._report.progress(value, maximum, preview if self._previews else None)

    def wait(self, seconds: float) -> None:
        self._workshop.interrupt.wait(seconds)


def _printable(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, bool, str)) else str(value)
