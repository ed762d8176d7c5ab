"""What a line of a table is, and the bench that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from miner.task.errors import JobFault, Retryable
from tests.support.scripted_server import ScriptedServer

ANY = "any"


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile input. `says` is a pattern in the message of the refusal; None: it does no harm, and is taken; ANY:
    either is right.

    `seconds` is the time limit that it runs under; it matters to those alone that would go on for ever.
    """

    name: str
    given: Any = field(repr=False)
    says: str | None
    seconds: float = 20.0


class Bench:
    """A hostile server and a folder, for as many cases as one likes."""

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            self.server = stack.enter_context(ScriptedServer())
            self.folder = Path(stack.enter_context(TemporaryDirectory()))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


Run = Callable[[Bench, Case], None]


def outcome(bench: Bench, case: Case, run: Run) -> str | None:
    """What a refusal says; None if there was none. Anything but a clean refusal goes through."""
    try:
        run(bench, case)
    except (JobFault, Retryable) as refusal:
        return refusal.message
    return None
