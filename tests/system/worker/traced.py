"""`xalora-miner run` under a tracer: `python -m … CONFIG FILE` writes each function of the miner's own to FILE, in the
order of their first calls, as it ends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import miner
from miner.cli.main import app

TOP = f"{Path(miner.__file__).parent}/"


def main(config: str, out: str) -> None:
    seen: dict[str, None] = {}

    def profile(frame: FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(TOP):
            seen.setdefault(f"{code.co_filename[len(TOP) :]} {code.co_name}")

    threading.setprofile(profile)
    sys.setprofile(profile)
    sys.argv = ["xalora-miner", "run", "--config", config]
    try:
        app()
    finally:
        sys.setprofile(None)
        Path(out).write_text("\n".join(list(seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
