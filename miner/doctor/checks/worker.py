"""The miner that runs on this machine, in its own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from miner.doctor.facts import Facts
from miner.doctor.report import note, warning
from miner.telemetry.health import Mark


def worker(facts: Facts) -> Iterator[Mark]:
    """The marks of its page Health; a running miner is asked, and its lock, ports and ComfyUI are left to it."""
    found = facts.worker()
    if found.state:
        whose = "" if found.has_state_lock else ", with another state folder than this configuration's"
        yield note("Worker", f"one runs, {found.state}, {found.in_hand} tasks in hand: {found.url}{whose}")
        yield from (replace(mark, name=f"Worker: {mark.name}") for mark in found.health)
    elif found.has_state_lock:
        says = f"one has the state folder, and cannot be asked: {found.error}"
        yield warning("Worker", says, "xalora-miner status says more; or restart it")
    else:
        yield note("Worker", "none runs now", "xalora-miner run starts one")
