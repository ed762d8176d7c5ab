"""Which variant of a workflow a ComfyUI renders: the first of the card's ranking that passes the preflight. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from miner.comfy.preflight import Machine, Reason, check_workflow
from miner.workflows import Ranking, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The variant of a workflow that a ComfyUI renders. Why it cannot, if it cannot render any."""

    workflow: Workflow
    reasons: tuple[Reason, ...]
    ranking: Ranking
    instead_of: tuple[Reason, ...] = ()  # why not the first of the ranking, where another one is ready

    @property
    def why(self) -> str:
        """Why this variant: the end of a sentence."""
        if not self.instead_of:
            return self.ranking.why
        return f"ready, while {self.ranking.variants[0].variant} is not: {self.instead_of[0].text}"


def choose_variant(ranked: Ranking, machine: Machine) -> Choice:
    """The first variant of a ranking that `machine` can run, else the first of all, with what it lacks. Pure."""
    judged = [(one, check_workflow(one, machine)) for one in ranked.variants]
    first, lacks = judged[0]
    one = next((one for one, reasons in judged if not reasons), None)
    if one is None or one is first:
        return Choice(workflow=first, reasons=lacks, ranking=ranked)
    return Choice(workflow=one, reasons=(), ranking=ranked, instead_of=lacks)
