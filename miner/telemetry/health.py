"""Health marks: one thing that was looked at, how it is, and the operator's next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "note", "warning", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing that was looked at. `cure` is the operator's next step where there is one."""

    name: str
    level: Level
    says: str
    cure: str = ""
