"""ComfyUI's output files, made ready for upload.

Promises: the file has the format that the workflow promises, judged by its content and not by its name, without the
prompt and the workflow that ComfyUI embeds, and at most with the mark of `miner.media.mark`; unless the format changes,
nothing is encoded again. After a crash in the
middle it can be repeated.

Never: holds a video in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from miner.media.decoders import shared
from miner.media.decoding import Refused, Request, Watch
from miner.media.mark import MARKS
from miner.media.mp4 import Inconsistent, Part, arranged, metadata
from miner.media.webp import webp_pieces, webp_with_head
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
    mark: bool = False,
    watch: Watch = lambda: None,
) -> Media:
    """The file to upload: at `path`, or beside it if a PNG becomes a JPEG. Blocks on the disk.

    `quality` is JPEG's, 1 to 100; `max_pixels` bounds a picture that has to be decoded. `mark`: it says that a model
    made it (not in WebM). Repeating it is harmless.
    Raises MachineFault: the node wrote another format, a broken file or too large a picture, or the disk is full; and
    what `watch` raises while it decodes.
    """
    wanted = {"jpeg": "jpg"}.get(format, format)
    try:
        with path.open("rb") as file:
            found = _format_of(file.read(64))
        told = MARKS.get(wanted, b"") if mark else b""
        if found == "png" and wanted == "jpg":
            path = _to_jpeg(path, quality or JPEG_QUALITY, max_pixels, watch)
            if told:
                _rewrite(path, wanted, told)
        elif found != wanted:
            raise MachineFault(f"ComfyUI wrote {found or 'an unknown format'}, but the workflow promises {wanted}")
        elif found in _REWRITTEN:
            _rewrite(path, found, told)
        elif found == "mp4":
            _blank(path, lambda file, size: metadata(file, size, mark=told))
            _arrange(path, told)
        else:
            _blank(path, _webm_metadata)
        return Media(path=path, content_type=_TYPES[wanted], size=path.stat().st_size)
    except (
        _Broken,
        Inconsistent,
        struct.error,
        IndexError,
        RecursionError,
    ) as error:  # RecursionError: boxes in boxes in boxes
        raise MachineFault(f"ComfyUI wrote a broken {found} file: {error}") from error
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


def _to_jpeg(path: Path, quality: int, max_pixels: int, watch: Watch) -> Path:
    pixels = _judge_size(path, max_pixels)
    target = path.with_suffix(".jpg")
    part = target.with_suffix(".part")
    try:
        with path.open("rb") as source, part.open("wb") as sink:
            request = Request(
                do="jpeg",
                options={"quality": quality, "max_pixels": pixels},
                body=iter(lambda: source.read(_COPY), b""),
                size=path.stat().st_size,
                most=4 * pixels + _COPY,
                pixels=pixels,
                sink=sink.write,
            )
            shared.decode(request, watch=watch)
        part.replace(target)
    except Refused as refused:
        raise _Broken(str(refused)) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _judge_size(path: Path, max_pixels: int) -> int:
    """Its pixels."""
    width: int
    height: int
    with path.open("rb") as file:
        width, height = struct.unpack(">16xII", file.read(24))  # IHDR is the first chunk
    if width * height > max_pixels or max(width, height) > _MAX_JPEG_SIDE:
        raise MachineFault(
            f"ComfyUI wrote a picture of {width}x{height} pixels; at most {max_pixels} are converted to JPEG, and "
            f"{_MAX_JPEG_SIDE} per side",
            hint="Raise output.max_pixels in its workflow.toml, or render smaller pictures.",
        )
    return width * height


# ---- pictures: a new file without the dropped pieces ----------------------------------------------------------------


def _rewrite(path: Path, kind: str, mark: bytes) -> None:
    """Replace the file by one with the pieces to keep and the mark, unless it is that already."""
    with path.open("rb") as source:
        pieces = list(_REWRITTEN[kind](source, path.stat().st_size))
        if not mark and all(stays for _, _, stays in pieces):
            return
        parts: list[Part] = [(offset, length) for offset, length, stays in pieces if stays]
        if mark:
            parts.insert(_place_of_mark(source, kind, parts), mark)
        if kind == "webp":
            parts = webp_with_head(source, parts, marked=bool(mark))
        _replace(path, source, parts)


def _place_of_mark(source: IO[bytes], kind: str, parts: list[Part]) -> int:
    """PNG: behind IHDR. JPEG: behind the start and JFIF's segment, which has to come first. WebP: at the end."""
    if kind == "webp":
        return len(parts)
    second = parts[1]
    source.seek(second[0] if isinstance(second, tuple) else 0)
    return 2 if kind == "png" or source.read(2) == b"\xff\xe0" else 1


def _arrange(path: Path, mark: bytes) -> None:
    """Replace a video whose index is not first, or whose mark is missing."""
    with path.open("rb") as source:
        parts = arranged(source, path.stat().st_size, mark=mark)
        if parts is not None:
            _replace(path, source, parts)


def _replace(path: Path, source: IO[bytes], parts: Iterable[Part]) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as sink:
            for one in parts:
                if isinstance(one, bytes):
                    sink.write(one)
                else:
                    _copy(source, *one, sink)
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


def _blank(path: Path, blanks: Callable[[IO[bytes], int], Iterator[Blank]]) -> None:
    with path.open("r+b") as file:
        for at, length, header in list(blanks(file, path.stat().st_size)):
            file.seek(at + len(header))
            for left in range(length - len(header), 0, -_COPY):
                file.write(bytes(min(left, _COPY)))
            file.seek(at)
            file.write(header)  # last, so that it is found again after a crash


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


_REWRITTEN = {"png": _png_pieces, "webp": webp_pieces, "jpg": _jpeg_pieces}
