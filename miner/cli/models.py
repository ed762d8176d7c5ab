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
    from miner.models.catalogue import Look, ModelFile
    from miner.models.local import Site
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
    with _site(config) as site:
        looks = site.looks(files_of(site.library.workflows if every else site.workflows(workflows)))
        console.print(files_table(looks))
        print_summary(console, looks, site.store.root)


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

    with _site(config) as site:
        chosen = site.workflows(workflows)
        files = files_of(site.fitting(chosen) if on_start else chosen)
        report = _pull(site, files, jobs=jobs, replace=replace, plain=on_start)
        _console().print(f"{len(report.done)} of {len(files)} files are in {site.store.root}")
    sys.exit(FAILED if report.failed else 0)


@models_app.command("pull-lora")
def pull_lora(
    source: Annotated[str, typer.Argument(help="https://…, or hf://org/repo/file.safetensors.")],
    name: Annotated[str, typer.Option(help="The name that it gets; default: the one in its address.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Also over another LoRA of that name.")] = False,
    config: ConfigFile = None,
) -> None:
    """Download a LoRA, safetensors only. A miner that runs offers it without a restart."""
    from miner.models.loras import LARGEST, lora

    with _site(config) as site:
        file = lora(source, name=name)
        (look,) = site.looks([file])
        if look.state == "there" and not replace:
            _console().print(f"{look.path} is there already; --replace fetches it anew, --name keeps both")
            return
        report = _pull(site, [file], jobs=1, replace=replace, most=LARGEST)
        for look in report.done.values():
            _console().print(f"{look.path}; a task names it {file.name.removesuffix('.safetensors')}")
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
    with _site(config) as site:
        files = files_of(site.workflows(workflows))
        with _goes_on_later(), _watch([], plain=False) as watch:
            report = site.verify(files, watch=watch, again=again)
        for look in report.done.values():
            console.print(f"{look.file.place}: {verdict(look, site.records)}")
    print_failures(report.failed)
    sys.exit(FAILED if report.failed or any(look.state != "there" for look in report.done.values()) else 0)


@models_app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Delete what was downloaded for workflows that are not enabled. Asks first."""
    from miner.cli.tables import spares_table
    from miner.models.catalogue import gb
    from miner.models.prune import remove

    console = _console()
    with _site(config) as site:
        spares = site.spares()
        if not spares:
            console.print("nothing to delete: all that was downloaded is for an enabled workflow, or a LoRA")
            return
        console.print(spares_table(spares, site.store.root))
        what = f"{len(spares)} files, {gb(sum(one.size for one in spares))}"
        if not yes:
            typer.confirm(f"Delete {what}?", abort=True)
        for one in spares:
            remove(one, site.records)
        console.print(f"deleted {what}")


def _console() -> Console:
    from rich.console import Console

    # names and licences are no markup ("FLUX.1 [dev]"), and a pipe has no width to wrap at
    return Console(markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def _site(config: Path | None) -> Site:
    """Raises ConfigError and MachineFault."""
    from miner.config import load_settings
    from miner.config.bundled import WORKFLOWS
    from miner.models.local import Site
    from miner.telemetry import log
    from miner.workflows import load_library

    loaded = load_settings(config_file=config, flags={})
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    log.setup(level=settings.log.level, style=settings.log.format)
    return Site(settings, load_library([WORKFLOWS, *settings.workflows.folders], ids=settings.workflows.ids))


def _pull(
    site: Site,
    files: Sequence[ModelFile],
    *,
    jobs: int,
    replace: bool,
    plain: bool = False,
    most: int | None = None,
) -> Report:
    """See what is lacking, that there is room, and bring it; says what failed."""
    from miner.cli.tables import print_failures

    looks = site.looks(files)
    site.require_room(looks)
    with _goes_on_later(), _watch([look for look in looks if look.state != "there"], plain=plain) as watch:
        report = site.pull(files, watch=watch, jobs=jobs, replace=replace, most=most)
    print_failures(report.failed)
    return report


def _watch(looks: Sequence[Look], *, plain: bool) -> Bars | Lines:
    from miner.cli.progress import Bars, Lines

    console = _console()
    return Lines() if plain or not console.is_terminal else Bars(console, looks)


@contextmanager
def _goes_on_later() -> Iterator[None]:
    """Ctrl-C is no error: it says what is next, and ends the program."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: what was fetched is kept, and the same command goes on there", err=True)
        sys.exit(INTERRUPTED)
