"""`xalora-miner`: the command line.

It parses, prints and sets exit codes; the work is elsewhere, and is imported only by the command that needs it, so that
`--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from miner import __version__
from miner.cli.doctor import add_to as add_doctor_to
from miner.cli.models import models_app
from miner.cli.status import add_to
from miner.cli.submit import submit_app
from miner.task.errors import ConfigError, MinerError

if TYPE_CHECKING:
    from miner.config import Loaded, Settings
    from miner.task.journal import Journal
    from miner.workflows import Library

app = typer.Typer(
    help="Turns a GPU box into a worker of the Xalora network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain: Rich renders the help in 0.2 s, as long as all the rest takes
)
app.add_typer(submit_app, name="submit")
app.add_typer(models_app, name="models")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="config.toml to read instead of the usual places.")]


@app.command()
def run(
    config: ConfigFile = None,
    miner_id: Annotated[str | None, typer.Option(help="Your EVM address, perhaps with a -suffix.")] = None,
    workflow_url: Annotated[str | None, typer.Option(help="The sequencer's base URL.")] = None,
    workflows: Annotated[str | None, typer.Option(help="Names of the enabled workflows, comma-separated.")] = None,
    comfyui_url: Annotated[str | None, typer.Option(help="A ComfyUI that runs already.")] = None,
    comfyui_home: Annotated[str | None, typer.Option(help="Folder of a ComfyUI to start.")] = None,
    state_dir: Annotated[str | None, typer.Option(help="Where the journal is kept.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Work: ask for tasks, render them, answer them. Ends on SIGTERM or Ctrl-C, after what is in hand."""
    from miner.dashboard import Dashboard, require_token
    from miner.telemetry import log
    from miner.worker.supervisor import Worker
    from miner.worker.systemd import notifier

    _keep_memory_small()
    flags = {
        "miner.id": miner_id,
        "sequencer.url": workflow_url,
        "workflows.enabled": workflows,
        "comfyui.url": comfyui_url,
        "comfyui.home": comfyui_home,
        "state.dir": state_dir,
        "log.level": log_level,
    }

    def read() -> tuple[Settings, Library]:
        loaded = _load(config, flags)
        require_token(loaded.settings.status)
        _warn(loaded)
        log.setup(
            level=loaded.settings.log.level,
            style=loaded.settings.log.format,
            journal=os.environ.get("JOURNAL_STREAM", ""),
        )
        secrets = (loaded.settings.sequencer.api_key, loaded.settings.status.token)
        log.hide(*(secret.get_secret_value() for secret in secrets if secret))
        return loaded.settings, _library(loaded.settings)

    def serve(worker: Worker, settings: Settings, journal: Journal) -> Dashboard:
        return Dashboard(settings.status, controls=worker, journal=journal, state=settings.state.dir)

    worker = Worker(*read(), read_again=read, serve=serve, notifier=notifier(os.environ))
    worker.take_signals()
    sys.exit(worker.run())


def _keep_memory_small() -> None:
    """Give blocks of 256 KB and more back to the system when they are freed: mallopt(3), M_MMAP_THRESHOLD.

    Left alone, glibc raises that limit up to 32 MB, and keeps what the largest picture took.
    """
    import ctypes

    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(-3, 1 << 18)


add_to(app)
add_doctor_to(app)


@app.command("config")
def show_config(config: ConfigFile = None) -> None:
    """Print every setting in force, and its origin. Secrets are masked."""
    from rich.console import Console
    from rich.table import Table

    from miner.config import render_settings

    loaded = _load(config, {})
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for row in render_settings(loaded):
        table.add_row(row.key, row.value, row.origin)
    Console(soft_wrap=True).print(table)
    _warn(loaded)


@app.command("workflows")
def list_workflows(config: ConfigFile = None) -> None:
    """List the workflows: what each answers to, makes and needs."""
    from rich.console import Console
    from rich.table import Table

    settings = _load(config, {}).settings
    library = _library(settings)
    table = Table(
        "name", "enabled", "ids", "task type", "output", "video memory", "description", box=None, pad_edge=False
    )
    for workflow in library.workflows:
        manifest = workflow.manifest
        table.add_row(
            workflow.name,
            "yes" if workflow.name in settings.workflows.enabled else "no",
            " ".join(one for one, names in library.ids.items() if workflow.name in names),
            manifest.task_type,
            manifest.output.format,
            f"{manifest.needs.vram_gb:g} GB",
            manifest.description,
        )
    Console().print(table)


@app.command()
def devnet(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8300,
    leases: Annotated[int, typer.Option(min=1, help="Tasks that one miner id may hold at a time.")] = 1,
    state: Annotated[Path | None, typer.Option(help="Keep tasks and objects here; default: nowhere.")] = None,
) -> None:
    """Run a sequencer and an object store, to try the miner with. Not for production."""
    from miner.devnet.errors import DevnetError
    from miner.devnet.options import DevnetOptions
    from miner.devnet.serve import run_devnet

    try:
        run_devnet(
            DevnetOptions(port=port, leases=leases, state=state),
            on_ready=lambda url: typer.echo(f"devnet is ready: XALORA_WORKFLOW_URL={url}"),
        )
    except DevnetError as error:
        raise ConfigError(error.message, hint=error.hint) from error


@app.command()
def demo(
    image: Annotated[list[Path] | None, typer.Option(help="Pictures of yours instead of the samples.")] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo-output"),
    comfyui: Annotated[str, typer.Option(help="URL of a real ComfyUI; default: the embedded engine.")] = "",
    keep: Annotated[bool, typer.Option(help="Leave everything running at the end, to play with.")] = False,
) -> None:
    """Send pictures the whole way, all on this machine. Starts a devnet, an engine and the worker for it."""
    from miner.cli.demo import run_demo

    sys.exit(run_demo(images=image or [], output=output, comfyui=comfyui, keep=keep))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"xalora-miner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def _load(config: Path | None, flags: dict[str, str | None]) -> Loaded:
    from miner.config import load_settings

    return load_settings(config_file=config, flags=flags)


def _library(settings: Settings) -> Library:
    from miner.config.bundled import WORKFLOWS
    from miner.workflows import load_library

    return load_library([WORKFLOWS, *settings.workflows.folders], ids=settings.workflows.ids)


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _fail(error: MinerError) -> NoReturn:
    """One clear line, the operator's next step, and the exit code that says whose fault it is."""
    typer.echo(f"error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"next:  {error.hint}", err=True)
    sys.exit(error.exit_code if isinstance(error, ConfigError) else 1)


def main() -> None:
    """The console script."""
    try:
        app()
    except MinerError as error:
        _fail(error)
