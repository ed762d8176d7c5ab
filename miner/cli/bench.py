"""The command `xalora-miner bench`.

Exit codes: 0; 1 where a workflow failed or none could be measured; 78 for the settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import AsJson, ConfigFile, plain_console
from miner.cli.doctor import load_facts
from miner.task.errors import MachineFault

if TYPE_CHECKING:
    from rich.console import RenderableType

    from miner.doctor.bench import Row
    from miner.doctor.facts import Facts
    from miner.doctor.tune_trials import Plan
    from miner.machine.benchmarks import Measurement
    from miner.workflows import Workflow


def bench(
    workflows: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Default: the enabled ones.")
    ] = None,
    config: ConfigFile = None,
    runs: Annotated[
        int | None, typer.Option(min=1, max=100, help="Warm renders of each workflow; default: 1, or 3 with --tune.")
    ] = None,
    limit: Annotated[float | None, typer.Option(min=1.0, help="Seconds for one render; default: its task's.")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Find the fastest arguments for ComfyUI, and use them. Stop the miner first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --tune: only show what would be tried.")] = False,
    min_ssim: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --tune: how like the defaults' its pictures must be.")
    ] = 0.9,
    min_gain: Annotated[
        float, typer.Option(min=0.0, max=90.0, help="With --tune: percent of time that it must save.")
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Measure how many tasks an hour this machine renders. Uses its first ComfyUI; pause the miner first."""
    from miner.doctor.interrupts import ended_by_signals
    from miner.doctor.tune_plan import plans
    from miner.doctor.tune_policy import Limits

    facts = load_facts(config)
    chosen = tuple(facts.library.get(name) for name in workflows) if workflows else facts.enabled
    with ended_by_signals():
        if not (tune or dry_run):
            _measure(facts, chosen, runs=runs or 1, limit=limit, as_json=as_json)
        else:
            limits = Limits(ssim=min_ssim, gain=min_gain / 100)
            plan = plans(facts, chosen, runs=runs or 3, limit=limit, limits=limits)
            _tune(facts, plan, dry_run=dry_run, as_json=as_json)


def _tune(facts: Facts, plan: Sequence[Plan], *, dry_run: bool, as_json: bool) -> None:
    from miner.cli.tune import run_plans, show_plans
    from miner.doctor.tune_plan import require_idle
    from miner.machine.benchmarks import read

    if dry_run:
        show_plans(plan, read(facts.settings.state.dir), as_json=as_json)
    else:
        require_idle(facts)
        run_plans(plan, as_json=as_json)


def _measure(facts: Facts, chosen: Sequence[Workflow], *, runs: int, limit: float | None, as_json: bool) -> None:
    from miner.doctor.bench import measure
    from miner.doctor.comfy_session import open_session
    from miner.doctor.selftest import runnable
    from miner.machine.benchmarks import write
    from miner.worker.layout import layout

    settings, rows = facts.settings, []
    with open_session(layout(settings)[0], settings, facts.worker()) as session:
        for workflow in runnable(session, chosen):
            typer.echo(f"measuring {workflow.name} …", err=True)
            rows.append(row := measure(session, workflow, runs=runs, limit=limit))
            if row.measured is not None:
                write(settings.state.dir, [row.measured])
    if not rows:
        hint = "run `xalora-miner doctor` to see what each needs"
        raise MachineFault("none of these workflows can run on this ComfyUI", hint=hint)
    device, out = session.stats.device, plain_console()
    if as_json:
        typer.echo(json.dumps({"device": device, "workflows": [asdict(row) for row in rows]}, indent=2))
    elif out.is_terminal:
        out.print(bench_table(rows, device))
    else:
        for line in bench_lines(rows):
            out.print(line)
    sys.exit(0 if all(row.measured is not None for row in rows) else 1)


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
    from miner.telemetry.sizes import gb

    memory = gb(one.peak_memory) if one.peak_memory is not None else "unknown"
    return f"{one.tasks_an_hour:,.0f}", f"{one.warm:.1f} s", f"{one.cold:.1f} s", memory
