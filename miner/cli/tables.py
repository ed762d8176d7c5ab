"""What `xalora-miner models` prints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from miner.models.catalogue import FileStatus, gb
from miner.models.prune import UnusedFile
from miner.task.errors import MinerError

_STATES = {"there": ("there", "green"), "missing": ("missing", "yellow"), "differs": ("differs", "red")}


def files_table(statuses: Sequence[FileStatus]) -> Table:
    table = _table("file", "size", "state", "needed by", "licence")
    for status in statuses:
        file = status.file
        table.add_row(file.relative_path, gb(file.size), state(status), ", ".join(file.needed_by), file.licence)
    return table


def state(status: FileStatus) -> Text:
    """One or two words for the column."""
    if status.state == "partial":
        done = f"{100 * status.present_bytes // status.file.size} %" if status.file.size else gb(status.present_bytes)
        return Text(f"{done} of it", style="yellow")
    return Text(*_STATES[status.state])


def unused_table(unused_files: Sequence[UnusedFile], root: Path) -> Table:
    table = _table("file", "size", "was for")
    for one in unused_files:
        table.add_row(str(one.path.relative_to(root)), gb(one.size), ", ".join(one.needed_by))
    return table


def print_summary(console: Console, statuses: Sequence[FileStatus], root: Path) -> None:
    """Where the files are, what is lacking, and what room there is."""
    if not statuses:
        console.print("these workflows need no files")
        return
    lacking = sum(status.missing_bytes for status in statuses)
    free = next(shutil.disk_usage(folder).free for folder in (root, *root.parents) if folder.is_dir())
    missing = sum(status.state != "there" for status in statuses)
    text = f"{missing} of {len(statuses)} files are missing, {gb(lacking)}" if missing else "all of them are there"
    console.print(f"\n{root}: {text}; {gb(free)} are free")
    for status in statuses:
        if status.state == "differs":
            console.print(f"{status.file.relative_path}: {status.reason}", style="red")
        elif status.state != "there" and status.file.gated:
            console.print(f"{status.file.relative_path}: accept its licence first, at {status.file.gated}")


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
