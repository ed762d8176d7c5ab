"""Parts that need no worker: event hub, thumbnails, GPUs, the page's files, progress, liveness."""

from __future__ import annotations

import asyncio
import io
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import pytest
from PIL import Image

from miner.comfy.events import Progress
from miner.dashboard.events import Hub, Topic
from miner.media.thumbnail import MAX_BYTES, SIDE, thumbnail
from miner.task.errors import MachineFault
from miner.telemetry.liveness import IDLE, Liveness
from tests.support.paths import ROOT

STATIC = files("miner.dashboard").joinpath("static")

# ---- the stream -------------------------------------------------------------------------------------------------


class CountingTopic:
    """A topic that counts its reads, and raises `fault` if set."""

    def __init__(self):
        self.reads = 0
        self.value = "one"
        self.fault = None

    def __call__(self):
        self.reads += 1
        if self.fault:
            raise self.fault
        return {"topic": {"is": self.value}}


async def with_hub(read, play):
    with ThreadPoolExecutor(1) as readers:
        hub = Hub([Topic(every=0.0, read=read)], readers=readers)
        try:
            async with asyncio.timeout(20):
                await play(hub)
        finally:
            await hub.close()


async def heard(stream, words):
    """Read until an event contains `words`."""
    async for event in stream:
        if words in event:
            return event
    raise AssertionError("the stream ended")


def test_topics_are_read_once_for_all_watchers_and_only_while_there_are_any():
    read = CountingTopic()

    async def play(hub):
        streams = [hub.watch() for _ in range(3)]
        assert read.reads == 0
        await asyncio.gather(*(heard(stream, b'"one"') for stream in streams))
        assert read.reads == 1
        read.value = "two"
        await asyncio.gather(*(heard(stream, b'"two"') for stream in streams))
        assert read.reads <= 3
        for stream in streams:
            await stream.aclose()

    asyncio.run(with_hub(read, play))


def test_a_slow_watcher_skips_outdated_values_and_delays_nobody():
    read = CountingTopic()

    async def play(hub):
        slow, quick = hub.watch(), hub.watch()
        await heard(slow, b'"one"')
        for word in ("two", "three"):
            read.value = word
            await heard(quick, f'"{word}"'.encode())
        assert b'"three"' in await anext(slow)
        await slow.aclose()
        await quick.aclose()

    asyncio.run(with_hub(read, play))


def test_an_unreadable_journal_is_reported_and_the_stream_continues():
    read = CountingTopic()
    read.fault = MachineFault("the disk is gone", hint="look for it")

    async def play(hub):
        stream = hub.watch()
        assert b"event: trouble" in await heard(stream, b"the disk is gone")
        read.fault = None
        await heard(stream, b'"one"')
        await stream.aclose()

    asyncio.run(with_hub(read, play))


def test_closing_ends_every_stream():
    async def play(hub):
        stream = hub.watch()
        await heard(stream, b'"one"')
        await hub.close()
        assert [event async for event in stream] in ([], [b""])

    asyncio.run(with_hub(CountingTopic(), play))


# ---- thumbnails -------------------------------------------------------------------------------------------------


def noise(size, mode="RGB"):
    return Image.frombytes(mode, size, random.Random(1).randbytes(size[0] * size[1] * len(mode)))


@pytest.mark.parametrize(
    ("format_", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB")]
)
def test_a_thumbnail_is_a_small_webp_even_of_noise(tmp_path, format_, mode):
    path = tmp_path / "out"
    noise((900, 600), mode).save(path, format_)
    made = thumbnail(path)
    assert (made.width, made.height) == (900, 600)
    assert len(made.webp) <= MAX_BYTES
    with Image.open(io.BytesIO(made.webp)) as small:
        assert (small.format, max(small.size)) == ("WEBP", SIDE)
        assert not small.getexif()


def test_the_thumbnail_of_an_animation_is_its_first_frame(tmp_path):
    path = tmp_path / "out.webp"
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(io.BytesIO(thumbnail(path).webp)) as small:
        red, _, blue = small.convert("RGB").getpixel((32, 32))
    assert red > 200 > blue


def test_a_broken_or_too_large_image_has_no_thumbnail(tmp_path):
    path = tmp_path / "out"
    for data in (b"", b"\0\0\0\x20ftypisom", b"\x89PNG\r\n\x1a\nbroken", b"\xff\xd8\xffbroken"):
        path.write_bytes(data)
        assert thumbnail(path) is None
    Image.new("1", (5000, 5000)).save(path, "PNG")
    assert thumbnail(path) is None


# ---- GPUs -------------------------------------------------------------------------------------------------------


def test_gpu_samples_are_kept_for_fifteen_minutes(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the NVML stand-in")
    source = ROOT / "tests" / "support" / "nvml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", source], check=True)
    program = """
from miner.dashboard.gpus import Gpus
gpus = Gpus()
for at in range(0, 2000, 5):
    gpus.sample(float(at))
(card,) = gpus.cards()
gpus.close()
assert card.name == "NVIDIA GeForce RTX 4090", card.name
assert (card.samples[0].at, card.latest.at) == (1100.0, 1995.0)
assert all(0 <= sample.load <= 1 for sample in card.samples)
assert card.latest.memory < card.memory_total
assert 50 < card.latest.temperature < 90 and card.latest.power > 50
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"LD_LIBRARY_PATH": str(tmp_path)}, timeout=60)


# ---- the rest ---------------------------------------------------------------------------------------------------


def test_the_page_is_small_and_loads_nothing_from_other_hosts():
    contents = {entry.name: entry.read_text() for entry in STATIC.iterdir()}
    assert sum(len(text.encode()) for text in contents.values()) <= 150_000
    for name, text in contents.items():
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), name
    assert not re.search(
        r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", contents["index.html"] + contents["sign-in.html"]
    )


@pytest.mark.parametrize(
    ("progress", "nodes", "expected"),
    [
        ({"value": 0, "of": 1, "done": 0, "nodes": 1}, 4, 0.0),
        ({"value": 10, "of": 20, "done": 1, "nodes": 2}, 4, 0.375),
        ({"value": 0, "of": 0, "done": 1, "nodes": 2}, 4, 0.25),
        ({"value": 1, "of": 1, "done": 4, "nodes": 4}, 4, 1.0),
        ({"value": 30, "of": 20, "done": 3, "nodes": 4}, 0, 1.0),
    ],
)
def test_a_prompt_s_share_counts_nodes_and_the_current_node_s_steps(progress, nodes, expected):
    assert Progress(prompt_id="p", **progress).share(nodes) == expected


def test_a_loop_is_late_when_it_misses_its_next_beat():
    at = [100.0]
    liveness = Liveness(clock=lambda: at[0])
    at[0] += 1000
    assert liveness.late == 0.0  # before the first beat
    liveness.beat(30.0)
    at[0] += 31
    assert liveness.late == 1.0
    liveness.beat(IDLE)
    at[0] += 1e9
    assert liveness.late == 0.0
