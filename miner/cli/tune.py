"""`xalora-miner bench --tune`: what it runs and shows. Exit codes as for `bench`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from miner.cli.common import plain_console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from miner.doctor.tune import Tuning
    from miner.doctor.tune_policy import Trial
    from miner.doctor.tune_trials import Plan
    from miner.machine.benchmarks import Measurement
    from miner.machine.tuning import Choice


def show_plans(plans: Sequence[Plan], measured: Mapping[str, Measurement], *, as_json: bool) -> None:
    """What would be tried, and how long it takes."""
    if as_json:
        typer.echo(json.dumps({"cards": [_as_dict(plan, measured) for plan in plans]}, indent=2))
        return
    out = plain_console()
    for plan in plans:
        for line in plan_lines(plan, measured):
            out.print(line)


def run_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    """Tune each kind of card; its choice is saved at once. The caller has made sure that no miner runs.

    Raises ConfigError if one has just started, and MachineFault if no workflow can be measured.
    """
    from miner.doctor.comfy_session import locked_state
    from miner.doctor.tune import choice, tune
    from miner.machine import tuning

    results: list[dict[str, Any]] = []
    try:
        for plan in plans:
            state = plan.settings.state.dir
            with locked_state(state):
                found = tune(plan, lambda line: typer.echo(line, err=True))
                chosen = choice(plan, found)
                results.append({**asdict(chosen), "left_out": found.left_out, "noise": found.noise})
                if not as_json:
                    _show(chosen, found)
                tuning.write(state, chosen)  # last: a full disk hides no result of hours
    finally:
        if as_json and results:
            typer.echo(json.dumps({"cards": results}, indent=2))


def _show(chosen: Choice, found: Tuning) -> None:
    out = plain_console()
    if out.is_terminal:
        out.print(tune_table(found))
    for line in tune_lines(found) if not out.is_terminal else ():
        out.print(line)
    for line in result_lines(chosen, found):
        out.print(line)


def plan_lines(plan: Plan, measured: Mapping[str, Measurement]) -> Iterator[str]:
    """For people: each switch, then the time."""
    from miner.doctor.tune_plan import seconds

    yield f"on {plan.basis.card or 'this machine'}, with {', '.join(workflow.name for workflow in plan.workflows)}:"
    for one in plan.candidates:
        yield f"  skip  {one.name}: {one.skipped}" if one.skipped else f"  try   {one.name}"
    for workflow in plan.workflows:
        for variant in [one.variant for one in workflow.variants if one.variant]:
            yield f"  try   {workflow.name} as {variant}, if it can run here"
    least, most = plan.trials
    yield f"{least} to {most} trials, each a ComfyUI of its own: 1 cold and {plan.runs} warm renders per workflow"
    time = seconds(plan, measured)
    if time is None:
        yield "time: unknown until `xalora-miner bench` has measured these workflows on this card"
    else:
        yield f"time: {time[0] / 60:.0f} to {time[1] / 60:.0f} minutes, by the figures of the bench"


def _as_dict(plan: Plan, measured: Mapping[str, Measurement]) -> dict[str, Any]:
    from miner.doctor.tune_plan import seconds

    return {
        "card": plan.basis.card,
        "workflows": [workflow.name for workflow in plan.workflows],
        "candidates": [asdict(one) for one in plan.candidates],
        "variants": {one.name: [other.variant for other in one.variants if other.variant] for one in plan.workflows},
        "trials": plan.trials,
        "seconds": seconds(plan, measured),
    }


def tune_table(found: Tuning) -> RenderableType:
    """For a terminal: a row for each trial, with the seconds of each workflow."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("arguments", overflow="fold")
    for name in (*found.reference.warm, "one of each", "saved", "SSIM"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ruled out")
    for trial, reason in ((found.reference, ""), *found.trials):
        each = [_seconds(trial, name) for name in found.reference.warm]
        table.add_row(trial.name, *each, *_figures(trial, found.reference), Text(reason, style="red"))
    return table


def tune_lines(found: Tuning) -> Iterator[str]:
    """For a pipe: a line for each trial."""
    for trial, reason in ((found.reference, ""), *found.trials):
        each = ", ".join(f"{name} {_seconds(trial, name)}" for name in found.reference.warm)
        total, saved, ssim = _figures(trial, found.reference)
        figures = f"{each}; one of each {total}, {saved} saved, SSIM {ssim}"
        yield f"{trial.name}: {figures}" + (f"; ruled out: {reason}" if reason else "")


def result_lines(chosen: Choice, found: Tuning) -> Iterator[str]:
    """What was chosen, and why."""
    from miner.machine.tuning import named

    for name, why in found.left_out.items():
        yield f"left out: {name}: {why}"
    yield f"noise: two trials of the defaults differ by up to {found.noise:.1%}"
    variants = "".join(f"; {workflow} as {variant}" for workflow, variant in chosen.variants.items())
    yield f"chosen for {chosen.card or 'this machine'}: {named(chosen.args)}{variants}: {chosen.why}"
    if chosen.args or chosen.variants:
        yield "xalora-miner run uses it from its next start on; [comfyui] tuned = false turns it off"


def _seconds(trial: Trial, workflow: str) -> str:
    return f"{trial.seconds(workflow):.2f} s" if trial.warm.get(workflow) else "–"


def _figures(trial: Trial, reference: Trial) -> tuple[str, str, str]:
    """One of each workflow, the share saved, the lowest SSIM; for an unfinished trial as far as it came."""
    from miner.doctor.tune_policy import gain

    ssim = f"{min(trial.ssim.values()):.3f}" if trial.ssim else "–"
    if not all(trial.warm.get(name) for name in ([trial.workflow] if trial.workflow else reference.warm)):
        return "–", "–", ssim
    return f"{trial.total:.2f} s", f"{gain(trial, reference):.1%}", ssim
