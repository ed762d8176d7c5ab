"""A miner, as far as its ComfyUI is concerned: starts the stand-in, says its process id, and waits to be killed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from miner.comfy.launch import Launch, lane_folder
from miner.comfy.process import ComfyProcess
from miner.telemetry import log

STANDIN = Path(__file__).absolute().with_name("standin.py")


def standin(port: int, state: Path, *flags: str, env: Mapping[str, str] = os.environ) -> Launch:
    folder = lane_folder(state, "test")
    folder.mkdir(parents=True, exist_ok=True)
    return Launch(
        lane="test",
        argv=(sys.executable, "-IS", str(STANDIN), "--port", str(port), "--state", str(state), *flags),
        cwd=folder,
        env=env,
        url=f"http://127.0.0.1:{port}",
        output_dir=folder,
        input_dir=folder,
    )


def main(port: str, state: str, *flags: str) -> None:
    log.setup()  # to stderr: stdout is for the process id
    process = ComfyProcess(standin(int(port), Path(state), *flags), state=Path(state), start_timeout=60)
    process.start(threading.Event())
    print(process.pid, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
