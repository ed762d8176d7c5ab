"""Decoders as the worker uses them: what they may do, and what ends them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miner.media import decoding
from miner.media.decoders import Decoders
from miner.media.decoding import Refused, Request
from miner.task.errors import LeaseLost, MachineFault
from tests.support.paths import ROOT
from tests.support.testbed import until

MEGAPIXELS = 4_194_304


def encoded(side: int, **options: object) -> bytes:
    values = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG", **options)
    return out.getvalue()


SMALL, LARGE = encoded(16), encoded(2048, compress_level=1)  # LARGE takes a good part of a second


def clean(data: bytes, *, most: int = 5 * MEGAPIXELS) -> Request:
    return Request(
        do="clean", options={"max_pixels": MEGAPIXELS}, body=(data,), size=len(data), most=most, pixels=MEGAPIXELS
    )


@pytest.fixture
def make() -> Iterator[Callable[..., Decoders]]:
    made: list[Decoders] = []

    def one(**limits: float) -> Decoders:
        made.append(Decoders(**limits))
        return made[-1]

    yield one
    for pool in made:
        pool.close()


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def test_a_decoder_has_limits_no_secret_and_nothing_open_but_its_socket(
    make: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XALORA_API_KEY", "a secret")
    pool = make()
    pool.decode(clean(SMALL))
    (pid,) = pool.pids
    limits = Path(f"/proc/{pid}/limits").read_text()
    for line in ("Max open files            3 ", "Max file size             0 ", "Max processes             0 "):
        assert line in limits
    assert status(pid, "NoNewPrivs") == "1"
    assert status(pid, "Seccomp") == "2"
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == 3
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")


def test_what_is_confined_can_open_send_start_and_signal_nothing() -> None:
    script = """
import os, signal, socket, sys
from miner.media import confined
read, write = os.pipe()
assert confined.confine(memory=100_000_000, cpu=10)
for attempt in (
    lambda: open("/etc/hostname"),
    lambda: open("/tmp/x", "w"),
    lambda: socket.socket(),
    lambda: os.fork(),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.kill(os.getppid(), 0),
    lambda: os.unlink("/tmp/x"),
    lambda: os.listdir("/"),
):
    try:
        attempt()
    except OSError as error:
        print(error.errno)
    else:
        print("done")
try:
    bytearray(200_000_000)
except MemoryError:
    print("no memory")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["1"] * 8 + ["no memory", ""]


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"cpu": 0.05}, "takes too long"), ({"memory": 30_000_000}, "takes too much memory")],
    ids=["cpu", "memory"],
)
def test_a_picture_beyond_a_limit_is_refused_and_the_next_one_is_decoded(
    make: Callable[..., Decoders], limits: dict[str, float], says: str
) -> None:
    pool = make(**limits)
    with pytest.raises(Refused, match=says):
        pool.decode(clean(LARGE))
    assert pool.decode(clean(SMALL))[0] == {"size": [16, 16]}


def test_what_the_caller_raises_ends_the_decoder_in_the_middle(make: Callable[..., Decoders]) -> None:
    pool = make()
    pool.decode(clean(SMALL))
    (pid,) = pool.pids

    def taken_away() -> None:
        raise LeaseLost("taken away")

    began = time.monotonic()
    with pytest.raises(LeaseLost):
        pool.decode(clean(LARGE * 2), watch=taken_away)
    assert time.monotonic() - began < 2.0
    assert not alive(pid)
    assert pool.decode(clean(SMALL))[0] == {"size": [16, 16]}


def test_a_death_is_the_pictures_fault_once_and_again_while_a_picture_of_ours_is_decoded(
    make: Callable[..., Decoders],
) -> None:
    pool = make()
    pool.decode(clean(SMALL))

    def killing() -> Iterator[bytes]:
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSEGV)
        until(lambda: not alive(pid), why="its end")
        yield SMALL

    for _ in range(3):
        with pytest.raises(Refused, match="breaks the decoder"):
            pool.decode(Request(do="clean", options={}, body=killing(), size=len(SMALL), most=1, pixels=1))
    assert pool.decode(clean(SMALL))[0] == {"size": [16, 16]}


def test_a_decoder_that_fails_at_our_own_picture_is_the_machines_fault(make: Callable[..., Decoders]) -> None:
    pool = make(memory=1)
    with pytest.raises(MachineFault, match="a picture of ours") as caught:
        pool.try_own()
    assert caught.value.hint


def test_an_answer_that_is_larger_than_allowed_is_not_taken(make: Callable[..., Decoders]) -> None:
    pool = make()
    with pytest.raises(Refused):
        pool.decode(clean(SMALL, most=10))


def test_a_small_picture_does_not_wait_for_a_large_one(make: Callable[..., Decoders]) -> None:
    pool = make()
    slow = threading.Event()

    def hold() -> Iterator[bytes]:
        yield LARGE[:1000]
        slow.wait(20.0)
        yield LARGE[1000:]

    request = Request(
        do="clean",
        options={"max_pixels": MEGAPIXELS},
        body=hold(),
        size=len(LARGE),
        most=5 * MEGAPIXELS,
        pixels=MEGAPIXELS,
    )
    thread = threading.Thread(target=pool.decode, args=(request,))
    thread.start()
    try:
        assert pool.decode(clean(SMALL))[0] == {"size": [16, 16]}
        assert thread.is_alive()
    finally:
        slow.set()
        thread.join()


def test_a_decoder_is_replaced_after_many_pictures(
    make: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "PICTURES", 3)
    pool = make()
    pids = []
    for _ in range(7):
        pool.decode(clean(SMALL))
        pids += pool.pids
    assert len(set(pids)) >= 2
    until(lambda: len(pool.pids) == 1, why="one to be ready")


def test_no_decoder_outlives_a_worker_that_is_killed() -> None:
    script = """
import sys, time
from miner.media.decoders import shared
shared.warm()
while not shared.pids:
    time.sleep(0.01)
print(*shared.pids, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert alive(pid)
        worker.kill()
    until(lambda: not alive(pid), why="the decoder's end")


def test_without_pillow_the_machine_is_at_fault(make: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    with pytest.raises(MachineFault, match="does not start") as caught:
        make().decode(clean(SMALL))
    assert caught.value.hint
