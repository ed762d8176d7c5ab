"""A 500 MB output: what it adds to the worker's memory, and how its upload compares with `curl -T` to the same store.

The task is a real one but for its pixels: encoding half a gigabyte would measure the engine. So the graph saves a small
picture and then waits for a gate; meanwhile the bench puts a valid PNG of that size in the file's place, with ComfyUI's
prompt inside, and opens the gate. The worker reads, cleans and uploads it like any other. Both uploads are timed by the
store, from the request's first byte to the reply.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import requests

from tests.campaigns.bench.graphs import GATED, TASK_TYPE
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found, NotMeasured
from tests.campaigns.bench.testbed import BenchTestbed, Engine, Miner
from tests.support import proc
from tests.support.devnet import Running
from tests.support.testbed import MINER_ID

SIDE = 12_910  # pixels, of three bytes each
QUICK_SIDE = 6_000
PATIENCE = 120.0  # seconds
IEND = b"IEND\xaeB\x60\x82"
CURL = "curl"


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(
            Case(name="a 500 MB output: more RSS at its peak", unit="MB", at_most=32.0),
            Case(name="a 500 MB output: speed of its upload", unit="% of curl -T", at_least=80.0, digits=0),
        ),
        measure=_big_output,
    )


def _big_output(testbed: BenchTestbed) -> Sequence[Found]:
    if shutil.which(CURL) is None:
        raise NotMeasured("there is no curl to compare with")
    picture = testbed.fresh("big") / "big.png"
    _write_png(picture, side=QUICK_SIDE if testbed.quick else SIDE)
    with testbed.devnet() as devnet, testbed.worker(devnet, testbed.work(GATED)) as miner:
        _deliver(miner, testbed.engine, None)  # so that what a first task loads is there
        curls = [_curl(devnet, picture)]
        before = proc.rss(miner.pid)
        proc.forget_peak(miner.pid)
        took = _deliver(miner, testbed.engine, picture)
        more = proc.peak_rss(miner.pid) - before
        curls.append(_curl(devnet, picture))
    size = picture.stat().st_size / 1e6
    speeds = ", ".join(f"{size / seconds:.0f}" for seconds in curls)
    note = f"{size:.0f} MB at {size / took:.0f} MB/s; curl, before and after: {speeds} MB/s"
    return Found(more, f"{size:.0f} MB, on the disk that ComfyUI shares"), Found(50 * sum(curls) / took, note)


def _deliver(miner: Miner, engine: Engine, picture: Path | None) -> float:
    """One task, whose output becomes `picture`; returns the seconds that its upload took."""
    saved = set(engine.output.glob("xalora/*/*.png"))
    task_id = miner.create(gate=(gate := f"gate-{os.urandom(8).hex()}"))
    output = miner.until(lambda: _whole(set(engine.output.glob("xalora/*/*.png")) - saved), why="the saved picture")
    if picture is not None:
        aside = output.with_suffix(".big")
        os.link(picture, aside)
        aside.replace(output)
    (engine.input / gate).touch()
    miner.until_ended(task_id)
    return _last_upload(miner.devnet)


def _whole(pictures: set[Path]) -> Path | None:
    return next((path for path in pictures if path.read_bytes().endswith(IEND)), None)


def _curl(devnet: Running, picture: Path) -> float:
    """Seconds that curl takes for the same file, to a task's upload_url of its own."""
    miner_id = workflow_id = f"{MINER_ID}-curl"
    devnet.create(task_type=TASK_TYPE, workflow_id=workflow_id, task_details={"parameters": {}})
    ask = {"erc20_address": miner_id, "workflow_ids": [workflow_id]}
    lease = devnet.session.post(f"{devnet.url}/miner_request", json=ask, timeout=PATIENCE).json()
    command = [CURL, "--silent", "--show-error", "--fail", "--noproxy", "*", "-T", str(picture), lease["upload_url"]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    answer = {"success": False, "task_id": lease["task_id"], "miner_id": miner_id, "result": "", "msg": "measured"}
    answer |= {"inference_latency": 0.0, "upload_latency": 0.0}
    requests.post(f"{devnet.url}/miner_submit", json=answer, timeout=PATIENCE).raise_for_status()
    return _last_upload(devnet)


def _last_upload(devnet: Running) -> float:
    return devnet.requests("store_put")[-1]["seconds"]


def _write_png(path: Path, *, side: int) -> None:
    """A valid picture of noise, not compressed, with the text that ComfyUI puts into each."""
    packer, row = zlib.compressobj(0), b"\0" + os.urandom(3 * side)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        _write_chunk(file, b"tEXt", b"prompt\0" + json.dumps({"1": {"class_type": "SaveImage"}}).encode())
        for _ in range(side):
            if block := packer.compress(row):
                _write_chunk(file, b"IDAT", block)
        _write_chunk(file, b"IDAT", packer.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
