"""The command `xalora-miner workflows`."""

from __future__ import annotations

from miner.cli.common import ConfigFile, library_of, load


def list_workflows(config: ConfigFile = None) -> None:
    """List the workflows: ids, output and requirements."""
    from rich.console import Console
    from rich.table import Table

    settings = load(config).settings
    library = library_of(settings)
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
