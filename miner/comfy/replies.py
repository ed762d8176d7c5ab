"""ComfyUI's replies, validated and typed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from miner.task.stages import Graph, OutputFile

Names = Mapping[str, Mapping[str, str]]
"""Node class → our name of a file, with `/` → ComfyUI's own name of it."""

_NAME = re.compile(r"[A-Za-z0-9_.+ -]{1,64}")
_LISTED = re.compile(r"[^\\/]+([\\/][^\\/]+)+\.[A-Za-z0-9]{2,11}")  # `sub/name.safetensors`, `sub\name.safetensors`
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed, from its history."""

    exception_type: str
    exception_message: str
    node_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How a prompt ended, from ComfyUI's history."""

    status: Literal["success", "error", "interrupted"]
    outputs: dict[str, tuple[OutputFile, ...]]  # node id → its files, whatever their key
    error: RunError | None = None
    seconds: float | None = None  # from its start to its end, by ComfyUI's clock alone; None: it does not say
    cached: frozenset[str] = frozenset()  # nodes that did not run: their files are an earlier prompt's

    @property
    def written(self) -> frozenset[OutputFile]:
        """The files that this run wrote."""
        return frozenset(file for node, files in self.outputs.items() if node not in self.cached for file in files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Prompt ids, in ComfyUI's order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def has(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """From `/system_stats`. Memory in bytes; 0 if ComfyUI does not report it."""

    version: str
    device: str
    on_gpu: bool
    vram_total: int
    vram_free: int
    torch: str = ""  # its version: "2.11.0+cu130"

    @property
    def card(self) -> str:
        """The device's own name: of `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`, what is between the colons."""
        name = self.device.split(" : ")[0]
        return name.partition(" ")[2] or name


def parse_stats(reply: dict[str, Any]) -> Stats:
    """A reply to `/system_stats`."""
    device = _dict(next(iter(_list(reply.get("devices"))), None))
    system = _dict(reply.get("system"))
    known = device.get("type") != "privateuseone"  # DirectML, for which ComfyUI says 1 GiB
    return Stats(
        version=str(system.get("comfyui_version", "")),
        device=str(device.get("name", "")),
        on_gpu=device.get("type", "cpu") != "cpu",
        vram_total=_int(device.get("vram_total")) if known else 0,
        vram_free=_int(device.get("vram_free")),
        torch=str(system.get("pytorch_version", "")),
    )


def parse_queue(reply: dict[str, Any]) -> Queue:
    """A reply to `/queue`."""
    return Queue(running=_prompt_ids(reply.get("queue_running")), pending=_prompt_ids(reply.get("queue_pending")))


def parse_history(entry: dict[str, Any]) -> History:
    """A history entry. An interrupt has `status_str: "error"` too; its messages tell them apart."""
    outputs = {str(node): _files(output) for node, output in _dict(entry.get("outputs")).items()}
    status = _dict(entry.get("status"))
    pairs = (m for m in _list(status.get("messages")) if isinstance(m, list) and len(m) == 2)
    messages = {m[0]: _dict(m[1]) for m in pairs if isinstance(m[0], str)}
    seconds = _seconds(messages)
    cached = frozenset(map(str, _list(messages.get("execution_cached", {}).get("nodes"))))
    if status.get("status_str") == "success":
        return History(status="success", outputs=outputs, seconds=seconds, cached=cached)
    if "execution_interrupted" in messages:
        return History(status="interrupted", outputs=outputs, seconds=seconds, cached=cached)
    error = parse_run_error(messages.get("execution_error", {}))
    return History(status="error", outputs=outputs, error=error, seconds=seconds, cached=cached)


def _seconds(messages: Mapping[str, dict[str, Any]]) -> float | None:
    """Between two stamps of ComfyUI's, in milliseconds. Never compared with our clock: it may run on another host."""
    begun = _int(messages.get("execution_start", {}).get("timestamp"))
    ended = max(_int(messages.get(kind, {}).get("timestamp")) for kind in _ENDS)
    return (ended - begun) / 1000 if 0 < begun <= ended else None


def parse_run_error(data: dict[str, Any]) -> RunError:
    """The data of an `execution_error`, with defaults for missing fields."""
    return RunError(
        exception_type=str(data.get("exception_type", "unknown")),
        exception_message=str(data.get("exception_message", "")),
        node_type=str(data.get("node_type", "")),
    )


def plain_name(word: object, instead: str) -> str:
    """A word of ComfyUI's if it is a plain name, else `instead`: custom nodes name things as they like."""
    return word if isinstance(word, str) and _NAME.fullmatch(word) else instead


def refusal_reasons(reply: dict[str, Any]) -> str:
    """Why ComfyUI rejected a graph, for a consumer: only kinds of errors and names of nodes."""
    reasons = [
        f"{plain_name(_dict(error).get('type'), 'an error')} at {plain_name(_dict(node).get('class_type'), 'a node')}"
        for node in _dict(reply.get("node_errors")).values()
        for error in _list(_dict(node).get("errors"))
    ]
    return ", ".join(reasons[:3]) or plain_name(_dict(reply.get("error")).get("type"), "no reason given")


def one_slash(path: str) -> str:
    """A path in ComfyUI's words as we write it: with `/`, whatever its host's system uses. Not for absolute paths."""
    return "/".join(part for part in re.split(r"[\\/]", path) if part not in ("", "."))


def with_one_slash(nodes: dict[str, Any]) -> tuple[dict[str, Any], Names]:
    """`/object_info` with `/` in the names of files that its inputs offer, and ComfyUI's own names of those.

    `nodes` is changed in place.
    """
    names: dict[str, dict[str, str]] = {}
    for class_type, body in nodes.items():
        for offered in _lists(_dict(body).get("input")):
            ours = {name: one_slash(name) for name in offered if isinstance(name, str) and _LISTED.fullmatch(name)}
            for name in sorted(ours, key=lambda name: "\\" not in name):  # a name with `/` has the last word
                names.setdefault(class_type, {})[ours[name]] = name
            offered[:] = [ours.get(name, name) if isinstance(name, str) else name for name in offered]
    return nodes, names


def in_its_words(graph: Graph, names: Names) -> Graph:
    """A graph with ComfyUI's own names of the files that it lists."""
    return {
        node: {**body, "inputs": {name: _its_word(value, names[body["class_type"]]) for name, value in inputs.items()}}
        if (inputs := body.get("inputs")) and body["class_type"] in names
        else body
        for node, body in graph.items()
    }


def _its_word(value: Any, names: Mapping[str, str]) -> Any:
    return names.get(one_slash(value), value) if isinstance(value, str) else value


def _lists(inputs: Any) -> Iterator[list[Any]]:
    """All lists in the specification of a node's inputs: their choices are among them."""
    if isinstance(inputs, list):
        yield inputs
    for part in inputs.values() if isinstance(inputs, dict) else _list(inputs):
        yield from _lists(part)


def _files(output: Any) -> tuple[OutputFile, ...]:
    """The files of one node's output, whatever their key: `images`, `gifs`, `video`, `audio`, …"""
    return tuple(
        _file(item["filename"], item.get("subfolder") or "", str(item.get("type") or ""))
        for items in _dict(output).values()
        for item in _list(items)
        if isinstance(item, dict)
        and _is_path(item.get("filename"), 255)
        and _is_path(item.get("subfolder") or ".", 4096)
    )


def _file(filename: str, subfolder: str, kind: str) -> OutputFile:
    """Some nodes put the folder into the name."""
    folder, _, name = one_slash(f"{subfolder}/{filename}").rpartition("/")
    return OutputFile(filename=name, subfolder=folder, kind=kind)


def _is_path(text: Any, longest: int) -> bool:
    return isinstance(text, str) and text.isprintable() and 0 < len(text.encode()) <= longest  # of bytes


def _prompt_ids(items: Any) -> tuple[str, ...]:
    """A queue item is [number, prompt_id, graph, extra_data, outputs, …]."""
    return tuple(str(item[1]) for item in _list(items) if isinstance(item, list) and len(item) > 1)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _int(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
