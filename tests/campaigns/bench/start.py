"""How soon the program is there: `--help`, the first request of a worker, and its memory while it waits for a task."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.stand import Stand, pause
from tests.campaigns.bench.table import Case, Found, NotMeasured
from tests.support import proc

PATIENCE = 60.0  # seconds


def measurements() -> Iterator[Measurement]:
    yield Measurement(cases=(Case(name="xalora-miner --help", unit="s", at_most=0.4, digits=2),), measure=_help)
    yield Measurement(
        cases=(Case(name="start of the worker to its first request", unit="s", at_most=1.0, digits=2),),
        measure=_first_request,
    )
    yield Measurement(cases=(Case(name="the worker's RSS, idle", unit="MB", at_most=90.0),), measure=_idle_rss)


def _help(stand: Stand) -> Sequence[Found]:
    script = Path(sys.executable).with_name("xalora-miner")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "miner"]
    times = []
    for _ in range(4 if stand.quick else 7):
        began = time.perf_counter()
        subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        times.append(time.perf_counter() - began)
    return (_middle(times[1:]),)  # the first one may have had to write bytecode


def _first_request(stand: Stand) -> Sequence[Found]:
    times = []
    for _ in range(4 if stand.quick else 7):
        with _sequencer() as sequencer:
            began = time.perf_counter()
            with stand.worker(sequencer, stand.wait_for(0)):
                if not sequencer.asked.wait(PATIENCE):
                    raise NotMeasured(f"the worker did not ask within {PATIENCE:.0f} s")
                times.append(sequencer.asked_at - began)
    return (_middle(times[1:]),)


def _idle_rss(stand: Stand) -> Sequence[Found]:
    with stand.devnet() as devnet, stand.worker(devnet, stand.wait_for(0)) as miner:
        miner.until_offered()
        pause(1.0)
        return (Found(proc.rss(miner.pid), "with the dashboard, as by default"),)


def _middle(times: Sequence[float]) -> Found:
    return Found(statistics.median(times), f"median of {len(times)}, at most {max(times):.2f} s")


@dataclass(slots=True)
class _Sequencer:
    """One that has nothing to do, and notes when it was first asked."""

    url: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    asked_at: float = 0.0  # time.perf_counter()


@contextmanager
def _sequencer() -> Iterator[_Sequencer]:
    sequencer = _Sequencer()

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sequencer.asked_at = sequencer.asked_at or time.perf_counter()
            sequencer.asked.set()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="sequencer")
        thread.start()
        try:
            sequencer.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield sequencer
        finally:
            server.shutdown()
            thread.join()
