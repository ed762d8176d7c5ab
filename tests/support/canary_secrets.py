"""Secrets with a mark in them, and what holds one: whatever is written by a miner may not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

MARK = "zqx"
"""In every secret and nowhere else. Letters alone, so that no quoting or encoding hides it."""


def marked(kind: str) -> str:
    """A secret of a kind: long enough to be one, and told from all others."""
    return f"{MARK}{kind}{MARK}0123456789abcdef"


API_KEY = marked("apikey")
PROMPT = f"a lighthouse called {marked('prompt')}"


def leaks(text: str | bytes) -> list[str]:
    """The kinds of secrets in a text."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return sorted(set(re.findall(f"{MARK}([a-z0-9]+?){MARK}", text.lower())))


@dataclass(slots=True)
class Findings:
    """Where secrets were found: place → kinds."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def look(self, place: str, text: str | bytes) -> None:
        if kinds := leaks(text):
            self.found[place] = kinds

    def look_in(self, folder: Path) -> None:
        """At every file below."""
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.look(str(path.relative_to(folder)), path.read_bytes())

    def look_at(self, pid: int) -> None:
        """At what anybody (`cmdline`) and who owns it (`environ`) can read of a process."""
        for name in ("cmdline", "environ"):
            self.look(f"/proc/{name}", Path(f"/proc/{pid}/{name}").read_bytes())
