"""`xalora-miner run --config CONFIG` where something hangs for good: `CONFIG WHAT`.

`picture`: the prepare loop, in C code, at the first picture. `lock`: the main thread, at a lock. `mutex`: the main
thread, in C code that no signal interrupts.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import NoReturn

from miner.cli.main import app
from miner.worker.lane import prepare
from miner.worker.systemd import Notifier

LIBC = ctypes.CDLL(None)


def wait_for_a_lock(*_args: object, **_fields: object) -> None:
    print("hangs", flush=True)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_for_a_mutex(*_args: object, **_fields: object) -> NoReturn:
    print("hangs", flush=True)
    mutex = ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER is all zeros
    while True:
        LIBC.pthread_mutex_lock(mutex)


def main(config: str, what: str) -> None:
    if what == "picture":
        prepare.clean_image = wait_for_a_mutex
    else:
        Notifier.notify = wait_for_a_lock if what == "lock" else wait_for_a_mutex
    sys.argv = ["xalora-miner", "run", "--config", config]
    app()


if __name__ == "__main__":
    main(*sys.argv[1:])
