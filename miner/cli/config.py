"""The command `xalora-miner config`."""

from __future__ import annotations

from miner.cli.common import ConfigFile, load, print_warnings


def show_config(config: ConfigFile = None) -> None:
    """Print every setting and where it came from. Secrets are masked."""
    from rich.console import Console
    from rich.table import Table

    from miner.config import render_settings

    loaded = load(config)
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for row in render_settings(loaded):
        table.add_row(row.key, row.value, row.origin)
    Console(soft_wrap=True).print(table)
    print_warnings(loaded)
