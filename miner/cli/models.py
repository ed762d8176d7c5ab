"""The commands `xalora-miner models …`: list, pull, verify, prune, pull-lora.

Exit codes: 0 success; 1 a file is missing, damaged or failed to download; 78 the settings; 130 interrupted, and the
same command resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import ConfigFile, library_of, load, plain_console, print_error, print_warnings

if TYPE_CHECKING:
    from miner.cli.progress import Bars, Lines
    from miner.models.catalogue import FileStatus, ModelFile
    from miner.models.local import LocalModels
    from miner.models.pull import Report
    from miner.models.wanted import Wanted
    from miner.workflows import Workflow

FAILED, INTERRUPTED = 1, 130

models_app = typer.Typer(name="models", help="The weights that the workflows need.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Default: the enabled ones.")]
Jobs = Annotated[int, typer.Option(min=1, max=16, help="Parallel downloads.")]


@models_app.command("list")
def list_models(
    workflows: Names = None,
    every: Annotated[
        bool, typer.Option("--all", help="For every workflow, enabled or not, and every variant.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """List the files that the workflows need on this machine's GPUs, and their state, and the LoRAs."""
    from miner.cli.tables import files_table, loras_table, print_summary
    from miner.models.catalogue import files_of

    console = plain_console()
    with _local_models(config) as local:
        chosen = local.library.workflows if every else _variants(local, workflows)
        statuses = local.statuses(files_of(chosen))
        console.print(files_table(statuses))
        print_summary(console, statuses, local.store.root)
        for name, flaw in local.store.folders.broken_loras().items():
            console.print(f"loras/{name}: {flaw}; delete it and download it again", style="red")
        if rows := local.lora_rows():
            console.print("")
            console.print(loras_table(rows))


@models_app.command()
def pull(
    workflows: Names = None,
    on_start: Annotated[
        bool, typer.Option("--on-start", help="Only what fits the GPU; log lines instead of bars.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite files that xalora-miner did not download.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every variant, whatever the GPUs are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be downloaded, and why.")] = False,
    jobs: Jobs = 4,
    config: ConfigFile = None,
) -> None:
    """Download missing files of the variants for this machine's GPUs, and the LoRAs of [loras].

    Resumes interrupted downloads.

    With --on-start, exit code 1 means that a file failed; the miner can start with the others.
    """
    from miner.models.catalogue import files_of
    from miner.models.lora_set import take_loras
    from miner.models.loras import MAX_BYTES

    with _local_models(config) as local:
        chosen = local.workflows(workflows)
        wanted = local.fitting(chosen) if on_start else local.wanted(chosen)
        workflows_here = chosen if every else tuple(one.workflow for one in wanted)
        files = (*files_of(workflows_here), *(local.named_loras() if take_loras(workflows_here) else ()))
        if dry_run:
            _show_pull(local, files, wanted)
            return
        report = _pull(local, files, jobs=jobs, replace=replace, plain=on_start, max_bytes=MAX_BYTES)
        local.note_loras(report)
        plain_console().print(f"{len(report.done)} of {len(files)} files are in {local.store.root}")
    sys.exit(FAILED if report.failed else 0)


@models_app.command("pull-lora")
def pull_lora(
    source: Annotated[str, typer.Argument(help="https://…, hf://org/repo/file.safetensors, or civitai:<version>.")],
    name: Annotated[str, typer.Option(help="File name; default: the one in the URL.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a LoRA of that name.")] = False,
    config: ConfigFile = None,
) -> None:
    """Download a LoRA, safetensors only. A running miner offers it without a restart."""
    from miner.models.loras import MAX_BYTES, lora

    with _local_models(config) as local:
        file = local.with_token(lora(source, name=name))
        (status,) = local.statuses([file])
        if status.state == "present" and not replace:
            plain_console().print(f"{status.path} exists; --replace downloads it again, --name keeps both")
            return
        report = _pull(local, [file], jobs=1, replace=replace, max_bytes=MAX_BYTES)
        for status in report.done.values():
            plain_console().print(f"{status.path}; tasks name it {file.name.removesuffix('.safetensors')}")
        local.note_loras(report)
    sys.exit(FAILED if report.failed else 0)


@models_app.command()
def verify(
    workflows: Names = None,
    again: Annotated[bool, typer.Option("--again", help="Read every file, even if its hash is known.")] = False,
    config: ConfigFile = None,
) -> None:
    """Check downloaded files by their hashes."""
    from miner.models.verify import verdict

    console = plain_console()
    with _local_models(config) as local:
        files = _present_or_wanted(local, workflows)
        with _resumable(), _progress([], plain=False) as progress:
            report = local.verify(files, progress=progress, again=again)
        for status in report.done.values():
            console.print(f"{status.file.relative_path}: {verdict(status, local.hash_db)}")
    for error in report.failed.values():
        print_error(error)
    sys.exit(FAILED if report.failed or any(status.state != "present" for status in report.done.values()) else 0)


@models_app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    config: ConfigFile = None,
) -> None:
    """Delete downloads of workflows that are not enabled, of variants for other GPUs, and LoRAs that [loras] no longer
    names. Asks first."""
    from miner.cli.tables import unused_table
    from miner.models.prune import remove
    from miner.telemetry.sizes import gb

    console = plain_console()
    with _local_models(config) as local:
        unused_files = local.unused_files()
        if not unused_files:
            console.print(
                "nothing to delete: every download is wanted by an enabled workflow, or a LoRA that you named"
            )
            return
        console.print(unused_table(unused_files, local.store.root))
        what = f"{len(unused_files)} files, {gb(sum(one.size for one in unused_files))}"
        if not yes:
            typer.confirm(f"Delete {what}?", abort=True)
        for one in unused_files:
            remove(one, local.hash_db)
            local.forget_lora(one.path)
        console.print(f"deleted {what}")


def _local_models(config: Path | None) -> LocalModels:
    """Raises ConfigError and MachineFault."""
    from miner.models.local import LocalModels
    from miner.telemetry import log

    loaded = load(config)
    print_warnings(loaded)
    settings = loaded.settings
    log.setup(level=settings.log.level, style=settings.log.format)
    return LocalModels(settings, library_of(settings))


def _variants(local: LocalModels, names: Sequence[str] | None) -> tuple[Workflow, ...]:
    return tuple(one.workflow for one in local.wanted(local.workflows(names)))


def _present_or_wanted(local: LocalModels, names: Sequence[str] | None) -> list[ModelFile]:
    """The files that this machine's GPUs want, and those of other variants that are here."""
    from miner.models.catalogue import files_of

    wanted = files_of(_variants(local, names))
    others = [file for file in files_of(local.workflows(names)) if file not in wanted]
    return [*wanted, *(status.file for status in local.statuses(others) if status.state not in ("missing", "partial"))]


def _show_pull(local: LocalModels, files: Sequence[ModelFile], wanted: Sequence[Wanted]) -> None:
    from miner.cli.tables import files_table, print_summary, wanted_table

    console, statuses = plain_console(), local.statuses(files)
    if any(one.workflow.variant for one in wanted) and local.without_gpu:
        console.print(f"{local.without_gpu}\nThese are the variants that need least; --all shows every one.\n")
    console.print(wanted_table(wanted, local.statuses))
    console.print()
    console.print(files_table(statuses))
    print_summary(console, statuses, local.store.root)


def _pull(
    local: LocalModels,
    files: Sequence[ModelFile],
    *,
    jobs: int,
    replace: bool,
    plain: bool = False,
    max_bytes: int | None = None,
) -> Report:
    """Check the free space, download what is missing, and print what failed."""

    statuses = local.statuses(files)
    local.require_room(statuses)
    with (
        _resumable(),
        _progress([status for status in statuses if status.state != "present"], plain=plain) as progress,
    ):
        report = local.pull(files, progress=progress, jobs=jobs, replace=replace, max_bytes=max_bytes)
    for error in report.failed.values():
        print_error(error)
    return report


def _progress(statuses: Sequence[FileStatus], *, plain: bool) -> Bars | Lines:
    from miner.cli.progress import Bars, Lines

    console = plain_console()
    return Lines() if plain or not console.is_terminal else Bars(console, statuses)


@contextmanager
def _resumable() -> Iterator[None]:
    """On Ctrl-C, say how to resume and exit."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: downloaded bytes are kept; run the same command to resume", err=True)
        sys.exit(INTERRUPTED)
