"""`xalora-miner`: registers the commands, and turns errors into exit codes.

A command imports its work when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from miner import __version__
from miner.cli.bench import bench
from miner.cli.common import print_error
from miner.cli.config import show_config
from miner.cli.demo import demo
from miner.cli.devnet import devnet
from miner.cli.doctor import doctor
from miner.cli.models import models_app
from miner.cli.run import run
from miner.cli.status import drain, pause, resume, status
from miner.cli.submit import submit_app
from miner.cli.workflows import list_workflows
from miner.task.errors import ConfigError, MinerError

app = typer.Typer(
    help="Turns a GPU machine into a worker of the Xalora network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain: Rich takes 0.2 s to render the help
)
for command in (run, status, pause, resume, drain, doctor, bench):
    app.command()(command)
app.command("config")(show_config)
app.command("workflows")(list_workflows)
app.command()(devnet)
app.command()(demo)
app.add_typer(submit_app, name="submit")
app.add_typer(models_app, name="models")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"xalora-miner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main() -> None:
    """The console script. Exit codes of an error: 78 for the configuration, else 1."""
    try:
        app()
    except MinerError as error:
        print_error(error)
        sys.exit(error.exit_code if isinstance(error, ConfigError) else 1)
