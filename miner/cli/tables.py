"""What `xalora-miner models` and `xalora-miner doctor` print."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from miner.cli.status import COLORS, SIGNS
from miner.doctor.report import CANNOT_MINE, WARNINGS, Finding, exit_code
from miner.machine.disk import free_bytes
from miner.models.catalogue import FileStatus, ModelFile, files_of
from miner.models.local import LoraRow
from miner.models.prune import UnusedFile
from miner.models.wanted import Wanted
from miner.telemetry.health import Mark
from miner.telemetry.sizes import gb
from miner.workflows import Card
from miner.workflows.lora_names import title
from miner.workflows.variants import dotted

NAME_WIDTH = 26  # characters; the longest name is "Workflow upscaler-lanczos"
_STATES = {
    "present": ("present", "green"),
    "missing": ("missing", "yellow"),
    "differs": ("differs", "yellow"),
    "broken": ("BROKEN", "red"),
}
_WORDS = {"good": "ok", "note": "note", "warning": "WARN", "bad": "BAD"}
_VERDICTS = {
    WARNINGS: ("this machine can mine, with the warnings above", "yellow"),
    CANNOT_MINE: ("this machine cannot mine yet: fix what is marked bad", "red"),
}


# ---- models -----------------------------------------------------------------------------------------------------


def files_table(statuses: Sequence[FileStatus]) -> Table:
    table = _table("file", "size", "state", "needed by", "license")
    for status in statuses:
        file = status.file
        table.add_row(file.relative_path, gb(file.size), _state(status), ", ".join(file.needed_by), file.licence)
    return table


def wanted_table(wanted: Sequence[Wanted], look: Callable[[Sequence[ModelFile]], Sequence[FileStatus]]) -> Table:
    """The variants, the size of their files and what of it is to be downloaded; `look` finds the state of files."""
    table = _table("workflow", "size", "to fetch", "variant", "for", "why")
    table.columns[2].justify = "right"
    for one in wanted:
        statuses = look(files_of([one.workflow]))
        size = gb(sum(status.file.size or 0 for status in statuses))
        cards = ", ".join(dict.fromkeys(map(card_name, one.cards)))
        to_fetch = gb(sum(status.missing_bytes for status in statuses))
        chosen = (one.workflow.variant, cards, one.why) if one.workflow.variant else ("-", "-", "-")
        table.add_row(one.workflow.name, size, to_fetch, *chosen)
    return table


def card_name(card: Card) -> str:
    """`NVIDIA GeForce RTX 4090 (25.3 GB, 8.9)`, as far as known."""
    capability = dotted(card.compute_capability) if card.compute_capability else ""
    facts = ", ".join(filter(None, (gb(card.memory) if card.memory else "", capability)))
    return f"{card.name or ('the CPU' if card.is_cpu else 'an unknown GPU')}{f' ({facts})' if facts else ''}"


def _state(status: FileStatus) -> Text:
    if status.state == "partial":
        size = status.file.size
        done = f"{100 * status.present_bytes // size} %" if size else gb(status.present_bytes)
        return Text(f"{done} of it", style="yellow")
    return Text(*_STATES[status.state])


def unused_table(unused_files: Sequence[UnusedFile], root: Path) -> Table:
    table = _table("file", "size", "was for")
    for one in unused_files:
        table.add_row(str(one.path.relative_to(root)), gb(one.size), ", ".join(one.needed_by))
    return table


def loras_table(rows: Sequence[LoraRow]) -> Table:
    table = _table("LoRA", "size", "base", "from", "last used")
    for row in rows:
        used = "" if row.used_at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(row.used_at))
        base = title(row.base) if row.base else "unknown"
        table.add_row(row.name, gb(row.size), base, row.origin or "unknown", used or "never")
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    table.columns[1].justify = "right"
    return table


def print_summary(console: Console, statuses: Sequence[FileStatus], root: Path) -> None:
    """Where the files are, what is missing, and the free space."""
    if not statuses:
        console.print("these workflows need no files")
        return
    missing = sum(status.state != "present" for status in statuses)
    to_fetch = gb(sum(status.missing_bytes for status in statuses))
    text = f"{missing} of {len(statuses)} files are missing or differ, {to_fetch}" if missing else "no file is missing"
    console.print(f"\n{root}: {text}; {gb(free_bytes(root))} free")
    for status in statuses:
        if status.reason:
            console.print(f"{status.file.relative_path}: {status.reason}", style="red")
        elif status.state != "present" and status.file.gated:
            console.print(f"{status.file.relative_path}: accept its license first, at {status.file.gated}")


# ---- doctor -----------------------------------------------------------------------------------------------------


def print_finding(out: Console, finding: Finding) -> None:
    """A table in a terminal, plain lines in a pipe."""
    for one in [finding_table(finding)] if out.is_terminal else finding_lines(finding):
        out.print(one)


def finding_table(finding: Finding) -> RenderableType:
    """A row for each mark. Fixed columns, since the next finding's table follows below."""
    rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column(width=1)
    rows.add_column(width=NAME_WIDTH)
    rows.add_column(overflow="fold")
    for mark in finding.marks:
        rows.add_row(Text(SIGNS[mark.level], style=COLORS[mark.level]), Text(mark.name), _text(mark))
    return rows


def finding_lines(finding: Finding) -> Iterator[str]:
    """A line for each mark and each cure, for grep."""
    for mark in finding.marks:
        yield f"{_WORDS[mark.level]:4}  {mark.name}: {mark.says}"
        if mark.cure:
            yield f"      next: {mark.cure}"


def verdict(findings: Sequence[Finding]) -> Text:
    """The last line."""
    words, color = _VERDICTS.get(exit_code(findings), ("this machine is ready to mine", "green"))
    return Text(words, style=f"bold {color}")


def _text(mark: Mark) -> Text:
    text = Text(mark.says)
    if mark.cure:
        text.append(f"\nnext: {mark.cure}", style="dim" if mark.level == "note" else COLORS[mark.level])
    return text
