"""The commands `status`, `pause`, `resume` and `drain`: they ask a running worker over HTTP, as the dashboard does.

Standard output holds the status alone. Exit codes: 0; 1 where no worker answers; 78 for the configuration.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from miner.cli.common import AsJson, ConfigFile, load, printable
from miner.task.errors import Retryable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from miner.dashboard.client import StatusClient

EVERY = 0.5  # seconds between two requests
BAR = 16  # characters

Url = Annotated[str, typer.Option(help="The worker's dashboard; default: the one in the configuration.")]

COLORS = {"good": "green", "note": "cyan", "warning": "yellow", "bad": "red"}
SIGNS = {"good": "✓", "note": "·", "warning": "!", "bad": "✗"}


def status(config: ConfigFile = None, url: Url = "", as_json: AsJson = False) -> None:
    """Show what the worker is doing. Live in a terminal, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    client = _client(config, url)
    if as_json:
        typer.echo(json.dumps(client.everything(), indent=2))
        return
    console = Console()
    first = render(client.everything(), at=time.time())
    if not console.is_terminal:
        console.print(first)
        return
    with suppress(KeyboardInterrupt), Live(first, console=console, auto_refresh=False) as live:
        for picture in _pictures(client):
            live.update(picture, refresh=True)


def pause(config: ConfigFile = None, url: Url = "") -> None:
    """Take no new tasks; current ones are finished. Lasts until `resume` or a restart."""
    _press("pause", config, url)


def resume(config: ConfigFile = None, url: Url = "") -> None:
    """Take tasks again after `pause`."""
    _press("resume", config, url)


def drain(config: ConfigFile = None, url: Url = "") -> None:
    """Finish the current tasks, then stop the worker. SIGTERM does the same."""
    _press("drain", config, url)


def _press(button: str, config: Path | None, url: str) -> None:
    now = _client(config, url).press(button)
    typer.echo(f"{now['state']}: {now['says']}")


def _client(config: Path | None, url: str) -> StatusClient:
    from miner.dashboard.bind import url_of
    from miner.dashboard.client import StatusClient

    settings = load(config).settings.status
    token = settings.token.get_secret_value() if settings.token else ""
    return StatusClient(url=url.rstrip("/") or url_of(settings.host, settings.port), token=token)


def _pictures(client: StatusClient) -> Iterator[RenderableType]:
    """Forever; waits for a worker that does not answer."""
    from rich.text import Text

    never = threading.Event()
    while not never.wait(EVERY):
        try:
            yield render(client.everything(), at=time.time())
        except Retryable as error:
            yield Text(f"{error.message}; trying again", style="yellow")


# ---- the picture ------------------------------------------------------------------------------------------------


def render(shown: Mapping[str, Any], *, at: float) -> RenderableType:
    """The status for a terminal; `at` is the time in Unix seconds."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    now, day, health = shown["now"], shown["past"]["day"], shown["health"]
    head = Text.assemble(
        (now["says"], "bold"), "\n", (f"{now['miner_id']} · up {_span(at - now['started_at'])}", "dim")
    )
    tasks = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("lane", "task", "workflow", "stage", "", "for", "left"):
        tasks.add_column(column, no_wrap=column != "workflow", header_style="dim")
    for lane in now["lanes"]:
        for task in lane["tasks"]:
            tasks.add_row(lane["name"], *_row(task, at))
    in_hand = tasks if tasks.row_count else Text("no tasks", style="dim")
    sums = Text(
        f"last 24 hours: {day['done']} done, {day['failed']} failed, {day['refused']} refused, {day['lost']} lost;"
        f" {_span(day['render_seconds'])} of rendering"
    )
    wrong = [_mark(mark) for mark in health if mark["level"] in ("warning", "bad")]
    return Padding(Group(head, "", in_hand, "", sums, *wrong), (1, 0))


def _row(task: Mapping[str, Any], at: float) -> tuple[RenderableType, ...]:
    from rich.text import Text

    share, usual = task["share"], task["usual_seconds"]
    rendering = task["stage"] == "render"
    left = _span(max(usual - (at - task["since"]), 0.0)) if rendering and usual else ""
    bar = f"{'━' * round(BAR * share):─<{BAR}} {share:4.0%}" if share is not None else ""
    task_id, workflow = Text(printable(task["task_id"][:8])), Text(printable(task["workflow"]))  # Text: no markup
    return task_id, workflow, task["stage"], bar, _span(at - task["since"]), left


def _mark(mark: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text

    cure = f"\n  next: {mark['cure']}" if mark["cure"] else ""
    sign = (f"{SIGNS[mark['level']]} {mark['name']}: ", COLORS[mark["level"]])
    return Text.assemble(sign, mark["says"], (cure, "dim"))


def _span(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
