"""The command `xalora-miner doctor`.

Exit codes: 0 all is well, 1 there are warnings, 2 this machine cannot mine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import AsJson, ConfigFile, hide_secrets, library_of, load, plain_console

if TYPE_CHECKING:
    from miner.doctor.facts import Facts
    from miner.doctor.report import Finding
    from miner.doctor.trial_render import RenderResult
    from miner.task.errors import ConfigError

    Show = Callable[[Finding], None]


def doctor(
    config: ConfigFile = None,
    as_json: AsJson = False,
    render: Annotated[bool, typer.Option("--render", help="Also render on the real ComfyUI; takes minutes.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash the models whose hash is not known yet.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="Only whether torch can use the GPU; a line if not.")] = False,
) -> None:
    """Check everything that mining needs, and print the next steps. Changes nothing."""
    if torch:
        sys.exit(_check_torch(config))
    from miner.cli.tables import print_finding, verdict
    from miner.doctor.report import as_json as report
    from miner.doctor.report import exit_code
    from miner.task.errors import ConfigError

    at, out = time.time(), plain_console()
    renders: list[RenderResult] = []

    def show(finding: Finding) -> None:
        if not as_json:
            print_finding(out, finding)

    try:
        facts = load_facts(config)
    except ConfigError as error:
        findings = [_refused(error)]
        show(findings[0])
    else:
        if verify:
            _verify(facts)
        findings = _run_checks(facts, show)
        if render:
            findings.append(_render(facts, renders, show))
    if as_json:
        typer.echo(json.dumps(report(findings, at=at, renders=renders), indent=2))
    else:
        out.print(verdict(findings))
    sys.exit(exit_code(findings))


def load_facts(config: Path | None) -> Facts:
    """What the checks look at, for doctor and bench. Raises ConfigError."""
    from miner.doctor.facts import Facts
    from miner.telemetry import log

    log.setup(level="ERROR")  # the marks tell the rest
    loaded = load(config)
    hide_secrets(loaded.settings)
    return Facts(loaded, library_of(loaded.settings))


def _check_torch(config: Path | None) -> int:
    """For the image's entry point: a line at most. 2: another torch or driver is needed; 1: CUDA does not start.

    0 too where no torch is needed here, and for invalid settings: the command that comes next reports them.
    """
    from miner.machine.gpu import probe_for
    from miner.machine.torch_build import complaint
    from miner.task.errors import ConfigError

    try:
        settings = load(config).settings
    except ConfigError:
        return 0
    if settings.comfyui.url or "--cpu" in settings.comfyui.args:
        return 0
    line, code = complaint(probe_for(settings))
    if line:
        typer.echo(line)
    return code


def _refused(error: ConfigError) -> Finding:
    """Invalid settings: a mark for each line, and no other check."""
    from miner.doctor.report import bad, finding

    cure = error.hint or "fix it and run xalora-miner doctor again: no other check ran"
    return finding("configuration", [bad("Configuration", line, cure) for line in error.message.splitlines()], 0.0)


def _run_checks(facts: Facts, show: Show) -> list[Finding]:
    from miner.doctor.checks import CHECKS
    from miner.doctor.runner import run_checks

    findings: list[Finding] = []
    for finding in run_checks(CHECKS, facts):
        show(finding)
        findings.append(finding)
    return findings


def _verify(facts: Facts) -> None:
    """Hash the models whose hash is not known, for the check of the models."""
    from miner.cli.progress import Lines
    from miner.models.catalogue import files_of
    from miner.models.local import LocalModels
    from miner.task.errors import MinerError

    typer.echo("hashing models …", err=True)
    try:
        with LocalModels(facts.settings, facts.library) as local:
            local.verify(files_of(facts.enabled), progress=Lines(), again=False)
    except MinerError as error:
        typer.echo(f"warning: cannot read the models: {error.message}", err=True)


def _render(facts: Facts, renders: list[RenderResult], show: Show) -> Finding:
    """The self-test; each mark is shown at once."""
    from miner.doctor.report import finding
    from miner.doctor.selftest import trial_marks

    began, marks = time.monotonic(), []
    for mark in trial_marks(facts, renders):
        marks.append(mark)
        show(finding("render", [mark], 0.0))
    return finding("render", marks, time.monotonic() - began)
