"""A measurement: the cases that it fills, and the function that does it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import requests

from tests.campaigns.bench.table import Case, Found, NotMeasured, Row
from tests.campaigns.bench.testbed import BenchTestbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """`measure` returns what was found, a value a case, in the cases' order. It may raise NotMeasured."""

    cases: tuple[Case, ...]
    measure: Callable[[BenchTestbed], Sequence[Found]]

    def wanted(self, pattern: str) -> bool:
        """Whether the name of one of its cases has `pattern` in it; `*` and `?` are as in a shell."""
        pattern = f"*{pattern.lower()}*"
        return any(fnmatch(case.name.lower(), pattern) for case in self.cases)

    def rows(self, testbed: BenchTestbed) -> list[Row]:
        """Measure it. What goes wrong becomes the row's reason, so that the other measurements go on."""
        began = time.monotonic()
        try:
            found: Sequence[Found | None] = self.measure(testbed)
            why = ""
        except NotMeasured as error:
            found, why = [None] * len(self.cases), str(error)
        except (AssertionError, OSError, RuntimeError, requests.RequestException, subprocess.SubprocessError) as error:
            found, why = [None] * len(self.cases), f"could not be measured: {type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        return [
            Row(case=case, found=one, why=why, seconds=seconds) for case, one in zip(self.cases, found, strict=True)
        ]
