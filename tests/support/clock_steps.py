"""A wall clock that a test steps under a running program, by a library that is preloaded into it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class SteppingClock:
    """Start a program with `environ`; `step` then moves its wall clock. Skips the test without a C compiler."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to build the stepping clock")
        library, self._file = folder / "clock_steps.so", folder / "clock_step"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_STEP": str(self._file)}

    def step(self, seconds: int) -> None:
        """Set it to `seconds` after the machine's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)  # at once: a half-written file would be a third clock
