"""Videos whose index comes last, as ComfyUI 0.3.64 writes them: it is moved to the front, and each frame is found."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from miner.media.mark import MARKS
from miner.media.mp4 import arranged, boxes
from miner.media.outputs import finish
from tests.unit.media.test_outputs import decoded, write_video


def box(kind: bytes, *bodies: bytes, wide: bool = False) -> bytes:
    body = b"".join(bodies)
    if wide:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def table(offsets: list[int], *, kind: bytes = b"stco") -> bytes:
    return box(kind, struct.pack(f">II{len(offsets)}{'I' if kind == b'stco' else 'Q'}", 0, len(offsets), *offsets))


def index(*tables: bytes, wide: bool = False, more: bytes = b"") -> bytes:
    tracks = [box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", one), wide=wide)), more) for one in tables]
    return box(b"moov", box(b"mvhd", bytes(100)), *tracks, wide=wide)


def offsets(moov: bytes) -> list[int]:
    """Of all tables, in order."""
    found: list[int] = []
    for kind, size in ((b"stco", "I"), (b"co64", "Q")):
        at = -1
        while (at := moov.find(kind, at + 1)) >= 0:
            (count,) = struct.unpack_from(">I", moov, at + 8)
            found += struct.unpack_from(f">{count}{size}", moov, at + 12)
    return found


def kinds(data: bytes) -> list[bytes]:
    return [kind for kind, *_ in boxes(io.BytesIO(data), 0, len(data))]


def assembled(data: bytes, *, mark: bytes = b"") -> bytes | None:
    parts = arranged(io.BytesIO(data), len(data), mark=mark)
    if parts is None:
        return None
    return b"".join(part if isinstance(part, bytes) else data[part[0] : sum(part)] for part in parts)


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2")
WORDS = b"".join(b"%07d " % number for number in range(100))


@pytest.mark.parametrize("wide", [False, True], ids=["sizes of 32 bits", "sizes of 64 bits"])
@pytest.mark.parametrize("kind", [b"stco", b"co64"])
@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        (b"", b"", b""),
        (box(b"free", bytes(9)), b"", b""),
        (box(b"wide"), box(b"free", bytes(50)), box(b"free", bytes(3))),
        (b"", box(b"mdat", WORDS), b""),
        (box(b"free"), box(b"mdat", WORDS) + box(b"skip"), box(b"mdat", WORDS)),
    ],
)
def test_the_index_comes_first_and_each_offset_still_points_to_the_same_bytes(
    wide: bool, kind: bytes, before: bytes, between: bytes, after: bytes
) -> None:
    body = FTYP + before + box(b"mdat", WORDS, wide=wide) + between
    old = [at for at in range(len(body)) if body[at : at + 8].strip().isdigit() and body[at + 7 : at + 8] == b" "]
    moov = index(table(old[:60], kind=kind), table(old[60:], kind=kind), wide=wide, more=box(b"udta", b"stco" * 2))
    data = body + moov + after
    new = assembled(data)
    assert new is not None
    assert kinds(new)[:2] == [b"ftyp", b"moov"]
    assert sorted(kinds(new)) == sorted(kinds(data))
    found = offsets(new[new.index(b"moov") : new.index(b"mdat")].replace(b"stcostco", b""))
    assert [new[at : at + 8] for at in found] == [data[at : at + 8] for at in old]
    assert assembled(new) is None


def test_offsets_that_outgrow_32_bits_get_64(tmp_path: Path) -> None:
    path, size = tmp_path / "long.mp4", (1 << 32) - 100
    last = len(FTYP) + 16 + size - 8
    assert last < 1 << 32
    moov = index(table([len(FTYP) + 16, last]))
    with path.open("wb") as file:  # sparse
        file.write(FTYP + struct.pack(">I4sQ", 1, b"mdat", size + 16))
        file.seek(size, io.SEEK_CUR)
        file.write(moov)
    with path.open("rb") as file:
        parts = arranged(file, path.stat().st_size)
    assert parts is not None
    ftyp, new, mdat = parts
    assert (ftyp, mdat) == ((0, len(FTYP)), (len(FTYP), size + 16))
    assert isinstance(new, bytes)
    assert b"stco" not in new
    assert len(new) == len(moov) + 2 * 4
    assert offsets(new) == [len(FTYP) + 16 + len(new), last + len(new)]


@pytest.mark.parametrize(
    "data",
    [
        FTYP + index(table([400])) + box(b"mdat", WORDS),
        FTYP + box(b"mdat", WORDS) + index(table([30]), more=box(b"saio", bytes(12))),
        FTYP + box(b"moof") + box(b"mdat", WORDS) + index(table([30])),
        FTYP + box(b"mdat", WORDS) + box(b"moov", box(b"mvex")),
        FTYP + box(b"mdat", WORDS) + index(table([1 << 20])),
        FTYP + box(b"mdat", WORDS) + index(table([30])) * 2,
    ],
    ids=["first already", "encrypted", "fragments", "fragments to come", "an offset beyond the end", "two indexes"],
)
def test_what_need_not_or_cannot_be_moved_stays_as_it_is(data: bytes) -> None:
    assert assembled(data) is None
    assert assembled(data, mark=MARKS["mp4"]) == data + MARKS["mp4"]
    assert assembled(data + MARKS["mp4"], mark=MARKS["mp4"]) is None


@pytest.mark.parametrize("flags", ["use_metadata_tags", "use_metadata_tags+faststart", "frag_keyframe+empty_moov"])
@pytest.mark.parametrize("mark", [False, True])
def test_a_video_plays_from_its_start_and_has_the_same_frames(tmp_path: Path, flags: str, mark: bool) -> None:
    path = tmp_path / "out.mp4"
    write_video(path, codec="h264", flags=flags)
    with av.open(path) as container:
        times = [(packet.pts, packet.dts, packet.size) for packet in container.demux(video=0)]
    frames = decoded(path)
    for _ in range(2):  # an upload that failed
        media = finish(path, format="mp4", quality=None, mark=mark)
        data = path.read_bytes()
        assert media.size == len(data)
        assert data.index(b"moov") < data.index(b"mdat")
        assert data.count(MARKS["mp4"]) == mark
        assert decoded(path) == frames
        with av.open(path) as container:
            assert [(packet.pts, packet.dts, packet.size) for packet in container.demux(video=0)] == times
    finish(path, format="mp4", quality=None)
    assert b"trainedAlgorithmicMedia" not in path.read_bytes()


def test_a_video_with_sound_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    samples = (np.sin(np.arange(44_100) / 20) * 8000).astype(np.int16)
    with av.open(path, mode="w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    def sound() -> bytes:
        with av.open(path) as container:
            return b"".join(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))

    heard = sound()
    finish(path, format="mp4", quality=None, mark=True)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert sound() == heard
