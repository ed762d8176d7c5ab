"""Colors and transparent parts as a picture's maker saw them; what other programs show is the reference."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from miner.media.alpha import Alpha, has_alpha
from miner.media.colour import bled, flattened, to_srgb
from miner.media.pictures import clean_image
from tests.support.transparent import cut_out, encoded
from tests.unit.media.delta_e import delta_e
from tests.unit.media.profiles import DISPLAY_P3, PROFILES, SRGB, SRGB_CURVE, parametric, profile, rgb, xyz

RGB = [(red, green, blue) for red in (0, 128, 255) for green in (0, 128, 255) for blue in (0, 128, 255)]
GRAY = [0, 4, 32, 100, 128, 200, 255]
CMYK = [
    *((c, m, y, k) for c in (0, 255) for m in (0, 128, 255) for y in (0, 255) for k in (0, 100)),
    (0, 0, 0, 255), (10, 20, 30, 40), (60, 60, 60, 0),
]  # fmt: skip
APPLE_RGB = struct.pack(">8I", 31270, 32900, 62500, 34000, 28000, 59500, 15500, 7000)
CHUNKS: dict[str, dict[str, Any]] = {
    "cICP P3": {"cicp": bytes((12, 13, 0, 1))},
    "cICP BT.2020": {"cicp": bytes((9, 13, 0, 1))},
    "gAMA 1.0": {"gamma": 100_000},
    "gAMA 1.8, cHRM of Apple RGB": {"gamma": 55_556, "chrm": APPLE_RGB},
}

# What Chromium 156 shows of the colors above (skcms), and ImageMagick 6.9 of those in CMYK, as sRGB.
SHOWN = {
    "Display P3, version 4":
    "0000000000860000ff0082000082810082ff00ff0000ff6f00ffff8d00008d00858d00ff8080008080808080ff38ff0038ff6d38ffff"
    "ff0000ff0080ff00ffff7700ff777cff77ffffff00ffff68ffffff",
    "Display P3, version 2":
    "0000000000870000ff0083000083820083ff00ff0000ff7000ffff8e00008e00868e00ff8181008181818181ff3bff003bff6f3bffff"
    "ff0000ff0082ff00ffff7800ff787dff78ffffff00ffff6affffff",
    "Adobe RGB, version 2":
    "0000000000840000ff0081000081810081ff00ff0000ff7700ffff9600009600849600ff8181008181818181ff00ff0000ff7700ffff"
    "ff0000ff0084ff00ffff8100ff8181ff81ffffff00ffff77ffffff",
    "Adobe RGB, version 4":
    "0000000000840000ff0081000081810081ff00ff0000ff7700ffff9600009600849600ff8181008181818181ff00ff0000ff7700ffff"
    "ff0000ff0084ff00ffff8100ff8181ff81ffffff00ffff77ffffff",
    "gray 1.8": "0000000202022b2b2b777777929292d2d2d2ffffff",
    "CMYK":
    "fffeff929292ffdf1e95811ff49fba8d5e6cf088008c5100da287a7f2249d400007e17000096d100597942842a2b4f1e2563ab203c64"
    "64560e3d350f562a87361d516d1d00441700000000cdc1b8d2b8ad",
    "cICP P3":
    "0000000000860000ff0082000082810082ff00ff0000ff6f00ffff8d00008d00858d00ff8080008080808080ff38ff0038ff6d38ffff"
    "ff0000ff0080ff00ffff7700ff777cff77ffffff00ffff68ffffff",
    "cICP BT.2020":
    "0000000000870000ff0088000087810085ff00ff0000ff6900ffffa100009e00869200ff8480008080806f7eff00ff0000ff6700ffff"
    "ff0000ff0082ff00ffff6100ff607cff5effffff00ffff62ffffff",
    "gAMA 1.0":
    "0000000000bc0000ff00bc0000bcbc00bcff00ff0000ffbc00ffffbc0000bc00bcbc00ffbcbc00bcbcbcbcbcffbcff00bcffbcbcffff"
    "ff0000ff00bcff00ffffbc00ffbcbcffbcffffff00ffffbcffffff",
    "gAMA 1.8, cHRM of Apple RGB":
    "000000090f901922fb0090170091920093fc00fa3000fb9700fcff971402981c90992afc9291189292929495fc84fb3185fc9786fdff"
    "ff2b06ff2f91ff38fcff951aff9693ff99fdfefd32fefe97ffffff",
}  # fmt: skip


def colors(name: str) -> Image.Image:
    if name == "CMYK":
        picture = Image.new("CMYK", (len(CMYK), 1))
        picture.putdata(CMYK)
    elif name.startswith("gray"):
        picture = Image.frombytes("L", (len(GRAY), 1), bytes(GRAY))
    else:
        picture = Image.new("RGB", (len(RGB), 1))
        picture.putdata(RGB)
    return picture


def array(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB"))


def shown(name: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytes.fromhex(SHOWN[name]), np.uint8).reshape(1, -1, 3)


@pytest.mark.parametrize("name", SHOWN)
def test_colors_are_those_that_other_programs_show(name: str) -> None:
    ours = to_srgb(colors(name), PROFILES.get(name), **CHUNKS.get(name, {}))
    assert ours.mode == "RGB"
    assert delta_e(array(ours), shown(name)).max() < 1


def png(picture: Image.Image, *chunks: tuple[bytes, bytes]) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    data = out.getvalue()
    more = b"".join(
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:33] + more + data[33:]


def cleaned(data: bytes, alpha: Alpha = "flat") -> Image.Image:
    result, size = clean_image(data, max_pixels=1 << 20, alpha=alpha)
    picture = Image.open(io.BytesIO(result))
    assert picture.size == size
    assert picture.mode == ("RGBA" if has_alpha(result) else "RGB")
    assert picture.info == {}
    return picture


P3 = "Display P3, version 4"
FILES = {
    "PNG": lambda picture, icc: encoded(picture, "PNG", icc_profile=icc),
    "JPEG": lambda picture, icc: encoded(picture, "JPEG", quality=100, subsampling=0, icc_profile=icc),
    "WEBP": lambda picture, icc: encoded(picture, "WEBP", lossless=True, icc_profile=icc),
    "TIFF": lambda picture, icc: encoded(picture, "TIFF", compression="tiff_lzw", icc_profile=icc),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_profile_of_a_file_counts(kind: str) -> None:
    blocks = colors(P3).resize((len(RGB) * 8, 8), Image.Resampling.NEAREST)
    ours = cleaned(FILES[kind](blocks, PROFILES[P3]))
    assert delta_e(array(ours)[:, 4::8][:1], shown(P3)).max() < (2 if kind == "JPEG" else 1)


@pytest.mark.parametrize("name", CHUNKS)
def test_the_chunks_of_a_png_count(name: str) -> None:
    what = CHUNKS[name]
    chunks = [(b"cICP", what["cicp"])] if "cicp" in what else [(b"gAMA", struct.pack(">I", what["gamma"]))]
    chunks += [(b"cHRM", what["chrm"])] if "chrm" in what else []
    assert delta_e(array(cleaned(png(colors(name), *chunks))), shown(name)).max() < 1


def test_cicp_counts_before_a_profile_and_a_profile_before_the_rest() -> None:
    picture, adobe = colors("RGB"), PROFILES["Adobe RGB, version 2"]
    assert to_srgb(picture, adobe, cicp=bytes((12, 13, 0, 1))).tobytes() == to_srgb(picture, PROFILES[P3]).tobytes()
    assert to_srgb(picture, adobe, srgb=True, gamma=100_000).tobytes() == to_srgb(picture, adobe).tobytes()
    assert to_srgb(picture, srgb=True, gamma=100_000).tobytes() == picture.tobytes()


@pytest.mark.parametrize("icc", [rgb(SRGB, parametric(SRGB_CURVE), version=version) for version in (2, 4)])
def test_srgb_by_another_name_changes_no_pixel(icc: bytes) -> None:
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    assert to_srgb(picture, icc).tobytes() == picture.tobytes()


NO_PROFILE = {
    "nothing": b"",
    "a few bytes": b"abc",
    "zeros": bytes(500),
    "another color space": PROFILES["CMYK"],
    "gray": PROFILES["gray 1.8"],
    "a head alone": PROFILES[P3][:132],
    "a cut one": PROFILES[P3][:200],
    "a link of two devices": PROFILES[P3][:12] + b"link" + PROFILES[P3][16:],
    "named colors": PROFILES[P3][:12] + b"nmcl" + PROFILES[P3][16:],
    "more tags than there can be": PROFILES[P3][:128] + b"\xff\xff\xff\xff" + PROFILES[P3][132:],
    "not a profile": PROFILES[P3][:36] + b"asdf" + PROFILES[P3][40:],
}
NO_CHUNK: list[dict[str, Any]] = [
    {"cicp": bytes((9, 16, 0, 1))},
    {"cicp": bytes((2, 2, 0, 1))},
    {"cicp": bytes((12, 13, 0, 0))},
    {"cicp": b"\x0c\x0d"},
    {"gamma": 0},
    {"gamma": 1},
    {"gamma": (1 << 32) - 1},
    {"gamma": 100_000, "chrm": bytes(32)},
    {"gamma": 100_000, "chrm": struct.pack(">8I", *[33333] * 8)},
    {"gamma": 100_000, "chrm": b"\xff" * 32},
    {"chrm": APPLE_RGB},
]


@pytest.mark.parametrize("name", NO_PROFILE)
def test_a_profile_of_no_use_is_as_none(name: str) -> None:
    picture = colors("RGB")
    assert to_srgb(picture, NO_PROFILE[name]).tobytes() == picture.tobytes()
    assert cleaned(encoded(picture, "PNG", icc_profile=NO_PROFILE[name])).tobytes() == picture.tobytes()


@pytest.mark.parametrize("what", NO_CHUNK, ids=str)
def test_chunks_of_no_use_are_as_none(what: dict[str, Any]) -> None:
    picture = colors("RGB")
    assert to_srgb(picture, **what).tobytes() == picture.tobytes()


def program(steps: int) -> bytes:
    """A profile whose colors go through so many matrices."""
    step = struct.pack(">4s4xHH12f", b"matf", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    first = 16 + 8 * steps
    places = b"".join(struct.pack(">II", first + len(step) * number, len(step)) for number in range(steps))
    chain = struct.pack(">4s4xHHI", b"mpet", 3, 3, steps) + places + step * steps
    columns = dict(zip(("rXYZ", "gXYZ", "bXYZ"), map(xyz, DISPLAY_P3), strict=True))
    trc = dict.fromkeys(("rTRC", "gTRC", "bTRC"), parametric(SRGB_CURVE))
    return profile(space=b"RGB ", pcs=b"XYZ ", version=4, D2B0=chain, D2B1=chain, **columns, **trc)


def test_a_profile_cannot_run_a_long_program() -> None:
    icc = program(20_000)
    assert len(icc) < 4 << 20
    started = time.process_time()
    ours = to_srgb(colors(P3), icc)
    assert time.process_time() - started < 2
    assert delta_e(array(ours), shown(P3)).max() < 1


@pytest.mark.parametrize("name", PROFILES)
def test_no_broken_profile_breaks_a_picture(name: str) -> None:
    dice = random.Random(name)
    for _ in range(300):
        icc = bytearray(PROFILES[name])
        for _ in range(dice.choice((1, 3, 30))):
            icc[dice.randrange(len(icc))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        result = to_srgb(colors(name), bytes(icc[: dice.choice((len(icc), dice.randrange(len(icc))))]))
        assert result.mode == "RGB"


# ---- transparent parts ----------------------------------------------------------------------------------------------


TRANSPARENT = {
    "PNG": lambda: encoded(cut_out(), "PNG"),
    "WEBP": lambda: encoded(cut_out(), "WEBP", lossless=True, exact=True),
    "TIFF": lambda: encoded(cut_out(), "TIFF"),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_alpha_is_kept_with_what_is_under_it_where_it_is_asked_for(kind: str) -> None:
    assert cleaned(TRANSPARENT[kind](), "kept").tobytes() == cut_out().tobytes()


def test_alpha_becomes_white_elsewhere() -> None:
    flat = cleaned(encoded(cut_out(), "PNG"))
    assert (flat.mode, flat.getpixel((0, 0)), flat.getpixel((32, 32))) == ("RGB", (255, 255, 255), (220, 0, 0))


@pytest.mark.parametrize("alpha", ["flat", "kept", "bled"])
def test_a_picture_without_transparent_parts_stays_rgb(alpha: Alpha) -> None:
    opaque = cut_out()
    opaque.putalpha(255)
    for data in (encoded(opaque, "PNG"), encoded(opaque.convert("RGB"), "PNG"), encoded(opaque.convert("L"), "PNG")):
        assert cleaned(data, alpha).mode == "RGB"


def test_a_profile_changes_colors_and_no_alpha() -> None:
    picture = colors(P3)
    picture.putalpha(Image.frombytes("L", picture.size, bytes(range(1, 28))))
    ours = cleaned(encoded(picture, "PNG", icc_profile=PROFILES[P3]), "kept")
    assert ours.getchannel("A").tobytes() == bytes(range(1, 28))
    assert delta_e(array(ours), shown(P3)).max() < 1


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_alpha_of_every_kind_is_kept(mode: str) -> None:
    if mode == "LA":
        picture = Image.merge("LA", (Image.linear_gradient("L"), Image.radial_gradient("L")))
        data = encoded(picture, "PNG", icc_profile=PROFILES["gray 1.8"])
        assert cleaned(data, "kept").getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    else:
        data = encoded(cut_out().convert("RGB").quantize(8), "PNG", transparency=0)
        assert cleaned(data, "kept").getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("filter_", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX])
@pytest.mark.parametrize("size", [64, 61, 5])
def test_nothing_hidden_shows_when_a_bled_picture_is_enlarged(filter_: Image.Resampling, size: int) -> None:
    picture = bled(cut_out(size))
    large = [band.resize((size * 4, size * 4), filter_) for band in picture.split()]
    for ground in ((255, 255, 255), (0, 0, 0), (0, 0, 255)):
        shown = Image.new("RGB", (size * 4, size * 4), ground)
        shown.paste(Image.merge("RGB", large[:3]), mask=large[3])
        green = array(shown)[..., 1].astype(int)
        assert green.max() <= ground[1] + 4  # the disc is red, so that green is the ground's at most


def test_what_is_visible_keeps_its_color_and_its_alpha() -> None:
    picture = cut_out()
    after = bled(picture)
    assert after.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    visible = picture.getchannel("A").point(lambda alpha: 255 if alpha >= 32 else 0)
    difference = ImageChops.difference(after.convert("RGB"), picture.convert("RGB"))
    assert not Image.composite(difference, Image.new("RGB", picture.size), visible).getbbox()
    assert flattened(after).getpixel((32, 32)) == (220, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (300, 1), (3, 5)])
@pytest.mark.parametrize("alpha", [0, 1, 254])
def test_a_picture_of_any_size_is_bled(size: tuple[int, int], alpha: int) -> None:
    picture = Image.new("RGBA", size, (10, 200, 30, alpha))
    assert bled(picture).getchannel("A").getextrema() == (alpha, alpha)
