"""The one table: what was to be measured, what came out, and whether that is within its bound.

Pure but for `write`. A case without a bound is there to be read, and is never unmet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table


class NotMeasured(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row before it is measured."""

    name: str
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    digits: int = 1  # after the point

    @property
    def wanted(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g} {self.unit}".rstrip()
        return f"≥ {self.at_least:g} {self.unit}".rstrip() if self.at_least is not None else ""

    def met(self, value: float) -> bool | None:
        """Judged as it is shown, so that 1.0 is never more than 1. None where there is no bound."""
        value = round(value, self.digits)
        if self.at_most is not None:
            return value <= self.at_most
        return value >= self.at_least if self.at_least is not None else None


@dataclass(frozen=True, slots=True)
class Found:
    """A case's figure, in its unit, and what else a reader should know of it."""

    value: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table. `found` is None where the case could not be measured, and `why` says why not."""

    case: Case
    found: Found | None
    why: str = ""
    seconds: float = 0.0  # that the measurement took, with everything that had to be started for it

    @property
    def met(self) -> bool | None:
        return self.case.met(self.found.value) if self.found else None

    @property
    def measured(self) -> str:
        return f"{self.found.value:,.{self.case.digits}f} {self.case.unit}".rstrip() if self.found else "–"


def render(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("wanted", justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    table.add_column("seen with it", style="dim", overflow="fold")
    for row in rows:
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met]
        note = escape(row.found.note if row.found else row.why)
        table.add_row(escape(row.case.name), row.measured, row.case.wanted, met, note)
    return table


def write(path: Path, rows: Sequence[Row], *, about: Mapping[str, Any]) -> None:
    """The same as JSON: `about` the run, and a row an object."""
    path.write_text(json.dumps({**about, "rows": [_plain(row) for row in rows]}, indent=2, ensure_ascii=False) + "\n")


def _plain(row: Row) -> dict[str, Any]:
    return {
        "name": row.case.name,
        "measured": round(row.found.value, 6) if row.found else None,
        "unit": row.case.unit,
        "at_most": row.case.at_most,
        "at_least": row.case.at_least,
        "met": row.met,
        "note": row.found.note if row.found else row.why,
        "seconds": round(row.seconds, 1),
    }
