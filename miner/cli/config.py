"""The command `xalora-miner config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from miner.cli.common import ConfigFile, load, print_warnings

if TYPE_CHECKING:
    from miner.config import Settings


def show_config(config: ConfigFile = None) -> None:
    """Print every setting and where it came from. Secrets are masked."""
    from rich.console import Console
    from rich.table import Table

    from miner.config import render_settings

    loaded = load(config)
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for row in render_settings(loaded):
        table.add_row(row.key, row.value, row.origin)
    out = Console(soft_wrap=True)
    out.print(table)
    for line in _tuning_lines(loaded.settings):
        out.print(f"\n{line}", markup=False, highlight=False)
    print_warnings(loaded)


def _tuning_lines(settings: Settings) -> Iterator[str]:
    """For each kind of card whose ComfyUI the miner starts: what `bench --tune` chose, and whether it counts."""
    from miner.machine.tuning import tuned_for
    from miner.worker.layout import gpus_of

    if settings.comfyui.home is None:
        return
    tuned = [tuned_for(settings, gpu) for gpu in gpus_of(settings)]
    for one in {each.choice.card if each.choice else "": each for each in tuned}.values():
        where = f" on {one.choice.card}" if one.choice and one.choice.card else ""
        yield f"tuning{where}: {one.says()}" + (f"; next: {one.cure}" if one.cure else "")
