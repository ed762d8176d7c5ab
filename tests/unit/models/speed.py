"""The speed of a download against curl's, and its memory. Not a test: `python -m tests.unit.models.speed`.

A file is served on loopback with sendfile, and fetched in turns by curl (as it is, and with a flush of the file to the
disk after it) and by `miner.models`, which hashes and flushes what it fetches. The best of each counts, since other
programs may be at work here.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CHILD = "--child"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go; default: the usual for such")
    parser.add_argument(CHILD, nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fetch(Path(options.child[0]), options.child[1])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(Path(folder), options.megabytes, options.rounds)


def compare(folder: Path, megabytes: int, rounds: int) -> None:
    served = folder / "served"
    with served.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    curl, flushed, ours, memory = [], [], [], []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, served), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/model.pth"
        for _ in range(rounds):
            curl.append(seconds(["curl", "-s", "-o", str(folder / "curl"), url]))
            flushed.append(curl[-1] + seconds(["sync", str(folder / "curl")]))
            (folder / "curl").unlink()
            command = [sys.executable, "-m", "tests.unit.models.speed", CHILD, str(folder), url]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            ours.append(told["seconds"])
            memory.append(told["memory"])
    for name, times in (("curl", curl), ("curl and sync", flushed), ("miner.models", ours)):
        print(
            f"{name:15} {megabytes / min(times):6.0f} MB/s  (best of {rounds}; {sorted(round(t, 2) for t in times)} s)"
        )
    print(f"ratio to curl            {min(curl) / min(ours):.0%}")
    print(f"ratio to curl and sync   {min(flushed) / min(ours):.0%}")
    print(f"memory more at the peak  {max(memory) / 1e6:.1f} MB")


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def serve(server: socket.socket, path: Path) -> None:
    while True:
        connection, _ = server.accept()
        with connection, path.open("rb") as file:
            connection.recv(1 << 16)
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\nETag: "one"\r\n\r\n'
            connection.sendall(head.encode())
            connection.sendfile(file)


def fetch(folder: Path, url: str) -> None:
    """In its own process: one pull, its seconds and its additional memory."""
    from miner.cli.progress import Lines
    from miner.models.catalogue import ModelFile
    from miner.models.hash_db import HashDatabase
    from miner.models.progress import Stop
    from miner.models.pull import pull
    from miner.models.store import Store
    from miner.telemetry import log

    log.setup(level="WARNING")
    file = ModelFile(folder="vae", name="model.pth", url=url)
    store, hash_db = Store(folder / "models"), HashDatabase(folder / "state")
    before, start = resident("VmRSS"), time.perf_counter()
    report = pull([file], store=store, hash_db=hash_db, progress=Lines(every=1e9), stop=Stop())
    took = time.perf_counter() - start
    assert not report.failed, report.failed
    store.target(file).unlink()
    hash_db.close()
    print(json.dumps({"seconds": took, "memory": resident("VmHWM") - before}))


def resident(what: str) -> int:
    """Bytes, from /proc/self/status: VmRSS is now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise LookupError(what)


if __name__ == "__main__":
    main()
