"""The commands `xalora-miner models …`: list, pull, verify, prune, pull-lora.

Exit codes: 0 all is as it should be; 1 something is missing, damaged or could not be had; 78 the settings; 130
interrupted, and then the same command goes on where it was. What a command needs is imported when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from miner.cli.progress import Bars, Lines
    from miner.models.catalogue import FileStatus, ModelFile
    from miner.models.local import LocalModels
    from miner.models.pull import Report

FAILED, INTERRUPTED = 1, 130

models_app = typer.Typer(name="models", help="The weights that the workflows need.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="config.toml to read instead of the usual places.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Default: those that are enabled.")]
Jobs = Annotated[int, typer.Option(min=1, max=16, help="Files at once.")]


@models_app.command("list")
def list_models(
    workflows: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Of every workflow, enabled or not.")] = False,
    config: ConfigFile = None,
) -> None:
    """What the workflows need, and what is there."""
    from miner.cli.tables import files_table, print_summary
    from miner.models.catalogue import files_of

    console = _console()
    with _local_models(config) as local:
        statuses = local.statuses(files_of(local.library.workflows if every else local.workflows(workflows)))
        console.print(files_table(statuses))
        print_summary(console, statuses, local.store.root)


@models_app.command()
def pull(
    workflows: Names = None,
    on_start: Annotated[
        bool, typer.Option("--on-start", help="Only what fits the GPU, and log lines instead of bars.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also over files that this program did not download.")
    ] = False,
    jobs: Jobs = 4,
    config: ConfigFile = None,
) -> None:
    """Download what is missing. Goes on where an earlier download ended.

    With --on-start, exit code 1 says that a file failed; the miner offers what the rest can do.
    """
    from miner.models.catalogue import files_of

    with _local_models(config) as local:
        chosen = local.workflows(workflows)
        files = files_of(local.fitting(chosen) if on_start else chosen)
        report = _pull(local, files, jobs=jobs, replace=replace, plain=on_start)
        _console().print(f"{len(report.done)} of {len(files)} files are in {local.store.root}")
    sys.exit(FAILED if report.failed else 0)


@models_app.command("pull-lora")
def pull_lora(
    source: Annotated[str, typer.Argument(help="https://…, or hf://org/repo/file.safetensors.")],
    name: Annotated[str, typer.Option(help="The name that it gets; default: the one in its address.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Also over another LoRA of that name.")] = False,
    config: ConfigFile = None,
) -> None:
    """Download a LoRA, safetensors only. A miner that runs offers it without a restart."""
    from miner.models.loras import MAX_BYTES, lora

    with _local_models(config) as local:
        file = lora(source, name=name)
        (status,) = local.statuses([file])
        if status.state == "there" and not replace:
            _console().print(f"{status.path} is there already; --replace fetches it anew, --name keeps both")
            return
        report = _pull(local, [file], jobs=1, replace=replace, max_bytes=MAX_BYTES)
        for status in report.done.values():
            _console().print(f"{status.path}; a task names it {file.name.removesuffix('.safetensors')}")
    sys.exit(FAILED if report.failed else 0)


@models_app.command()
def verify(
    workflows: Names = None,
    again: Annotated[bool, typer.Option("--again", help="Read every file, also if its hash is known.")] = False,
    config: ConfigFile = None,
) -> None:
    """Check the files that are there by their hashes."""
    from miner.cli.tables import print_failures
    from miner.models.catalogue import files_of
    from miner.models.verify import verdict

    console = _console()
    with _local_models(config) as local:
        files = files_of(local.workflows(workflows))
        with _goes_on_later(), _progress([], plain=False) as progress:
            report = local.verify(files, progress=progress, again=again)
        for status in report.done.values():
            console.print(f"{status.file.relative_path}: {verdict(status, local.hash_db)}")
    print_failures(report.failed)
    sys.exit(FAILED if report.failed or any(status.state != "there" for status in report.done.values()) else 0)


@models_app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Delete what was downloaded for workflows that are not enabled. Asks first."""
    from miner.cli.tables import unused_table
    from miner.models.catalogue import gb
    from miner.models.prune import remove

    console = _console()
    with _local_models(config) as local:
        unused_files = local.unused_files()
        if not unused_files:
            console.print("nothing to delete: all that was downloaded is for an enabled workflow, or a LoRA")
            return
        console.print(unused_table(unused_files, local.store.root))
        what = f"{len(unused_files)} files, {gb(sum(one.size for one in unused_files))}"
        if not yes:
            typer.confirm(f"Delete {what}?", abort=True)
        for one in unused_files:
            remove(one, local.hash_db)
        console.print(f"deleted {what}")


def _console() -> Console:
    from rich.console import Console

    # names and licences are no markup ("FLUX.1 [dev]"), and a pipe has no width to wrap at
    return Console(markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def _local_models(config: Path | None) -> LocalModels:
    """Raises ConfigError and MachineFault."""
    from miner.config import load_settings
    from miner.config.bundled import WORKFLOWS
    from miner.models.local import LocalModels
    from miner.telemetry import log
    from miner.workflows import load_library

    loaded = load_settings(config_file=config, flags={})
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    log.setup(level=settings.log.level, style=settings.log.format)
    return LocalModels(settings, load_library([WORKFLOWS, *settings.workflows.folders], ids=settings.workflows.ids))


def _pull(
    local: LocalModels,
    files: Sequence[ModelFile],
    *,
    jobs: int,
    replace: bool,
    plain: bool = False,
    max_bytes: int | None = None,
) -> Report:
    """See what is lacking, that there is room, and bring it; says what failed."""
    from miner.cli.tables import print_failures

    statuses = local.statuses(files)
    local.require_room(statuses)
    with (
        _goes_on_later(),
        _progress([status for status in statuses if status.state != "there"], plain=plain) as progress,
    ):
        report = local.pull(files, progress=progress, jobs=jobs, replace=replace, max_bytes=max_bytes)
    print_failures(report.failed)
    return report


def _progress(statuses: Sequence[FileStatus], *, plain: bool) -> Bars | Lines:
    from miner.cli.progress import Bars, Lines

    console = _console()
    return Lines() if plain or not console.is_terminal else Bars(console, statuses)


@contextmanager
def _goes_on_later() -> Iterator[None]:
    """Ctrl-C is no error: it says what is next, and ends the program."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: what was fetched is kept, and the same command goes on there", err=True)
        sys.exit(INTERRUPTED)
