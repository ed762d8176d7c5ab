"""Checks a prompt as ComfyUI does at submission, with its error messages. Pure, except for a node's own `check`.

The walk goes from each output node up its links. An output with anything wrong behind it is dropped; the prompt is
refused when none is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from miner.engine import exceptions
from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import Node, Spec

Prompt = dict[str, dict[str, Any]]
Problem = dict[str, Any]
"""`{"type", "message", "details", "extra_info"}`"""

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"  # ComfyUI does not check such an input at submission, not even that it is there
_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_LONG_LIST = 20  # choices; longer lists are not sent back
_UNFIT = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What a graph of the wrong shape can raise on the way."""


class Malformed(Exception):
    """The prompt is not an object of objects. ComfyUI answers with a bare 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`error` None: the prompt can run, for these outputs. `node_errors` can be there all the same."""

    outputs: tuple[str, ...] = ()
    error: Problem | None = None
    node_errors: Mapping[str, Any] = field(default_factory=dict)


def problem(kind: str, message: str, details: str = "", **extra: Any) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


@dataclass(slots=True, kw_only=True)
class Validation:
    """One look at one prompt. Values are converted in place (`"3"` to 3 for an INT), as they will be run and shown."""

    prompt: Prompt
    nodes: Mapping[str, Node]
    folders: Folders
    dialect: Dialect
    _found: dict[str, list[Problem] | None] = field(default_factory=dict)  # None: fine; []: wrong behind it
    _path: list[str] = field(default_factory=list)

    def verdict(self) -> Verdict:
        """Raises Malformed."""
        if not isinstance(self.prompt, dict):
            raise Malformed
        for node_id in self.prompt:
            if unknown := self._unknown(node_id):
                return Verdict(error=unknown)
        outputs = [node_id for node_id, node in self.prompt.items() if self.nodes[node["class_type"]].saves]
        if not outputs:
            return Verdict(error=problem("prompt_no_outputs", "Prompt has no outputs"))
        good: list[str] = []
        reasons: list[Problem] = []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            wrong = self._check_output(output)
            if wrong is None:
                good.append(output)
                continue
            reasons += wrong
            self._blame(output, node_errors)
        if good:
            return Verdict(outputs=tuple(good), node_errors=node_errors)
        details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in reasons)
        failed = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Verdict(error=failed, node_errors=node_errors)

    def _unknown(self, node_id: str) -> Problem | None:
        node = self.prompt[node_id]
        if not isinstance(node, dict):
            raise Malformed
        kind, meta = node.get("class_type"), node.get("_meta", {})
        if kind in self.nodes:
            return None
        where = f"Node ID '#{node_id}'"
        if not self.dialect.names_missing_nodes:
            gone = f"Cannot execute because node {kind} does not exist."
            lacking = "Cannot execute because a node is missing the class_type property."
            return problem("invalid_prompt", gone if "class_type" in node else lacking, where)
        title = meta.get("title", kind)
        message = f"Node '{title}' not found. The custom node may not be installed."
        if "class_type" not in node:
            message = (
                f"Node '{title or f'ID #{node_id}'}' has no class_type. "
                "The workflow may be corrupted or a custom node is missing."
            )
        return problem("missing_node_type", message, where, node_id=node_id, class_type=kind, node_title=title)

    def _blame(self, output: str, node_errors: dict[str, Any]) -> None:
        """Add what was found so far to the answer. That includes, as in ComfyUI, what other outputs stumbled over."""
        for node_id, problems in self._found.items():
            if problems:
                entry = {"errors": problems, "dependent_outputs": [], "class_type": self.prompt[node_id]["class_type"]}
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)

    def _check_output(self, output: str) -> list[Problem] | None:
        try:
            return self._check(output)
        except _UNFIT as error:
            wrong = problem(
                "exception_during_validation",
                "Exception when validating node",
                str(error),
                exception_type=exceptions.type_name(error),
                traceback=exceptions.lines(error),
            )
            self._found[output] = [wrong]
            return [wrong]

    def _check(self, node_id: str) -> list[Problem] | None:
        """What is wrong with a node; [] where it is only what is behind it; None where nothing is."""
        if node_id in self._found:
            return self._found[node_id]
        if node_id in self._path:
            return self._cycle(node_id)
        node, inputs = self.nodes[self.prompt[node_id]["class_type"]], self.prompt[node_id]["inputs"]
        schema = node.schema(self.folders, self.dialect)
        problems: list[Problem] = []
        broken = False
        for group in ("required", "optional"):
            for name, spec in schema.get(group, {}).items():
                if name not in inputs:
                    if group == "required" and spec[0] != DYNAMIC:
                        missing = problem("required_input_missing", "Required input is missing", name, input_name=name)
                        problems.append(missing)
                elif isinstance(inputs[name], list):
                    wrong, behind = self._check_link(node_id, name, spec, inputs[name])
                    problems += wrong
                    broken |= behind
                else:
                    problems += self._check_value(inputs, name, spec, general=name not in node.checks)
        problems += _own_checks(node, self.folders, inputs)
        problems = (self._found.get(node_id) or []) + problems  # a cycle through this node left its problem there
        self._found[node_id] = problems if problems or broken else None
        return self._found[node_id]

    def _check_link(self, node_id: str, name: str, spec: Spec, link: list[Any]) -> tuple[list[Problem], bool]:
        """What is wrong with a link, and whether something is wrong behind it."""
        about = {"input_name": name, "input_config": _config(spec)}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [problem("bad_linked_input", message, name, **about, received_value=link)], False
        source = link[0]
        given = self.nodes[self.prompt[source]["class_type"]].returns[link[1]]
        if isinstance(spec[0], str) and given != spec[0]:
            details = f"{name}, received_type({given}) mismatch input_type({spec[0]})"
            message = "Return type mismatch between linked nodes"
            about |= {"received_type": given, "linked_node": link}
            return [problem("return_type_mismatch", message, details, **about)], False
        self._path.append(node_id)
        try:
            return [], self._check(source) is not None
        except _UNFIT as error:
            self._found[source] = [
                problem(
                    "exception_during_inner_validation",
                    "Exception when validating inner node",
                    str(error),
                    **about,
                    exception_message=str(error),
                    exception_type=exceptions.type_name(error),
                    traceback=exceptions.lines(error),
                    linked_node=link,
                )
            ]
            return [], True
        finally:
            self._path.pop()

    def _cycle(self, node_id: str) -> list[Problem]:
        way = [*self._path[self._path.index(node_id) :], node_id]
        members = list(dict.fromkeys(way))
        details = " -> ".join(f"{member} ({self.prompt[member]['class_type']})" for member in way)
        for member in members:
            wrong = problem(
                "dependency_cycle", "Dependency cycle detected", details, node_id=member, cycle_nodes=members
            )
            self._found[member] = [wrong] if self.dialect.finds_cycles else []
        return self._found[node_id] or []

    def _check_value(self, inputs: dict[str, Any], name: str, spec: Spec, *, general: bool) -> Iterator[Problem]:
        kind, limits = _config(spec)
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:  # ComfyUI's wrapping of a value that is a list
            value = inputs[name] = value["__value__"]
        about: dict[str, Any] = {"input_name": name, "input_config": [kind, limits]}
        if isinstance(kind, str) and kind in _CONVERSIONS:
            try:
                value = inputs[name] = _CONVERSIONS[kind](value)
            except (ValueError, TypeError, OverflowError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                about |= {"received_value": value, "exception_message": str(error)}
                yield problem("invalid_input_type", message, f"{name}, {value}, {error}", **about)
                return
        if not general:
            return
        about["received_value"] = value
        if "min" in limits and value < limits["min"]:
            yield problem("value_smaller_than_min", f"Value {value} smaller than min of {limits['min']}", name, **about)
        elif "max" in limits and value > limits["max"]:
            yield problem("value_bigger_than_max", f"Value {value} bigger than max of {limits['max']}", name, **about)
        elif (choices := self._choices(kind, limits)) is not None and value not in choices:
            shown = str(choices)
            if len(choices) > _LONG_LIST:
                shown, about["input_config"] = f"(list of length {len(choices)})", None
            yield problem("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {shown}", **about)

    def _choices(self, kind: Any, limits: Mapping[str, Any]) -> list[Any] | None:
        if isinstance(kind, list):
            return kind
        if kind == "COMBO" and self.dialect.checks_named_combos:
            return list(limits["options"])
        return None


def _config(spec: Spec) -> list[Any]:
    """A spec, always with its second half."""
    return [spec[0], spec[1] if len(spec) > 1 else {}]


def _own_checks(node: Node, folders: Folders, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    for name, check in node.checks.items():
        if name in inputs:
            value = inputs[name]
            if wrong := check(folders, None if isinstance(value, list) else value):  # what a link gives is not known
                message = "Custom validation failed for node"
                yield problem("custom_validation_failed", message, f"{name} - {wrong}", input_name=name)
