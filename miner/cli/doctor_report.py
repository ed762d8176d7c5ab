"""The report for people: a table in a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from miner.cli.status import COLOURS, SIGNS
from miner.doctor.bench import Row
from miner.doctor.report import CANNOT_MINE, WARNINGS, Finding, exit_code
from miner.machine.benchmarks import Measurement
from miner.telemetry.health import Mark

NAMES = 26  # characters; the longest is "Workflow upscaler-lanczos"
WORDS = {"good": "ok", "note": "note", "warning": "WARN", "bad": "BAD"}
_VERDICTS = {
    WARNINGS: ("this machine can mine; what is marked could be better", "yellow"),
    CANNOT_MINE: ("this machine cannot mine yet: see what is marked as bad", "red"),
}


def console() -> Console:
    """Names of files and words of others are no markup, and a pipe has no width to wrap at."""
    plain = Console(markup=False, highlight=False)
    return plain if plain.is_terminal else Console(markup=False, highlight=False, soft_wrap=True)


@contextmanager
def screen(*, as_json: bool) -> Iterator[Callable[[Finding], None]]:
    """What shows each finding as it comes; nothing does where machines read."""
    out = console()

    def tell(finding: Finding) -> None:
        if out.is_terminal:
            out.print(table(finding))
            return
        for line in lines(finding):
            out.print(line)

    yield (lambda _finding: None) if as_json else tell


def table(finding: Finding) -> RenderableType:
    """A row a mark, its cure below its sentence. Columns of one width, for the next finding's follow below."""
    rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column(width=1)
    rows.add_column(width=NAMES)
    rows.add_column(overflow="fold")
    for mark in finding.marks:
        rows.add_row(Text(SIGNS[mark.level], style=COLOURS[mark.level]), Text(mark.name), _said(mark))
    return rows


def lines(finding: Finding) -> Iterator[str]:
    """A line a mark, and one a cure: for a pipe, and for grep."""
    for mark in finding.marks:
        yield f"{WORDS[mark.level]:4}  {mark.name}: {mark.says}"
        if mark.cure:
            yield f"      next: {mark.cure}"


def verdict(findings: Sequence[Finding]) -> Text:
    """The last line."""
    words, colour = _VERDICTS.get(exit_code(findings), ("this machine is ready to mine", "green"))
    return Text(words, style=f"bold {colour}")


def bench_table(rows: Sequence[Row], device: str) -> RenderableType:
    """Tasks an hour, the fastest way to read them."""
    figures = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("workflow", "tasks/hour", "warm", "cold", "video memory"):
        figures.add_column(column, justify="left" if column == "workflow" else "right", no_wrap=True)
    for row in rows:
        if row.measured is not None:
            figures.add_row(row.workflow, *_figures(row.measured))
        elif row.failure is not None:
            figures.add_row(row.workflow, Text("failed", style="red"))
    reasons = [Text(f"{r.workflow}: {r.failure.says}; next: {r.failure.cure}") for r in rows if r.failure is not None]
    return Group(f"one task after the other at its defaults, on {device}", figures, *reasons)


def bench_lines(rows: Iterable[Row]) -> Iterable[str]:
    for row in rows:
        if row.measured is not None:
            an_hour, warm, cold, memory = _figures(row.measured)
            yield f"{row.workflow}: {an_hour} tasks an hour; {warm} warm, {cold} cold; video memory {memory}"
        elif row.failure is not None:
            yield f"{row.workflow}: {row.failure.says}\n      next: {row.failure.cure}"


def _figures(one: Measurement) -> tuple[str, str, str, str]:
    memory = f"{one.peak_memory / 1e9:.1f} GB" if one.peak_memory is not None else "unknown"
    return f"{one.tasks_an_hour:,.0f}", f"{one.warm:.1f} s", f"{one.cold:.1f} s", memory


def _said(mark: Mark) -> Text:
    said = Text(mark.says)
    if mark.cure:
        said.append(f"\nnext: {mark.cure}", style="dim" if mark.level == "note" else COLOURS[mark.level])
    return said
