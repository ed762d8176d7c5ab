"""The command `xalora-miner devnet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miner.task.errors import ConfigError


def devnet(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8300,
    leases: Annotated[int, typer.Option(min=1, help="Tasks that one miner id may hold at a time.")] = 1,
    state: Annotated[Path | None, typer.Option(help="Keep tasks and objects here; default: in memory.")] = None,
) -> None:
    """Run a local sequencer and object store to try the miner with. Not for production."""
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
