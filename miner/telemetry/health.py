"""Health marks: the state of one thing, and the operator's next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "note", "warning", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The state of one thing. `cure` is the operator's next step, or ""."""

    name: str
    level: Level
    says: str
    cure: str = ""
