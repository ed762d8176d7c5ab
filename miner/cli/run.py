"""The command `xalora-miner run`: the worker, its dashboard, and what a reload reads again."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import ConfigFile, hide_secrets, library_of, load, print_warnings

if TYPE_CHECKING:
    from miner.config import Settings
    from miner.task.journal import Journal
    from miner.workflows import Library


def run(
    config: ConfigFile = None,
    miner_id: Annotated[str | None, typer.Option(help="Your EVM address, with an optional -suffix.")] = None,
    workflow_url: Annotated[str | None, typer.Option(help="The sequencer's base URL.")] = None,
    workflows: Annotated[str | None, typer.Option(help="Workflows to enable, comma-separated.")] = None,
    comfyui_url: Annotated[str | None, typer.Option(help="URL of a running ComfyUI.")] = None,
    comfyui_home: Annotated[str | None, typer.Option(help="Folder of a ComfyUI to start.")] = None,
    state_dir: Annotated[str | None, typer.Option(help="Folder of the journal.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Lease tasks, render them and deliver the results. SIGTERM or Ctrl-C ends it after the current tasks."""
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
        loaded = load(config, flags)
        settings = loaded.settings
        require_token(settings.status)
        print_warnings(loaded)
        hide_secrets(settings)
        return settings, library_of(settings)

    def adopt(settings: Settings) -> None:
        log.setup(level=settings.log.level, style=settings.log.format, journal=os.environ.get("JOURNAL_STREAM", ""))

    def serve(worker: Worker, settings: Settings, journal: Journal) -> Dashboard:
        return Dashboard(settings.status, controls=worker, journal=journal, state=settings.state.dir)

    settings, library = read()
    adopt(settings)
    worker = Worker(settings, library, read_again=read, adopt=adopt, serve=serve, notifier=notifier(os.environ))
    worker.take_signals()
    sys.exit(worker.run())


def _keep_memory_small() -> None:
    """Return freed blocks of 256 KB and more to the system: mallopt(3), M_MMAP_THRESHOLD.

    By default glibc raises this limit up to 32 MB and keeps the memory of the largest picture.
    """
    import ctypes

    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(-3, 1 << 18)
