"""The whole table in this one process, and then a good task: run with `python -m`, prints its cost.

It prints JSON: the number of inputs, those that did not get what they should, the growth of memory in MB, and the
threads and file descriptors that are left.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.hostile import answers, pictures
from tests.system.hostile.cases import ANY, Bench, Case, outcome
from tests.system.hostile.table import TABLE


def memory() -> float:
    """Resident set in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return sorted(found)


def settled(read: Callable[[], list[str]], wanted: list[str]) -> list[str]:
    """What is more than wanted, once it is no more or five seconds are over."""
    end = time.monotonic() + 5
    while (extra := [item for item in read() if item not in wanted]) and time.monotonic() < end:
        threading.Event().wait(0.01)
    return extra


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def as_it_should(case: Case, message: str | None) -> bool:
    if case.says is None or case.says == ANY:
        return message is None or case.says == ANY
    return message is not None and re.search(case.says, message) is not None


def main() -> None:
    good = Case("a good task", answers.OK, None)
    with Bench() as bench:
        answers.run(bench, good)
    for case in pictures.ROWS:  # what it takes to make them is the attacker's
        case.given()
    before, open_before, threads_before = memory(), descriptors(), threads()
    with Bench() as bench:
        wrong = [name for name, (case, run) in TABLE.items() if not as_it_should(case, outcome(bench, case, run))]
        good_after = outcome(bench, good, answers.run)
    json.dump(
        {
            "inputs": len(TABLE),
            "wrong": wrong,
            "grown_mb": round(memory() - before, 1),
            "threads_left": settled(threads, threads_before),
            "descriptors_left": settled(descriptors, open_before),
            "good_task_after": good_after,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
