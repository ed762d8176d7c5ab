"""The process that decodes pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note
from miner.media.decoders import Decoders
from miner.task.errors import MachineFault
from miner.telemetry.health import Mark

NAME = "Picture decoder"


def decoder(_facts: Facts) -> Iterator[Mark]:
    """Start one, and decode a picture of our own."""
    with closing(Decoders()) as decoders:
        began = time.monotonic()
        try:
            decoders.try_own()
        except MachineFault as fault:
            yield bad(NAME, fault.message, fault.hint)
            return
        says = f"in a process of its own, ready in {time.monotonic() - began:.1f} s, with limits on memory and CPU"
        if decoders.filtered:
            yield good(NAME, f"{says}; its system calls are filtered (seccomp)")
        else:
            yield note(NAME, f"{says}; this kernel does not filter its system calls")
