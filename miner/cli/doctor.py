"""The commands `xalora-miner doctor` and `xalora-miner bench`.

Exit codes of doctor: 0 all is well, 1 there are warnings, 2 this machine cannot mine. Of bench: 0, 1 where a workflow
failed or none could be measured, 78 for the settings. What a command needs is imported when it runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from miner.doctor.bench import Row
    from miner.doctor.comfy_session import ComfySession
    from miner.doctor.facts import Facts
    from miner.doctor.report import Finding
    from miner.doctor.trial_render import RenderResult
    from miner.task.errors import ConfigError
    from miner.telemetry.health import Mark
    from miner.worker.layout import Placement
    from miner.workflows import Workflow

    Tell = Callable[[Finding], None]

Config = Annotated[Path | None, typer.Option("--config", help="config.toml to read instead of the usual places.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]


def doctor(
    config: Config = None,
    as_json: AsJson = False,
    render: Annotated[bool, typer.Option("--render", help="Render on the real ComfyUI, too: takes minutes.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read the models that no hash is known of.")] = False,
) -> None:
    """Check all that mining needs, and say what to do. It changes nothing."""
    from miner.cli import doctor_report
    from miner.doctor.report import as_json as report
    from miner.doctor.report import exit_code
    from miner.task.errors import ConfigError

    at = time.time()
    renders: list[RenderResult] = []
    with doctor_report.screen(as_json=as_json) as tell:
        try:
            facts = _facts(config)
        except ConfigError as error:
            findings = [_refused(error)]
            tell(findings[0])
        else:
            if verify:
                _verify(facts)
            findings = _run_checks(facts, tell)
            if render:
                findings.append(_render(facts, renders, tell))
    if as_json:
        typer.echo(json.dumps(report(findings, at=at, renders=renders), indent=2))
    else:
        doctor_report.console().print(doctor_report.verdict(findings))
    sys.exit(exit_code(findings))


def bench(
    workflows: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Default: those that are enabled.")
    ] = None,
    config: Config = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Warm renders of each workflow.")] = 1,
    limit: Annotated[float | None, typer.Option(min=1.0, help="Seconds for one render; default: its task's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how many tasks an hour this machine does. On its first ComfyUI; the miner must not be at work."""
    from miner.doctor.comfy_session import open_session
    from miner.worker.layout import layout

    facts = _facts(config)
    chosen = tuple(facts.library.get(name) for name in workflows) if workflows else facts.enabled
    with open_session(layout(facts.settings)[0], facts.settings, facts.worker()) as session:
        rows = _measure(session, chosen, facts.settings.state.dir, runs=runs, limit=limit)
        device = session.stats.device
    _print_bench(rows, device, as_json=as_json)
    sys.exit(0 if all(row.measured is not None for row in rows) else 1)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(doctor)
    app.command()(bench)


# ---- their parts ------------------------------------------------------------------------------------------------


def _facts(config: Path | None) -> Facts:
    """Raises ConfigError."""
    from miner.config import load_settings
    from miner.config.bundled import WORKFLOWS
    from miner.doctor.facts import Facts
    from miner.telemetry import log
    from miner.workflows import load_library

    log.setup(level="ERROR")  # the marks say it
    loaded = load_settings(config_file=config, flags={})
    settings = loaded.settings
    log.hide(*(one.get_secret_value() for one in (settings.sequencer.api_key, settings.status.token) if one))
    return Facts(loaded, load_library([WORKFLOWS, *settings.workflows.folders], ids=settings.workflows.ids))


def _refused(error: ConfigError) -> Finding:
    """Settings that are none: a mark a line, and nothing else can be looked at."""
    from miner.doctor.report import bad, finding

    cure = error.hint or "mend it, and run xalora-miner doctor again: the rest was not looked at"
    return finding("configuration", [bad("Configuration", line, cure) for line in error.message.splitlines()], 0.0)


def _run_checks(facts: Facts, tell: Tell) -> list[Finding]:
    from miner.doctor.checks import CHECKS
    from miner.doctor.runner import run_checks

    findings: list[Finding] = []
    for finding in run_checks(CHECKS, facts):
        tell(finding)
        findings.append(finding)
    return findings


def _verify(facts: Facts) -> None:
    """Take the hashes that are not known yet, so that the check of the models knows them."""
    from miner.cli.progress import Lines
    from miner.models.catalogue import files_of
    from miner.models.local import LocalModels
    from miner.task.errors import MinerError

    typer.echo("reading the models that no hash is known of …", err=True)
    try:
        with LocalModels(facts.settings, facts.library) as local:
            local.verify(files_of(facts.enabled), progress=Lines(), again=False)
    except MinerError as error:
        typer.echo(f"warning: the models were not read: {error.message}", err=True)


def _render(facts: Facts, renders: list[RenderResult], tell: Tell) -> Finding:
    """The self-test on every ComfyUI; what it rendered is added to `renders`, each told at once."""
    from miner.doctor.report import finding, of_error
    from miner.task.errors import ConfigError
    from miner.worker.layout import layout

    began, marks = time.monotonic(), []

    def add(one: Mark) -> None:
        marks.append(one)
        tell(finding("render", [one], 0.0))

    try:
        for placement in layout(facts.settings):
            _render_at(placement, facts, renders, add)
    except ConfigError as error:
        add(of_error("Render", error))
    return finding("render", marks, time.monotonic() - began)


def _render_at(placement: Placement, facts: Facts, renders: list[RenderResult], add: Callable[[Mark], None]) -> None:
    from miner.doctor.comfy_session import Busy, open_session
    from miner.doctor.report import of_error, warning
    from miner.doctor.selftest import mark, selftest
    from miner.task.errors import MinerError

    try:
        with open_session(placement, facts.settings, facts.worker()) as session:
            for one in selftest(session, facts.enabled):
                renders.append(one)
                add(mark(one))
    except Busy as busy:
        add(warning("Render", f"nothing was rendered: {busy.message}", busy.hint))
    except MinerError as error:
        add(of_error("Render", error))


def _measure(
    session: ComfySession, workflows: Sequence[Workflow], state: Path, *, runs: int, limit: float | None
) -> list[Row]:
    """A row for each that can run, kept in `state` at once. Raises MachineFault where none can."""
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
        hint = "xalora-miner doctor says what each lacks"
        raise MachineFault("none of these workflows can run on this ComfyUI", hint=hint)
    return rows


def _print_bench(rows: Sequence[Row], device: str, *, as_json: bool) -> None:
    from miner.cli import doctor_report

    out = doctor_report.console()
    if as_json:
        typer.echo(json.dumps({"device": device, "workflows": [asdict(row) for row in rows]}, indent=2))
    elif out.is_terminal:
        out.print(doctor_report.bench_table(rows, device))
    else:
        for line in doctor_report.bench_lines(rows):
            out.print(line)
