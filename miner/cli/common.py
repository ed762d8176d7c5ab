"""What the commands share: options, how settings are loaded, and how an error is printed.

Everything heavy is imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from miner.config import Loaded, Settings
    from miner.task.errors import MinerError
    from miner.workflows import Library

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Path to config.toml; default: the usual places.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def load(config: Path | None, flags: Mapping[str, str | None] | None = None) -> Loaded:
    """Settings and where each came from. Raises ConfigError."""
    from miner.config import load_settings

    return load_settings(config_file=config, flags=flags or {})


def library_of(settings: Settings) -> Library:
    """The bundled workflows and the operator's own. Raises ConfigError."""
    from miner.config.bundled import WORKFLOWS
    from miner.workflows import load_library
    from miner.workflows.variants import check_pins

    library = load_library([WORKFLOWS, *settings.workflows.folders], ids=settings.workflows.ids)
    check_pins(library, settings.workflows.variants)
    return library


def print_warnings(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)


def hide_secrets(settings: Settings) -> None:
    """Redact the API key and the dashboard's token from every log line and report."""
    from miner.telemetry import log

    secrets = (settings.sequencer.api_key, settings.status.token)
    log.hide(*(secret.get_secret_value() for secret in secrets if secret))


def print_error(error: MinerError) -> None:
    """The message and the operator's next step, on standard error."""
    typer.echo(f"error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"next:  {error.hint}", err=True)


def plain_console() -> Console:
    """A console without markup, since names and licences hold brackets ("FLUX.1 [dev]"). Pipes do not wrap."""
    from rich.console import Console

    plain = Console(markup=False, highlight=False)
    return plain if plain.is_terminal else Console(markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """A server's or task's text on one line, without control characters or escape sequences."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
