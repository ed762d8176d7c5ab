"""ComfyUI's output files, made ready for upload.

Promises: the file has the format that the workflow promises, judged by its content and not by its name, without the
prompt and the workflow that ComfyUI embeds; unless the format changes, nothing is encoded again. After a crash in the
middle it can be repeated.

Never: holds a video in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image

from miner.media.pictures import BROKEN, alone, in_rgb
from miner.task.errors import MachineFault
from miner.task.stages import Media

JPEG_QUALITY = 92  # of 100, unless the task sets it: no visible difference, a fifth of the PNG

MAX_PIXELS = 1 << 28  # 16384 x 16384: 2.4 GB of RAM to convert
_MAX_JPEG_SIDE = 65_500  # pixels: libjpeg's limit

_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "webm": "video/webm",
}
_COPY = 1 << 20  # bytes

Piece = tuple[int, int, bool]
"""Offset and length of a piece of a file, in bytes, and whether to keep it."""

Blank = tuple[int, int, bytes]
"""Offset and length of a piece of a file, in bytes, and a header that makes readers skip it; the rest becomes zeros."""


class _Broken(Exception):
    """The file is not what its first bytes announce."""


def finish(
    path: Path,
    *,
    format: str,  # noqa: A002
    quality: int | None,
    max_pixels: int = MAX_PIXELS,
) -> Media:
    """The file to upload: at `path`, or beside it if a PNG becomes a JPEG. Blocks on the disk.

    `quality` is JPEG's, 1 to 100; `max_pixels` bounds a picture that has to be decoded. Repeating it is harmless.
    Raises MachineFault: the node wrote another format, a broken file or too large a picture, or the disk is full.
    """
    wanted = {"jpeg": "jpg"}.get(format, format)
    try:
        with path.open("rb") as file:
            found = _format_of(file.read(64))
        if found == "png" and wanted == "jpg":
            path = _to_jpeg(path, quality or JPEG_QUALITY, max_pixels)
        elif found != wanted:
            raise MachineFault(f"ComfyUI wrote {found or 'an unknown format'}, but the workflow promises {wanted}")
        elif found in _REWRITTEN:
            _rewrite(path, found)
        else:
            _blank(path, found)
        return Media(path=path, content_type=_TYPES[wanted], size=path.stat().st_size)
    except (_Broken, struct.error, IndexError, RecursionError) as error:  # RecursionError: boxes in boxes in boxes
        raise MachineFault(f"ComfyUI wrote a broken {found} file: {error}") from error
    except MemoryError as error:
        hint = "Free some RAM, or ask for smaller pictures in the workflow."
        raise MachineFault("not enough memory to convert the output", hint=hint) from error
    except OSError as error:
        hint = "Check the disk's free space and the permissions of the output folder."
        raise MachineFault(f"an output file cannot be read or written: {error.strerror or error}", hint=hint) from error


def _format_of(head: bytes) -> str:
    """Judged by magic numbers; empty if unknown."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return "mp4"
    return "webm" if head.startswith(b"\x1aE\xdf\xa3") and b"webm" in head else ""


def _to_jpeg(path: Path, quality: int, max_pixels: int) -> Path:
    _judge_size(path, max_pixels)
    target = path.with_suffix(".jpg")
    part = target.with_suffix(".part")
    try:
        with alone(max_pixels=max_pixels), Image.open(path, formats=("PNG",)) as picture:
            in_rgb(picture).save(part, "JPEG", quality=quality)
        part.replace(target)
    except BROKEN as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):  # not the file's content
            raise
        raise _Broken(f"{type(error).__name__}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _judge_size(path: Path, max_pixels: int) -> None:
    with path.open("rb") as file:
        width, height = struct.unpack(">16xII", file.read(24))  # IHDR is the first chunk
    if width * height > max_pixels or max(width, height) > _MAX_JPEG_SIDE:
        raise MachineFault(
            f"ComfyUI wrote a picture of {width}x{height} pixels; at most {max_pixels} are converted to JPEG, and "
            f"{_MAX_JPEG_SIDE} per side",
            hint="Raise output.max_pixels in its workflow.toml, or render smaller pictures.",
        )


# ---- pictures: a new file without the dropped pieces ----------------------------------------------------------------


def _rewrite(path: Path, kind: str) -> None:
    """Replace the file by one with the pieces to keep, unless all are."""
    part = path.with_suffix(".part")
    with path.open("rb") as source:
        pieces = list(_REWRITTEN[kind](source, path.stat().st_size))
        if all(stays for _, _, stays in pieces):
            return
        try:
            with part.open("wb") as sink:
                for offset, length, stays in pieces:
                    if stays:
                        _copy(source, offset, length, sink)
                if kind == "webp":
                    _mend_webp(source, sink)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _copy(source: IO[bytes], offset: int, length: int, sink: IO[bytes]) -> None:
    source.seek(offset)
    while length and (block := source.read(min(length, _COPY))):
        sink.write(block)
        length -= len(block)


_PNG_KEEPS = frozenset(
    # what the pixels mean, and an animation's frames; critical chunks start with a capital and are kept too
    (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs", b"cICP", b"acTL", b"fcTL", b"fdAT")
)


def _png_pieces(file: IO[bytes], size: int) -> Iterator[Piece]:
    """Chunks (PNG specification, 5.3). Prompt and workflow are in tEXt, zTXt or iTXt, and since 2025 in eXIf."""
    yield 0, 8, True
    at, kind = 8, b""
    while kind != b"IEND":
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if at + 12 + length > size:
            raise _Broken("it is truncated")
        yield at, 12 + length, kind[:1].isupper() or kind in _PNG_KEEPS
        at += 12 + length


def _webp_pieces(file: IO[bytes], size: int) -> Iterator[Piece]:
    """RIFF chunks. ComfyUI puts prompt and workflow into EXIF."""
    yield 0, 12, True
    at = 12
    while at < size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        length += 8 + length % 2
        if at + length > size:
            raise _Broken("it is truncated")
        yield at, length, kind not in (b"EXIF", b"XMP ")
        at += length


def _mend_webp(source: IO[bytes], sink: IO[bytes]) -> None:
    """Correct the size, and the flags for XMP and EXIF: bits 2 and 3 of VP8X, which comes first."""
    size = sink.tell()
    sink.seek(4)
    sink.write(struct.pack("<I", size - 8))
    source.seek(12)
    extended = source.read(9)
    if extended.startswith(b"VP8X"):
        sink.seek(20)
        sink.write(bytes((extended[8] & ~0x0C,)))


def _jpeg_pieces(file: IO[bytes], size: int) -> Iterator[Piece]:
    """Segments up to the first scan, then the rest. JFIF (APP0), ICC (APP2) and Adobe (APP14) are kept."""
    yield 0, 2, True
    at = 2
    while True:
        file.seek(at)
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF or at + 2 + length > size:
            raise _Broken("its segments are inconsistent")
        if kind == 0xDA:
            break
        yield at, 2 + length, kind in (0xE0, 0xE2, 0xEE) or not (0xE0 <= kind <= 0xEF or kind == 0xFE)
        at += 2 + length
    yield at, size - at, True


# ---- videos: half a gigabyte each, so pieces are blanked in place, and no offset changes


def _blank(path: Path, kind: str) -> None:
    with path.open("r+b") as file:
        for at, length, header in list(_BLANKED[kind](file, path.stat().st_size)):
            file.seek(at + len(header))
            for left in range(length - len(header), 0, -_COPY):
                file.write(bytes(min(left, _COPY)))
            file.seek(at)
            file.write(header)  # last, so that it is found again after a crash


def _mp4_metadata(file: IO[bytes], size: int) -> Iterator[Blank]:
    """Every `udta`, `meta` and `uuid` box (ISO/IEC 14496-12) becomes a `free` one; PyAV writes moov/udta/meta."""
    kinds = {kind for kind, *_ in _boxes(file, 0, size)}
    if not kinds >= {b"moov", b"mdat"}:
        raise _Broken("it has no frames or no index")
    yield from _mp4_metadata_in(file, 0, size)


def _mp4_metadata_in(file: IO[bytes], at: int, end: int) -> Iterator[Blank]:
    for kind, start, body, length in _boxes(file, at, end):
        if kind in (b"udta", b"meta", b"uuid"):
            yield start, length, struct.pack(">I4s", length, b"free")
        elif kind in (b"moov", b"trak", b"moof", b"traf"):
            yield from _mp4_metadata_in(file, body, start + length)


def _boxes(file: IO[bytes], at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Kind, offset, offset of the body, and whole length of each box from `at` to `end`."""
    while at < end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        body = at + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            body += 8
        elif length == 0:  # to the end
            length = end - at
        if at + length < body or at + length > end:
            raise _Broken("its boxes are inconsistent")
        yield kind, at, body, length
        at += length


_SEGMENT, _TAGS, _ATTACHMENTS, _VOID = b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\xec"


def _webm_metadata(file: IO[bytes], size: int) -> Iterator[Blank]:
    """Tags (where PyAV writes prompt and workflow) and attachments of the segment become Void (RFC 8794, 9559)."""
    segments = [(body, end) for kind, _, body, end in _elements(file, 0, size) if kind == _SEGMENT]
    if not segments:
        raise _Broken("it has no frames")
    for start, stop in segments:
        for kind, at, _, end in _elements(file, start, stop):
            if kind in (_TAGS, _ATTACHMENTS):
                yield at, end - at, _void(end - at)


def _void(length: int) -> bytes:
    """The header of a Void element: its size takes eight bytes where they fit, else one; the first set bit tells."""
    if length >= 9:
        return _VOID + ((1 << 56) + length - 9).to_bytes(8)
    return _VOID + (0x80 + length - 2).to_bytes(1)


def _elements(file: IO[bytes], at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Id, offset, offset of the body, and offset of the end of each EBML element from `at` to `end`."""
    while at < end:
        file.seek(at)
        head = file.read(12)
        width = 9 - head[0].bit_length()
        kind, rest = head[:width], head[width:]
        width = 9 - rest[0].bit_length()
        unknown = (1 << 7 * width) - 1
        length = int.from_bytes(rest[:width]) & unknown
        body = at + len(kind) + width
        if length == unknown or body + length > end:
            raise _Broken("it is incomplete")
        yield kind, at, body, body + length
        at = body + length


_REWRITTEN = {"png": _png_pieces, "webp": _webp_pieces, "jpg": _jpeg_pieces}
_BLANKED = {"mp4": _mp4_metadata, "webm": _webm_metadata}
