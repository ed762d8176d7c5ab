"""How soon the program is there: `--help`, the first request of a worker, and its memory while it waits for a task."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found, NotMeasured
from tests.campaigns.bench.testbed import BenchTestbed, pause
from tests.support import proc
from tests.support.scripted_server import ScriptedServer, reply

PATIENCE = 60.0  # seconds


def measurements() -> Iterator[Measurement]:
    yield Measurement(cases=(Case(name="xalora-miner --help", unit="s", at_most=0.4, digits=2),), measure=_help)
    yield Measurement(
        cases=(Case(name="start of the worker to its first request", unit="s", at_most=1.0, digits=2),),
        measure=_first_request,
    )
    yield Measurement(cases=(Case(name="the worker's RSS, idle", unit="MB", at_most=90.0),), measure=_idle_rss)


def _help(testbed: BenchTestbed) -> Sequence[Found]:
    script = Path(sys.executable).with_name("xalora-miner")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "miner"]
    times = []
    for _ in range(4 if testbed.quick else 7):
        began = time.monotonic()
        subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        times.append(time.monotonic() - began)
    return (_middle(times[1:]),)  # the first one may have had to write bytecode


def _first_request(testbed: BenchTestbed) -> Sequence[Found]:
    times = []
    for _ in range(4 if testbed.quick else 7):
        with ScriptedServer(lambda _: reply(b"", status=204)) as sequencer:
            began = time.monotonic()
            with testbed.worker(sequencer, testbed.wait_for(0)):
                if not sequencer.reaches(lambda: bool(sequencer.requests)):
                    raise NotMeasured("the worker did not ask")
                times.append(sequencer.requests[0].at - began)
    return (_middle(times[1:]),)


def _idle_rss(testbed: BenchTestbed) -> Sequence[Found]:
    with testbed.devnet() as devnet, testbed.worker(devnet, testbed.wait_for(0)) as miner:
        miner.until_offered()
        pause(1.0)
        return (Found(proc.rss(miner.pid), "with the dashboard, as by default"),)


def _middle(times: Sequence[float]) -> Found:
    return Found(statistics.median(times), f"median of {len(times)}, at most {max(times):.2f} s")
