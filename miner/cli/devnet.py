"""The command `xalora-miner devnet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from miner.task.errors import ConfigError


def devnet(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8300,
    leases: Annotated[int, typer.Option(min=1, help="Tasks that one miner id may hold at a time.")] = 1,
    target: Annotated[
        Literal["presigned", "s3"],
        typer.Option(help="What tasks bring for their result: a URL, or temporary S3 credentials from AWS_…."),
    ] = "presigned",
    access_key_id: Annotated[str, typer.Option(envvar="AWS_ACCESS_KEY_ID", hidden=True)] = "",
    secret_access_key: Annotated[str, typer.Option(envvar="AWS_SECRET_ACCESS_KEY", hidden=True)] = "",
    session_token: Annotated[str, typer.Option(envvar="AWS_SESSION_TOKEN", hidden=True)] = "",
    state: Annotated[Path | None, typer.Option(help="Keep tasks and objects here; default: in memory.")] = None,
) -> None:
    """Run a local sequencer and object store to try the miner with. Not for production.

    With --target s3, tasks bring AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of the environment
    instead of a URL, and the miner's [upload] says where they are good.
    """
    from miner.devnet.errors import DevnetError
    from miner.devnet.options import DevnetOptions
    from miner.devnet.serve import run_devnet

    credential = {
        "access_key_id": access_key_id,
        "secret_access_key": secret_access_key,
        "session_token": session_token,
    }
    if target == "s3" and (missing := [f"AWS_{name.upper()}" for name, value in credential.items() if not value]):
        raise ConfigError(
            f"devnet: --target s3 needs {' and '.join(missing)}",
            hint="set them to temporary credentials: `aws sts get-session-token` makes some",
        )
    try:
        run_devnet(
            DevnetOptions(
                port=port,
                leases=leases,
                state=state,
                target=target,
                credential=credential if target == "s3" else {},
            ),
            on_ready=lambda url: typer.echo(f"devnet is ready: XALORA_WORKFLOW_URL={url}"),
        )
    except DevnetError as error:
        raise ConfigError(error.message, hint=error.hint) from error
