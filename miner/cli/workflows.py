"""The command `xalora-miner workflows`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miner.cli.common import ConfigFile, library_of, load, plain_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from miner.config import Settings
    from miner.models.wanted import Wanted
    from miner.workflows import Card, Library, Workflow


def list_workflows(config: ConfigFile = None) -> None:
    """List the workflows: ids, output and requirements; and which variants of them this machine's GPUs render."""
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
    _print_variants(settings, library)


def _print_variants(settings: Settings, library: Library) -> None:
    from miner.cli.tables import card_name
    from miner.machine.cards import cards_here
    from miner.models.wanted import wanted

    cards, problem = cards_here(settings)
    console = plain_console()
    console.print(f"\nGPUs: {', '.join(map(card_name, cards)) or problem}")
    for workflow in library.workflows:
        if workflow.manifest.variants:
            chosen = wanted([workflow], cards, pinned=settings.workflows.variants, on_cpu=settings.workflows.on_cpu)
            console.print(f"\n{workflow.name}")
            for line in variant_lines(workflow, chosen, cards):
                console.print(f"  {line}")


def variant_lines(workflow: Workflow, chosen: tuple[Wanted, ...], cards: tuple[Card, ...]) -> Iterator[str]:
    """A line for each variant, best first: for which of `cards` it is and why, and what others lack. Pure."""
    from miner.cli.tables import card_name
    from miner.workflows import ranking

    wanted_as = {one.workflow.variant: one for one in chosen}
    for variant in workflow.manifest.variants:
        yield f"{variant.name}: {variant.description}"
        if one := wanted_as.get(variant.name):
            names = ", ".join(dict.fromkeys(map(card_name, one.cards)))
            yield f"  → {names}: {one.why}"
        for card in dict.fromkeys(cards):
            if lacks := ranking(workflow, card).refused.get(variant.name):
                yield f"  not for {card_name(card)}: {'; '.join(lacks)}"
