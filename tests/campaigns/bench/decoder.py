"""What the decoder's process costs: time for a small picture, and memory."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from PIL import Image

from miner.media.decoders import Decoders
from miner.media.decoding import Request
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found
from tests.campaigns.bench.testbed import BenchTestbed, pause
from tests.support import proc

SIDE = 64  # pixels
MAX_PIXELS = 4_194_304


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(
            Case(name="a small picture through a warm decoder, p50", unit="ms", at_most=5.0, digits=2),
            Case(name="the decoder's RSS when idle", unit="MB", at_most=25.0),
            Case(name="… and what is its own of that (PSS)", unit="MB"),
        ),
        measure=_decoder,
    )


def _decoder(testbed: BenchTestbed) -> Sequence[Found]:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(out, "PNG")
    request = Request(
        do="clean",
        options={"max_pixels": MAX_PIXELS},
        body=(out.getvalue(),),
        size=out.tell(),
        most=5 * MAX_PIXELS,
        pixels=MAX_PIXELS,
    )
    with closing(Decoders()) as decoders:
        began = time.perf_counter()
        decoders.decode(request)
        cold = time.perf_counter() - began
        pause(0.5)
        (pid,) = decoders.pids
        idle, own = proc.rss(pid), proc.pss(pid)
        times = list[float]()
        for _ in range(100 if testbed.quick else 190):  # the same decoder for all
            began = time.perf_counter()
            decoders.decode(request)
            times.append((time.perf_counter() - began) * 1000)
    p95 = sorted(times)[int(0.95 * len(times))]
    return (
        Found(statistics.median(times), f"{SIDE}x{SIDE}; p95 {p95:.2f} ms; {1000 * cold:.0f} ms with its start"),
        Found(idle, "the worker itself goes without Pillow"),
        Found(own, "several share one interpreter and its libraries"),
    )
