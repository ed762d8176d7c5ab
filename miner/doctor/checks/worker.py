"""The miner that runs on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from miner.doctor.facts import Facts
from miner.doctor.report import note, warning
from miner.telemetry.health import Mark


def worker(facts: Facts) -> Iterator[Mark]:
    """Its own health marks, from its dashboard."""
    found = facts.worker()
    if found.state:
        whose = "" if found.has_state_lock else ", with another state folder than this configuration"
        yield note("Worker", f"{found.state}, {found.in_hand} tasks in hand: {found.url}{whose}")
        yield from (replace(mark, name=f"Worker: {mark.name}") for mark in found.health)
    elif found.has_state_lock:
        says = f"running, but its dashboard does not answer: {found.error}"
        yield warning("Worker", says, "run xalora-miner status, or restart the miner")
    else:
        yield note("Worker", "not running", "xalora-miner run starts it")
