"""What a picture's numbers mean: its colors in sRGB, and what is under its transparent parts.

Promises: one rendering for each picture, as a browser's: an ICC profile of the picture's own kind (RGB, gray, CMYK,
Lab), else PNG's cICP, or gAMA with cHRM. A profile that is broken, of another kind, or sRGB anyway changes no pixel.

Never: opens a file. Runs in the decoder's process, on bytes that a stranger chose: littlecms parses the profile.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

from PIL import Image, ImageCms

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
_KINDS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode → the profile's color space
_CLASSES = frozenset({"mntr", "scnr", "prtr", "spac"})  # of a device or a space; not a link, an effect, named colors
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError, OverflowError)
_INTENT = ImageCms.Intent.PERCEPTUAL
_MOST_TAGS = 100  # as in littlecms
_SAME = 2  # of 255: variants of sRGB differ by rounding

# x and y of white, red, green and blue (ITU-T H.273, by number), and the exponent or the segments of the curve.
_D65 = (0.3127, 0.329)
_BT709 = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_PRIMARIES = {
    1: _BT709,
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES = {  # viewers show video's curves, made for dim rooms, as sRGB's; PQ and HLG need a tone map: left alone
    **dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
_SRGB_GAMMA = range(44_000, 47_001)  # what writers of sRGB put into gAMA
_GAMMAS = range(20_000, 500_001)

Matrix = Sequence[Sequence[float]]
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))


def to_srgb(
    picture: Image.Image,
    icc: bytes | None = None,
    *,
    cicp: bytes = b"",
    srgb: bool = False,
    gamma: int = 0,
    chrm: bytes = b"",
) -> Image.Image:
    """The picture in sRGB: RGBA if it has transparent parts, else RGB, both with 8 bits and without Pillow's `info`.

    `cicp` (4 bytes), `srgb`, `gamma` (times 100,000) and `chrm` (32 bytes) are PNG's; cICP counts before ICC, and ICC
    before the others. It may be `picture` itself. Modes of 16 bits are scaled. Raises ValueError for floating-point
    pixels.
    """
    base, alpha = _parts(_eight_bits(picture))
    profile = _coded(cicp) or icc or (b"" if srgb else _measured(gamma, chrm))
    shown = _converted(base, profile)
    if alpha is not None and alpha.getextrema()[0] != 255:
        shown.putalpha(alpha)
    shown.info.clear()
    return shown


def flattened(picture: Image.Image, color: str = "white") -> Image.Image:
    """The picture of `to_srgb` in RGB, on a color."""
    if picture.mode == "RGB":
        return picture
    flat = Image.new("RGB", picture.size, color)
    flat.paste(picture, mask=picture)
    return flat


def bled(picture: Image.Image) -> Image.Image:
    """An RGBA picture whose transparent parts have the colors of the visible ones around them.

    A filter that enlarges it then mixes no hidden color into the edge. What is visible keeps its color.
    """
    levels = [picture.convert("RGBa")]
    while max(levels[-1].size) > 1:
        levels.append(levels[-1].reduce(2))
    under = levels.pop().convert("RGBA").convert("RGB")
    for level in reversed(levels):
        colors = picture if level is levels[0] else level.convert("RGBA")
        weight = colors.getchannel("A").point(lambda alpha: min(8 * alpha, 255))
        under = Image.composite(colors.convert("RGB"), under.resize(level.size, Image.Resampling.BILINEAR), weight)
    under.putalpha(picture.getchannel("A"))
    return under


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("floating-point pixels")
    if not picture.mode.startswith("I"):
        return picture
    scaled = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")  # Pillow would clip at 255
    scaled.info.clear()  # its transparent color is one of 16 bits
    return scaled


def _parts(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors in a mode that has profiles, and the alpha channel."""
    if picture.has_transparency_data:
        whole = picture.convert("RGBA")
        gray = picture.mode in ("1", "L", "LA", "La")
        return whole.getchannel("R") if gray else whole.convert("RGB"), whole.getchannel("A")
    if picture.mode in _KINDS:
        return picture, None
    return picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB"), None


def _converted(base: Image.Image, profile: bytes) -> Image.Image:
    if base.mode == "L" and profile and _space(profile) == "RGB":
        base = base.convert("RGB")
    try:
        transform = _transform(base.mode, profile)
        if transform is not None and base.mode == "L":
            return _in_levels(base, transform)
        if transform is not None and not (base.mode == "RGB" and _is_idle(transform)):
            return ImageCms.applyTransform(base, transform) or base
    except _BROKEN:
        pass
    if base.mode == "LAB":
        return ImageCms.applyTransform(base, ImageCms.buildTransform(_LAB, _SRGB, "LAB", "RGB")) or base
    return base if base.mode == "RGB" else base.convert("RGB")


def _space(profile: bytes) -> str:
    return profile[16:20].decode("latin-1").strip()


def _transform(mode: str, profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None for a profile of another kind."""
    if len(profile) < 132 or _space(profile) != _KINDS[mode] or profile[12:16].decode("latin-1") not in _CLASSES:
        return None
    source = ImageCms.ImageCmsProfile(io.BytesIO(_without_programs(profile)))
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE  # which interpolates dark grays
    return ImageCms.buildTransform(source, _SRGB, mode, "RGB", renderingIntent=_INTENT, flags=flags)


def _without_programs(profile: bytes) -> bytes:
    """The profile with nothing under the names D2Bx: their chains of calculations have no bound (ICC.1:2010, 10.14).

    Every profile has tables or a matrix, too. Raises ValueError for one with too many tags.
    """
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MOST_TAGS:
        raise ValueError("too many tags")
    tamed = bytearray(profile)
    for number, at in enumerate(range(132, min(132 + 12 * count, len(profile) - 4), 12)):
        if tamed[at : at + 3] == b"D2B":
            tamed[at : at + 4] = b"no%02d" % number
    return bytes(tamed)


def _in_levels(gray: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """The gray picture, each of whose 256 levels is transformed once."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    shown = ImageCms.applyTransform(ramp, transform) or ramp
    return Image.merge("RGB", [gray.point(band.tobytes()) for band in shown.split()])


def _is_idle(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether it changes no RGB color that is seen, tried on a few."""
    steps = range(0, 256, 51)
    colors = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
    probe = Image.frombytes("RGB", (len(colors) // 3, 1), colors)
    shown = ImageCms.applyTransform(probe, transform) or probe
    return all(abs(one - other) <= _SAME for one, other in zip(shown.tobytes(), colors, strict=True))


# ---- PNG's own description of colors, as an ICC profile -------------------------------------------------------------


def _coded(cicp: bytes) -> bytes:
    """For cICP (H.273): primaries, transfer, and full range in RGB; empty for what is not known."""
    if len(cicp) != 4 or cicp[2:] != b"\0\1" or cicp[0] not in _PRIMARIES or cicp[1] not in _CURVES:
        return b""
    return _profile(_PRIMARIES[cicp[0]], _CURVES[cicp[1]])


def _measured(gamma: int, chrm: bytes) -> bytes:
    """For gAMA, with or without cHRM; empty for what makes no sense."""
    if gamma not in _GAMMAS:
        return b""
    curve = _SRGB_CURVE if gamma in _SRGB_GAMMA else (100_000 / gamma,)
    primaries = tuple(value / 100_000 for value in struct.unpack(">8I", chrm)) if len(chrm) == 32 else _BT709
    return _profile(primaries, curve)


def _profile(primaries: Sequence[float], curve: Sequence[float]) -> bytes:
    """A matrix profile (ICC.1:2010); empty if the primaries span no colors."""
    try:
        columns = list(zip(*_to_d50(primaries), strict=True))
    except ZeroDivisionError:
        return b""
    if not all(-2 < value < 4 for column in columns for value in column):
        return b""
    para = struct.pack(">4s4xHH", b"para", 3 if len(curve) == 5 else 0, 0) + _fixed(curve)
    bodies = {
        **{
            name: b"XYZ \0\0\0\0" + _fixed(column)
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        },
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), para),
    }
    table, data, start = [], b"", 132 + 12 * len(bodies)
    for name, body in bodies.items():
        table.append(struct.pack(">4sII", name, start + len(data), len(body)))
        data += body
    head = struct.pack(">I4sI4s4s4s12x4s28x", start + len(data), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += _fixed(_D50) + bytes(48)
    return head + struct.pack(">I", len(bodies)) + b"".join(table) + data


def _fixed(numbers: Sequence[float]) -> bytes:
    """s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _to_d50(primaries: Sequence[float]) -> Matrix:
    """The matrix from linear RGB to XYZ under D50. Raises ZeroDivisionError."""
    white, *colors = (_xyz(*primaries[at : at + 2]) for at in range(0, 8, 2))
    spread = list(zip(*colors, strict=True))
    scale = _times(_inverse(spread), white)
    matrix = [[value * by for value, by in zip(row, scale, strict=True)] for row in spread]
    cones = [to / of for to, of in zip(_times(_BRADFORD, _D50), _times(_BRADFORD, white), strict=True)]
    adapted = [[value * by for value in row] for row, by in zip(_BRADFORD, cones, strict=True)]
    adapt = [_times(list(zip(*adapted, strict=True)), row) for row in _inverse(_BRADFORD)]
    return [_times(list(zip(*matrix, strict=True)), row) for row in adapt]


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [sum(one * other for one, other in zip(row, vector, strict=True)) for row in matrix]


def _inverse(m: Matrix) -> list[list[float]]:
    (a, b, c), (d, e, f), (g, h, i) = m
    det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return [
        [(e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det],
        [(f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det],
        [(d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det],
    ]
