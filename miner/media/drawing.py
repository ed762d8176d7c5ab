"""What the decoder's process does with a picture: decode, turn upright, draw, encode.

Sizes are judged by the header, before anything is decoded. Pillow sees only what `containers.rebuild` made of a file.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from miner.media.alpha import Alpha
from miner.media.colour import bled, flattened, to_srgb
from miner.media.containers import rebuild
from miner.media.containers.pixels import MAX_PROFILE, Pixels, Unfit, broken

MAX_SIDE = 16384  # pixels; about WebP's own limit, and past any model's
_THUMBNAIL_QUALITIES = (72, 50, 30, 10)
_LAST_ROWS = 18  # of a JPEG: without an end mark libjpeg waits with the last blocks, and two rows next to them
_ALL_OR_NOTHING = frozenset(("WEBP", "AVIF"))  # their libraries show no row of a picture that is cut off
_INVENTED = ((127, 127), (128, 128))  # the extremes of a block that libjpeg made up

# Imported to register them, so that Image.open() does not import all the others.
_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # it may start none

# What Pillow 11 to 13 raise for malformed data. SyntaxError means a broken header; the other builtin errors escape from
# its parsers and codecs.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,  # UnicodeError too
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    BufferError,
    RuntimeError,  # NotImplementedError and RecursionError too
    SystemError,
    struct.error,
    zlib.error,
)

# EXIF's orientation (TIFF 6.0, tag 274), and how to turn such a picture upright.
_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Answer = tuple[dict[str, Any], bytes]


def clean(data: bytes, *, max_pixels: int, alpha: Alpha = "flat") -> Answer:
    """A PNG (sRGB, 8 bits) of the upright first frame; `size` in pixels. Raises Unfit."""
    picture = decode(data, max_pixels=max_pixels, max_side=MAX_SIDE)
    if alpha == "flat":
        picture = flattened(picture)
    elif alpha == "bled" and picture.mode == "RGBA":
        picture = bled(picture)
    return {"size": picture.size}, _encoded(picture, "PNG", compress_level=1)


def to_jpeg(data: bytes, *, quality: int, max_pixels: int) -> Answer:
    """A JPEG of a PNG. Raises Unfit."""
    picture = flattened(decode(data, max_pixels=max_pixels, max_side=max_pixels))
    return {}, _encoded(picture, "JPEG", quality=quality)


def thumbnail(data: bytes, *, max_pixels: int, side: int, most: int) -> Answer:
    """About `most` bytes of WebP with `side` pixels a side at most, and the `size` of the original. Raises Unfit."""
    pixels = rebuild(data)
    try:
        with Image.open(io.BytesIO(pixels.data), formats=(pixels.kind,)) as picture:
            size = picture.size
            _judge_size(size, max_pixels=max_pixels, max_side=max_pixels)
            picture.thumbnail((side, side))
            small = flattened(_shown(picture.copy(), pixels))  # to save a file itself, Pillow imports more
    except BROKEN:
        raise broken(pixels.kind) from None
    out = b""
    for quality in _THUMBNAIL_QUALITIES:
        out = _encoded(small, "WEBP", quality=quality, method=1)  # 4 saves 4 % of the bytes, for 3 ms
        if len(out) <= most:
            break
    return {"size": size}, out


def decode(data: bytes, *, max_pixels: int, max_side: int) -> Image.Image:
    """The upright picture in sRGB, RGB or RGBA. Raises Unfit."""
    pixels = rebuild(data)
    try:
        with Image.open(io.BytesIO(pixels.data), formats=(pixels.kind,)) as opened:
            _judge_size(opened.size, max_pixels=max_pixels, max_side=max_side)
            _load(opened, pixels)
            if pixels.kind == "BMP" and opened.mode == "RGBA" and opened.getchannel("A").getextrema() == (0, 0):
                opened.putalpha(255)  # its writer left the fourth byte alone
            orientation = opened.getexif().get(_ORIENTATION, 1) if pixels.kind == "AVIF" else pixels.orientation
            upright = _UPRIGHT.get(orientation)
            shown = _shown(opened, pixels)
            if upright is not None:
                return shown.transpose(upright)
            return shown.copy() if shown is opened else shown
    except BROKEN:
        if pixels.cut and pixels.kind in _ALL_OR_NOTHING:
            raise Unfit("the picture is cut off") from None
        raise broken(pixels.kind) from None


def _shown(picture: Image.Image, pixels: Pixels) -> Image.Image:
    """In sRGB. Raises Unfit."""
    if picture.mode == "F":
        raise Unfit("its pixels are floating-point numbers")
    icc = picture.info.get("icc_profile", b"")[: MAX_PROFILE + 1] if pixels.kind == "AVIF" else pixels.icc
    return to_srgb(picture, icc, cicp=pixels.cicp, srgb=pixels.srgb, gamma=pixels.gamma, chrm=pixels.chrm)


def warm_up() -> None:
    """Import and prepare all that decoding needs: later, no file can be opened."""
    logging.disable()  # remarks on untrusted files
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # sizes are judged here
    Image.new("LAB", (8, 8)).convert("RGB")  # imports ImageCms
    tiny = Image.new("RGBA", (8, 8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):  # AVIF imports nothing late, and would take 3 MB
        try:
            data = _encoded(tiny.convert("RGB") if kind == "JPEG" else tiny, kind)
            bled(to_srgb(flattened(decode(data, max_pixels=64, max_side=8)), gamma=50_000).convert("RGBA"))
        except (KeyError, OSError, Unfit):  # a Pillow without that format
            continue


def _judge_size(size: tuple[int, int], *, max_pixels: int, max_side: int) -> None:
    width, height = size
    if max(width, height) > max_side:
        raise Unfit(f"it has {width}x{height} pixels; at most {max_side} a side")
    if width * height > max_pixels:
        side = int(max_pixels**0.5)
        large, most = _megapixels(width * height), _megapixels(max_pixels)
        raise Unfit(f"it has {width}x{height} pixels, {large}; at most {most} ({side}x{side})")


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.1f} MP" if pixels >= 50_000 else f"{pixels} pixels"


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


# ---- rows that are missing ------------------------------------------------------------------------------------------


def _load(opened: ImageFile.ImageFile, pixels: Pixels) -> None:
    """Decode. Raises Unfit if rows are missing; a missing end mark alone is no fault."""
    height = opened.height
    if pixels.missing:
        raise _cut(pixels.missing, height)
    try:
        if pixels.kind == "JPEG" and pixels.cut:
            missing = _missing_rows(pixels.data[:-2], pixels.kind)  # an end mark makes libjpeg invent the rest
            opened.load()
            if missing > _LAST_ROWS or _ends_invented(opened):
                raise _cut(missing, height)
        opened.load()
    except BROKEN:
        if pixels.cut and pixels.kind not in _ALL_OR_NOTHING:
            missing = _missing_rows(pixels.data, pixels.kind)
            if missing:
                raise _cut(missing, height) from None
        raise


def _ends_invented(picture: Image.Image) -> bool:
    """Whether the last block of a JPEG holds no information."""
    width, height = picture.size
    block = picture.crop(((width - 1) // 8 * 8, (height - 1) // 8 * 8, width, height))
    return all(band.getextrema() in _INVENTED for band in block.split())


def _cut(missing: int, height: int) -> Unfit:
    return Unfit(f"the picture is cut off: {missing} of {height} rows are missing")


def _missing_rows(data: bytes, kind: str) -> int:
    """Rows that decoding leaves as they were: it is tried on black and on white."""
    first, second = (_rows(data, kind, fill) for fill in (0, 255))
    return sum(one != other for one, other in zip(first, second, strict=True))


def _rows(data: bytes, kind: str, fill: int) -> list[bytes]:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            if kind == "JPEG":
                picture.load_read = io.BytesIO(data).read  # type: ignore[attr-defined]  # Pillow's own adds an end mark
            picture.load_prepare()
            bands = len(picture.getbands())
            picture.im.paste(fill if bands == 1 else (fill,) * bands, (0, 0, *picture.size))
            picture.load()
            raw = picture.tobytes()
            length = len(raw) // picture.height
            return [raw[start : start + length] for start in range(0, length * picture.height, length)]
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
