"""Mutated pictures for the decoder: `python -m tests.campaigns.fuzz.pictures --count 400 [--files FOLDER]`.

It prints, by format, what became of them and what the costliest one cost. It ends with 1 if one cost more than a
decoder may spend, a message names something of this machine, or the next good picture was late.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from miner.media.decoding import CPU, MEMORY
from miner.media.kinds import picture_kind
from miner.media.pictures import clean_image
from miner.task.errors import JobFault
from tests.support.decoder_cost import Cost, Meter

MAX_PIXELS = 4_194_304
OWN = 64.0  # MB that the worker may need beyond the file
ON_TIME = 5.0  # seconds for the next good picture
LARGEST = 50_000_000  # bytes
TELLTALE = re.compile(r"/|\\|Traceback|\b0x[0-9a-f]{6}|Error|[\r\n]")

Mutation = Callable[[random.Random, bytes], bytes]


@dataclass(slots=True)
class Tally:
    """Of one format. `worst`: the highest of each cost, of whichever file."""

    ends: Counter[str] = field(default_factory=Counter)
    worst: Cost = field(default_factory=lambda: Cost(wall=0.0, cpu=0.0, memory=0.0, own=0.0))
    reasons: Counter[str] = field(default_factory=Counter)  # numbers left out
    next_good: float = 0.0  # seconds
    faults: list[str] = field(default_factory=list)


def corpus(folder: Path | None) -> dict[str, list[bytes]]:
    """Real files by format: written by Pillow in the ways it knows, and those of a folder."""
    files = list(_written())
    files += [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()] if folder else []
    found: dict[str, list[bytes]] = {}
    for data in files:
        if kind := picture_kind(data):
            found.setdefault(kind, []).append(data)
    return found


def _written() -> Iterator[bytes]:
    across, down = np.meshgrid(np.arange(120), np.arange(90))
    values = np.stack((across * 2, down * 2, (across * down) % 256, 255 - across), axis=-1).astype(np.uint8)
    picture = Image.fromarray(values)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274], exif[270] = 6, "text"
    ways: dict[str, list[tuple[str, dict[str, object]]]] = {
        "PNG": [("RGBA", {"exif": exif}), ("P", {}), ("1", {}), ("RGB", {"icc_profile": profile})],
        "JPEG": [("RGB", {"exif": exif}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True, "comment": b"text"})],
        "WEBP": [
            ("RGBA", {"exif": exif}),
            ("RGB", {"lossless": True}),
            ("RGB", {"save_all": True, "append_images": [picture]}),
        ],
        "GIF": [("P", {"comment": b"text"}), ("P", {"save_all": True, "append_images": [picture.rotate(90)]})],
        "BMP": [("RGB", {}), ("P", {}), ("1", {}), ("RGBA", {})],
        "TIFF": [
            ("RGB", {"exif": exif}),
            ("RGB", {"compression": "tiff_lzw"}),
            ("1", {"compression": "group4"}),
            ("RGB", {"compression": "jpeg"}),
            ("CMYK", {"compression": "tiff_adobe_deflate"}),
        ],
        "AVIF": [("RGBA", {"exif": exif}), ("RGB", {"save_all": True, "append_images": [picture]})],
    }
    for kind, options in ways.items():
        for mode, more in options:
            out = io.BytesIO()
            picture.convert(mode).save(out, kind, **more)
            yield out.getvalue()


# ---- mutations ------------------------------------------------------------------------------------------------------


def _bytes(rng: random.Random, data: bytes) -> bytes:
    new = bytearray(data)
    for _ in range(rng.choice((1, 3, 20, len(data) // 50 + 1))):
        new[rng.randrange(4, len(new))] = rng.randrange(256)
    return bytes(new)


def _number(rng: random.Random, data: bytes) -> bytes:
    """A length, a count or an offset of any width that says something else."""
    form = rng.choice("BHIQ")
    value = rng.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(data), rng.getrandbits(31)))
    packed = struct.pack(rng.choice("<>") + form, value % (1 << 8 * struct.calcsize(form)))
    at = rng.randrange(4, min(len(data), 400))
    return data[:at] + packed + data[at + len(packed) :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(12, len(data))]


def _doubled(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(2, len(data))
    end = min(start + rng.choice((1, 8, 12, 100, 4000)), len(data))
    times = rng.choice((1, 10, 1000, 100_000))
    return (data[:end] + data[start:end] * min(times, LARGEST // (end - start)) + data[end:])[:LARGEST]


def _removed(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(4, len(data))
    return data[:start] + data[start + rng.choice((1, 4, 12, 200)) :]


def _spliced(rng: random.Random, data: bytes) -> bytes:
    one, other = sorted((rng.randrange(4, len(data)), rng.randrange(4, len(data))))
    return data[:other] + data[one:]


MUTATIONS: tuple[Mutation, ...] = (_bytes, _number, _number, _cut, _doubled, _removed, _spliced)


def mutated(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 4))):
        if len(data) > 20:
            data = rng.choice(MUTATIONS)(rng, data)
    return _with_checksums(data) if data.startswith(b"\x89PNG") and rng.random() < 0.7 else data


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are what they say, so that more than their checksums is tried."""
    new, at = bytearray(data), 8
    while at + 12 <= len(new):
        end = at + 8 + int.from_bytes(new[at : at + 4])
        if end + 4 > len(new):
            break
        new[end : end + 4] = zlib.crc32(new[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(new)


# ---- trying them ----------------------------------------------------------------------------------------------------


def attempt(data: bytes, tally: Tally, good: bytes) -> None:
    end = "taken"
    with Meter() as meter:
        try:
            clean_image(data, max_pixels=MAX_PIXELS)
        except JobFault as fault:
            end = fault.message
    began = time.monotonic()
    clean_image(good, max_pixels=MAX_PIXELS)
    late = time.monotonic() - began
    cost, worst = meter.cost, tally.worst
    tally.worst = Cost(
        wall=max(cost.wall, worst.wall),
        cpu=max(cost.cpu, worst.cpu),
        memory=max(cost.memory, worst.memory),
        own=max(cost.own, worst.own),
    )
    tally.next_good = max(late, tally.next_good)
    tally.ends["taken" if end == "taken" else "refused"] += 1
    tally.reasons[re.sub(r"\d+", "N", end)] += 1
    if cost.cpu > CPU + 1 or cost.memory > MEMORY / 1e6 or cost.own > OWN or late > ON_TIME or TELLTALE.search(end):
        tally.faults.append(f"{len(data)} bytes: {cost}, {end!r}, the next one after {late:.1f} s")


def run(*, count: int, seed: int, folder: Path | None) -> dict[str, Tally]:
    """`count` files in all, the formats in turn."""
    files = corpus(folder)
    rng, tallies = random.Random(seed), {kind: Tally() for kind in files}
    good = files["PNG"][0]
    clean_image(good, max_pixels=MAX_PIXELS)
    for number in range(count):
        kind = list(files)[number % len(files)]
        attempt(mutated(rng, rng.choice(files[kind])), tallies[kind], good)
    return tallies


def table(tallies: dict[str, Tally]) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("format", "files", "taken", "refused", "CPU s", "decoder MB", "worker MB", "next good one s"):
        made.add_column(heading, justify="left" if heading == "format" else "right")
    for kind, tally in tallies.items():
        worst, ends = tally.worst, tally.ends
        costs = (f"{worst.cpu:.2f}", f"{worst.memory:.0f}", f"{worst.own:.1f}", f"{tally.next_good:.2f}")
        made.add_row(kind, str(ends.total()), str(ends["taken"]), str(ends["refused"]), *costs)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.fuzz.pictures", description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="files in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=Path, default=None, metavar="FOLDER", help="more real pictures to begin with")
    options = parser.parse_args()
    tallies = run(count=options.count, seed=options.seed, folder=options.files)
    Console(width=None if sys.stdout.isatty() else 120).print(table(tallies))
    faults = [f"{kind}: {fault}" for kind, tally in tallies.items() for fault in tally.faults]
    for fault in faults:
        print(fault)
    print(
        f"at most {CPU:g} s of CPU and {MEMORY / 1e6:g} MB above an idle decoder are allowed; {len(faults)} cost more"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
