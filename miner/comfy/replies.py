"""ComfyUI's replies, validated and typed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from miner.task.stages import OutputFile

_NAME = re.compile(r"[A-Za-z0-9_.+ -]{1,64}")


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


def parse_stats(reply: dict[str, Any]) -> Stats:
    """A reply to `/system_stats`."""
    device = _dict(next(iter(_list(reply.get("devices"))), None))
    return Stats(
        version=str(_dict(reply.get("system")).get("comfyui_version", "")),
        device=str(device.get("name", "")),
        on_gpu=device.get("type", "cpu") != "cpu",
        vram_total=_int(device.get("vram_total")),
        vram_free=_int(device.get("vram_free")),
    )


def parse_queue(reply: dict[str, Any]) -> Queue:
    """A reply to `/queue`."""
    return Queue(running=_prompt_ids(reply.get("queue_running")), pending=_prompt_ids(reply.get("queue_pending")))


def parse_history(entry: dict[str, Any]) -> History:
    """A history entry. An interrupt has `status_str: "error"` too; its messages tell them apart."""
    outputs = {str(node): _files(output) for node, output in _dict(entry.get("outputs")).items()}
    status = _dict(entry.get("status"))
    if status.get("status_str") == "success":
        return History(status="success", outputs=outputs)
    pairs = (m for m in _list(status.get("messages")) if isinstance(m, list) and len(m) == 2)
    messages = {m[0]: m[1] for m in pairs if isinstance(m[0], str)}
    if "execution_interrupted" in messages:
        return History(status="interrupted", outputs=outputs)
    return History(status="error", outputs=outputs, error=parse_run_error(_dict(messages.get("execution_error"))))


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


def _files(output: Any) -> tuple[OutputFile, ...]:
    """The files of one node's output, whatever their key: `images`, `gifs`, `video`, `audio`, …"""
    return tuple(
        OutputFile(filename=item["filename"], subfolder=item.get("subfolder") or "", kind=str(item.get("type") or ""))
        for items in _dict(output).values()
        for item in _list(items)
        if isinstance(item, dict)
        and _is_path(item.get("filename"), 255)
        and _is_path(item.get("subfolder") or ".", 4096)
    )


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
    return value if isinstance(value, int) else 0
