"""What `xalora-miner models` prints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from miner.models.catalogue import Look, gb
from miner.models.prune import Spare
from miner.task.errors import MinerError

_STATES = {"there": ("there", "green"), "missing": ("missing", "yellow"), "differs": ("differs", "red")}


def files_table(looks: Sequence[Look]) -> Table:
    table = _table("file", "size", "state", "needed by", "licence")
    for look in looks:
        file = look.file
        table.add_row(file.place, gb(file.size), state(look), ", ".join(file.needed_by), file.licence)
    return table


def state(look: Look) -> Text:
    """One or two words for the column."""
    if look.state == "partial":
        done = f"{100 * look.have // look.file.size} %" if look.file.size else gb(look.have)
        return Text(f"{done} of it", style="yellow")
    return Text(*_STATES[look.state])


def spares_table(spares: Sequence[Spare], root: Path) -> Table:
    table = _table("file", "size", "was for")
    for one in spares:
        table.add_row(str(one.path.relative_to(root)), gb(one.size), ", ".join(one.needed_by))
    return table


def print_summary(console: Console, looks: Sequence[Look], root: Path) -> None:
    """Where the files are, what is lacking, and what room there is."""
    if not looks:
        console.print("these workflows need no files")
        return
    lacking = sum(look.lacks for look in looks)
    free = next(shutil.disk_usage(folder).free for folder in (root, *root.parents) if folder.is_dir())
    missing = sum(look.state != "there" for look in looks)
    text = f"{missing} of {len(looks)} files are missing, {gb(lacking)}" if missing else "all of them are there"
    console.print(f"\n{root}: {text}; {gb(free)} are free")
    for look in looks:
        if look.state == "differs":
            console.print(f"{look.file.place}: {look.why}", style="red")
        elif look.state != "there" and look.file.gated:
            console.print(f"{look.file.place}: accept its licence first, at {look.file.gated}")


def print_failures(failed: Mapping[str, MinerError]) -> None:
    """To standard error, as the program's own last words are."""
    for error in failed.values():
        typer.echo(f"error: {error.message}", err=True)
        if error.hint:
            typer.echo(f"next:  {error.hint}", err=True)


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    table.columns[1].justify = "right"
    return table
