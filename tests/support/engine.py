"""`python -m tests.support.engine`: the embedded engine, under the same flags, with the trial nodes too."""

from __future__ import annotations

from pathlib import Path

from miner.engine.__main__ import main
from tests.support.paths import ROOT
from tests.support.trial_nodes import NODES


def make_home(folder: Path, module: str = __name__) -> Path:
    """A new folder that a worker can start as its own ComfyUI: its main.py runs `module`, an engine."""
    folder.mkdir()
    (folder / "main.py").write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\nrunpy.run_module({module!r}, run_name='__main__')\n"
    )
    return folder


if __name__ == "__main__":
    raise SystemExit(main(NODES))
