"""The mark of a generated result, read by tools that are not ours; and nothing else in the file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from miner.media.mark import TRAINED
from miner.media.outputs import finish
from tests.unit.media.test_outputs import FRAMES, SECRETS, decoded, pixels, write, write_png, write_webp


def marked(picture: Image.Image) -> object:
    """What Pillow finds in the XMP."""
    picture.load()
    root = ElementTree.fromstring(picture.info["xmp"])  # noqa: S314  # ours
    (said,) = root.iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    return said.text


def save_webp(path: Path, **options: object) -> None:
    pixels().save(path, "WEBP", exif=b"Exif\0\0secret garden", **options)


PICTURES = {
    "png": lambda path: write_png(path),
    "jpg": lambda path: pixels().save(path, "JPEG", quality=95, comment=b"secret garden"),
    "jpg of a png": lambda path: write_png(path),
    "webp, animated": lambda path: write_webp(path),
    "webp, lossless": lambda path: pixels().save(path, "WEBP", lossless=True),
    "webp, lossless with alpha": lambda path: pixels().convert("RGBA").save(path, "WEBP", lossless=True, exact=True),
    "webp, lossy": lambda path: pixels().save(path, "WEBP", quality=90),
    "webp, lossy with alpha": lambda path: alpha().save(path, "WEBP", quality=90),
    "webp, with EXIF": lambda path: save_webp(path, lossless=True),
}


def alpha() -> Image.Image:
    picture = pixels().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_has_the_mark_once_and_its_pixels(tmp_path: Path, what: str) -> None:
    kind = what[:4].strip(", ")
    path = tmp_path / f"out.{kind if what != 'jpg of a png' else 'png'}"
    PICTURES[what](path)
    with Image.open(path) as picture:
        before = picture.convert("RGBA").tobytes()
    if what == "jpg of a png":
        before = b""
    for _ in range(2):  # an upload that failed
        media = finish(path, format=kind, quality=None, mark=True)
        data = media.path.read_bytes()
        assert media.size == len(data)
        assert data.count(TRAINED.encode()) == 1
        assert not [secret for secret in SECRETS if secret in data]
        with Image.open(media.path) as picture:
            assert marked(picture) == TRAINED
            assert not before or picture.convert("RGBA").tobytes() == before
        assert said_by_exiftool(media.path) in (None, TRAINED)
    finish(media.path, format=kind, quality=None)
    assert TRAINED.encode() not in media.path.read_bytes()


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_video_has_the_mark_where_its_format_has_a_place_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    write(path, kind)
    finish(path, format=kind, quality=None, mark=True)
    assert len(decoded(path)) == FRAMES
    assert path.read_bytes().count(TRAINED.encode()) == (kind == "mp4")
    if kind == "mp4":
        assert said_by_exiftool(path) in (None, TRAINED)


def said_by_exiftool(path: Path) -> object:
    """None where it is not installed."""
    if (tool := shutil.which("exiftool")) is None:
        return None
    found = subprocess.run(
        [tool, "-j", "-n", "-validate", "-warning", "-XMP:all", path], check=True, capture_output=True
    )
    (tags,) = json.loads(found.stdout)
    assert "Warning" not in tags
    return tags.get("DigitalSourceType")
