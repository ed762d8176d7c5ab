"""What the event stream has told of prompts: the history of one that succeeded, without asking for it.

Only a prompt whose start, success and end came over one connection counts, and only if it wrote files: whatever else
happened, the history is asked.
"""

from __future__ import annotations

from typing import Any

from miner.comfy.replies import History, parse_history

MOST = 8  # prompts
MOST_NODES = 1000  # with an output
_MESSAGES = frozenset({"execution_start", "execution_cached", "execution_success"})


class Told:
    """Of one connection."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Any]] = {}  # by prompt, as in the history

    def note(self, kind: str, prompt_id: str, data: dict[str, Any]) -> None:
        """One message about a prompt."""
        if kind == "execution_start":
            self._entries[prompt_id] = {"outputs": {}, "status": {"messages": []}}
            if len(self._entries) > MOST:
                del self._entries[next(iter(self._entries))]
        entry = self._entries.get(prompt_id)
        if entry is None:
            return
        if kind in _MESSAGES:
            entry["status"]["messages"].append([kind, data])
        elif kind == "executed" and len(entry["outputs"]) < MOST_NODES:
            entry["outputs"][str(data.get("node"))] = data.get("output")
        if kind == "execution_success":
            entry["status"]["status_str"] = "success"
        elif kind == "executing" and data.get("node") is None:
            entry["ended"] = True  # and its history can be deleted

    def history(self, prompt_id: str) -> History | None:
        """How the prompt ended, once; None: ask for it."""
        if not self._entries.get(prompt_id, {}).get("ended"):
            return None
        entry = self._entries.pop(prompt_id)
        if entry["status"].get("status_str") != "success":
            return None
        history = parse_history(entry)
        return history if history.written else None
