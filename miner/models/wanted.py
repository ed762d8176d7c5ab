"""Which variants of workflows this machine's cards will render, and so which files it wants. Pure.

Promises: the first of each card's ranking, as the worker chooses; two cards may want different ones. A card that is too
small for every variant wants none while another card can run the workflow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from miner.telemetry.sizes import GIGABYTE
from miner.workflows import Card, Workflow, ranking
from miner.workflows.variants import lacking_kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A workflow in one variant, and the cards that will render it."""

    workflow: Workflow
    cards: tuple[Card, ...]
    why: str  # this variant: the end of a sentence
    fits: bool  # on these cards


def wanted(
    workflows: Iterable[Workflow],
    cards: Sequence[Card],
    *,
    pinned: Mapping[str, Sequence[str]],
    on_cpu: Collection[str] = (),
) -> tuple[Wanted, ...]:
    """For each workflow the variants for `cards`. Raises ConfigError for an unknown variant in `pinned`.

    Without cards, nothing fits but what needs none, and what is in `on_cpu`; the least demanding variants are wanted.
    """
    found: list[Wanted] = []
    for workflow in workflows:
        pins = pinned.get(workflow.name, ())
        all_of_it = [_on(card, workflow, pins, on_cpu) for card in cards or (Card(),)]
        fitting = [one for one in all_of_it if one.fits]
        found += _joined(fitting or all_of_it[:1])
    return tuple(found)


def _on(card: Card, workflow: Workflow, pins: Sequence[str], on_cpu: Collection[str]) -> Wanted:
    ranked = ranking(workflow, card, pinned=pins)
    one, memory = ranked.variants[0], card.memory or 0
    needs = one.manifest.needs
    enough = needs.vram_gb * GIGABYTE <= memory or (not memory and workflow.name in on_cpu)
    return Wanted(workflow=one, cards=(card,), why=ranked.why, fits=enough and not lacking_kernels(needs, card))


def _joined(found: Iterable[Wanted]) -> list[Wanted]:
    """One for each variant, with all its cards."""
    joined: dict[str, Wanted] = {}
    for one in found:
        before = joined.get(one.workflow.variant)
        cards = (*(before.cards if before else ()), *one.cards)
        joined[one.workflow.variant] = Wanted(
            workflow=one.workflow, cards=cards, why=(before or one).why, fits=one.fits
        )
    return list(joined.values())
