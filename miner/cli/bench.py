"""The command `xalora-miner bench`.

Exit codes: 0; 1 where a workflow failed or none could be measured; 78 for the settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import AsJson, ConfigFile, plain_console
from miner.cli.doctor import load_facts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from miner.doctor.bench import Row
    from miner.doctor.comfy_session import ComfySession
    from miner.machine.benchmarks import Measurement
    from miner.workflows import Workflow


def bench(
    workflows: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Default: the enabled ones.")
    ] = None,
    config: ConfigFile = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Warm renders of each workflow.")] = 1,
    limit: Annotated[float | None, typer.Option(min=1.0, help="Seconds for one render; default: its task's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how many tasks an hour this machine renders. Uses its first ComfyUI; pause the miner first."""
    from miner.doctor.comfy_session import open_session
    from miner.worker.layout import layout

    facts = load_facts(config)
    chosen = tuple(facts.library.get(name) for name in workflows) if workflows else facts.enabled
    with open_session(layout(facts.settings)[0], facts.settings, facts.worker()) as session:
        rows = _measure(session, chosen, facts.settings.state.dir, runs=runs, limit=limit)
        device = session.stats.device
    out = plain_console()
    if as_json:
        typer.echo(json.dumps({"device": device, "workflows": [asdict(row) for row in rows]}, indent=2))
    elif out.is_terminal:
        out.print(bench_table(rows, device))
    else:
        for line in bench_lines(rows):
            out.print(line)
    sys.exit(0 if all(row.measured is not None for row in rows) else 1)


def _measure(
    session: ComfySession, workflows: Sequence[Workflow], state: Path, *, runs: int, limit: float | None
) -> list[Row]:
    """A row for each runnable workflow, saved to `state` as soon as it is measured. Raises MachineFault for none."""
    from miner.doctor.bench import measure
    from miner.doctor.selftest import runnable
    from miner.machine.benchmarks import write
    from miner.task.errors import MachineFault

    rows: list[Row] = []
    for workflow in runnable(session, workflows):
        typer.echo(f"measuring {workflow.name} …", err=True)
        row = measure(session, workflow, runs=runs, limit=limit)
        rows.append(row)
        if row.measured is not None:
            write(state, [row.measured])
    if not rows:
        hint = "run `xalora-miner doctor` to see what each needs"
        raise MachineFault("none of these workflows can run on this ComfyUI", hint=hint)
    return rows


def bench_table(rows: Sequence[Row], device: str) -> RenderableType:
    """For a terminal: a row for each workflow, then the failures."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("workflow", "tasks/hour", "warm", "cold", "video memory"):
        figures.add_column(column, justify="left" if column == "workflow" else "right", no_wrap=True)
    for row in rows:
        if row.measured is not None:
            figures.add_row(row.workflow, *_figures(row.measured))
        elif row.failure is not None:
            figures.add_row(row.workflow, Text("failed", style="red"))
    reasons = [Text(f"{r.workflow}: {r.failure.says}; next: {r.failure.cure}") for r in rows if r.failure is not None]
    return Group(f"one task after the other with default parameters, on {device}", figures, *reasons)


def bench_lines(rows: Sequence[Row]) -> Iterator[str]:
    """For a pipe: a line for each workflow."""
    for row in rows:
        if row.measured is not None:
            an_hour, warm, cold, memory = _figures(row.measured)
            yield f"{row.workflow}: {an_hour} tasks an hour; {warm} warm, {cold} cold; video memory {memory}"
        elif row.failure is not None:
            yield f"{row.workflow}: {row.failure.says}\n      next: {row.failure.cure}"


def _figures(one: Measurement) -> tuple[str, str, str, str]:
    from miner.machine.sizes import gb

    memory = gb(one.peak_memory) if one.peak_memory is not None else "unknown"
    return f"{one.tasks_an_hour:,.0f}", f"{one.warm:.1f} s", f"{one.cold:.1f} s", memory
