"""Files as ComfyUI's own nodes write them, metadata and all, and what is left of them."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from miner.media.outputs import finish
from miner.media.pictures import clean_image
from miner.media.thumbnail import thumbnail
from miner.task.errors import JobFault, MachineFault

PROMPT = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a secret garden"}}}
WORKFLOW = {"nodes": ["a secret garden"] * 20}
SECRETS = (b"secret garden", b"CLIPTextEncode", b"prompt", b"workflow")
FRAMES = 6


def pixels(index: int = 0) -> Image.Image:
    """A picture that compresses to something, another for each index."""
    ramp = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3) * (7 + index)
    return Image.fromarray((ramp % 251).astype(np.uint8))


def write_png(path: Path, **more: object) -> None:
    """As SaveImage does; the text as tEXt, iTXt and zTXt, and EXIF as newer versions write it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(PROMPT))
    info.add_itxt("workflow", json.dumps(WORKFLOW))
    info.add_text("parameters", json.dumps(WORKFLOW), zip=True)
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(PROMPT)}"
    pixels().save(path, pnginfo=info, compress_level=4, exif=exif, **more)


def write_webp(path: Path, *, frames: int = FRAMES) -> None:
    """As SaveAnimatedWEBP does."""
    pictures = [pixels(index) for index in range(frames)]
    exif = pictures[0].getexif()
    exif[0x0110] = f"prompt:{json.dumps(PROMPT)}"
    exif[0x010F] = f"workflow:{json.dumps(WORKFLOW)}"
    pictures[0].save(
        path,
        save_all=True,
        duration=40,
        append_images=pictures[1:],
        exif=exif,
        lossless=True,
        xmp=b"secret garden",
    )


def write_video(path: Path, *, codec: str, flags: str = "") -> None:
    """As SaveVideo (mp4, `use_metadata_tags`) and SaveWEBM do."""
    with av.open(path, mode="w", options={"movflags": flags} if flags else {}) as container:
        container.metadata["prompt"] = json.dumps(PROMPT)
        container.metadata["workflow"] = json.dumps(WORKFLOW)
        stream = container.add_stream(codec, rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.asarray(pixels(index)), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def write(path: Path, kind: str) -> None:
    """A file of this kind with all the metadata that its node writes."""
    match kind:
        case "png":
            write_png(path)
        case "jpg":
            pixels().save(path, quality=95)
        case "webp":
            write_webp(path)
        case "mp4":
            write_video(path, codec="h264", flags="use_metadata_tags")
        case "webm":
            write_video(path, codec="libvpx-vp9")


def decoded(path: Path) -> list[bytes]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def metadata(path: Path) -> dict[str, str]:
    with av.open(path) as container:
        return {**container.metadata, **container.streams.video[0].metadata}


def assert_silent(path: Path) -> None:
    data = path.read_bytes()
    assert [secret for secret in SECRETS if secret in data] == []


@pytest.mark.parametrize(
    ("kind", "codec", "flags"),
    [
        ("mp4", "h264", "use_metadata_tags"),
        ("mp4", "h264", "use_metadata_tags+faststart"),
        ("mp4", "h264", "use_metadata_tags+frag_keyframe"),
        ("webm", "libvpx-vp9", ""),
    ],
)
def test_a_video_keeps_its_frames_and_its_size_and_loses_its_prompt(
    tmp_path: Path, kind: str, codec: str, flags: str
) -> None:
    path = tmp_path / f"out_00001_.{kind}"
    write_video(path, codec=codec, flags=flags)
    assert b"secret garden" in path.read_bytes()
    frames, size = decoded(path), path.stat().st_size

    media = finish(path, format=kind, quality=None)

    assert (media.path, media.content_type, media.size) == (path, f"video/{kind}", size)
    assert path.stat().st_size == size
    assert decoded(path) == frames
    assert len(frames) == FRAMES
    assert not {"PROMPT", "WORKFLOW", "prompt", "workflow"} & set(metadata(path))
    assert_silent(path)


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_a_webp_keeps_every_frame_and_loses_exif_and_xmp(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "out.webp"
    write_webp(path, frames=frames)
    assert b"secret garden" in path.read_bytes()

    media = finish(path, format="webp", quality=80)

    assert media.content_type == "image/webp"
    data = path.read_bytes()
    assert media.size == len(data) == struct.unpack_from("<I", data, 4)[0] + 8
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == frames
        assert not {"exif", "xmp"} & set(picture.info)
        for index in range(frames):
            picture.seek(index)
            assert picture.convert("RGB").tobytes() == pixels(index).tobytes()
    assert_silent(path)


def test_a_png_keeps_its_pixels_and_loses_all_text(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_png(path, dpi=(72, 72))

    media = finish(path, format="png", quality=None)

    assert (media.path, media.content_type, media.size) == (path, "image/png", path.stat().st_size)
    with Image.open(path) as picture:
        picture.load()
        assert set(picture.info) == {"dpi"}
        assert picture.tobytes() == pixels().tobytes()
    assert_silent(path)


def test_a_png_becomes_a_jpeg_without_metadata_and_the_png_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_png(path)

    media = finish(path, format="jpg", quality=None)

    assert (media.path, media.content_type) == (tmp_path / "out.jpg", "image/jpeg")
    assert media.size == media.path.stat().st_size
    with Image.open(media.path) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (64, 48), "RGB")
    assert path.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jpg", "out.png"]
    assert_silent(media.path)


def test_the_quality_that_a_task_asks_for_shows_in_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_png(path)
    assert finish(path, format="jpg", quality=10).size < finish(path, format="jpg", quality=95).size


def test_a_transparent_png_becomes_a_jpeg_on_white(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(path)
    with Image.open(finish(path, format="jpg", quality=None).path) as picture:
        assert picture.getpixel((4, 4)) == (255, 255, 255)


def test_a_jpeg_of_a_custom_node_loses_exif_and_comment_without_being_encoded_again(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.jpg", tmp_path / "out.jpg"
    exif = Image.Exif()
    exif[0x010E] = f"workflow:{json.dumps(WORKFLOW)}"
    pixels().save(plain, quality=90)
    pixels().save(path, quality=90, exif=exif, comment=json.dumps(PROMPT).encode())

    finish(path, format="jpeg", quality=50)

    assert path.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("kind", ["png", "webp", "mp4", "webm"])
def test_finishing_twice_is_finishing_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    write(path, kind)
    first = finish(path, format=kind, quality=None)
    data = path.read_bytes()
    assert finish(path, format=kind, quality=None) == first
    assert path.read_bytes() == data


def test_a_file_without_metadata_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    pixels().save(path)
    before = path.stat()
    finish(path, format="png", quality=None)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(("written", "promised"), [("png", "webp"), ("webp", "png"), ("mp4", "webm"), ("webm", "mp4")])
def test_another_format_than_the_workflow_promises_is_this_machines_fault(
    tmp_path: Path, written: str, promised: str
) -> None:
    path = tmp_path / f"out.{written}"
    write(path, written)
    lying = path.rename(path.with_suffix(f".{promised}"))  # the name says nothing
    with pytest.raises(MachineFault, match=f"wrote {written}, but the workflow promises {promised}"):
        finish(lying, format=promised, quality=None)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "mp4", "webm"])
@pytest.mark.parametrize("left", [0, 20, 0.5])
def test_a_file_that_breaks_off_is_this_machines_fault(tmp_path: Path, kind: str, left: float) -> None:
    path = tmp_path / f"out.{kind}"
    write(path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: left if isinstance(left, int) else int(len(data) * left)])
    if kind == "jpg" and left == 0.5:
        finish(path, format=kind, quality=None)  # its header is whole, and no more is looked at
        return
    with pytest.raises(MachineFault):
        finish(path, format=kind, quality=None)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def ihdr(width: int, height: int, *, depth: int = 8, color: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)


def idat(data: bytes) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(data)


END = (b"IEND", b"")
HOSTILE = {
    "no chunks": png(),
    "an empty header": png((b"IHDR", b""), END),
    "no pixels": png(ihdr(64, 48), END),
    "pixels that are no zlib stream": png(ihdr(64, 48), (b"IDAT", b"nonsense"), END),
    "too few pixels": png(ihdr(64, 48), idat(b"x"), END),
    "no width": png(ihdr(0, 48), idat(b""), END),
    "a depth that does not exist": png(ihdr(64, 48, depth=3), idat(b""), END),
    "a color type that does not exist": png(ihdr(64, 48, color=9), idat(b""), END),
    "no palette": png(ihdr(64, 48, color=3), idat(b"\0" * 65 * 48), END),
    "a text of 100 MB": png(ihdr(64, 48), (b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20))), END),
    "a profile that is no zlib stream": png(ihdr(64, 48), (b"iCCP", b"a\0\0nonsense"), idat(b"x"), END),
    "196 megapixels": png(ihdr(14000, 14000), idat(b"x"), END),
    "4 million megapixels": png(ihdr(2**31 - 1, 2**31 - 1), idat(b"x"), END),
    "a frame control of no bytes": png(ihdr(64, 48), (b"acTL", b""), (b"fcTL", b""), idat(b"x"), END),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_decoder_raises_is_this_machines_fault_and_no_thumbnail(tmp_path: Path, hostile: bytes) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(hostile)
    assert thumbnail(path) is None
    with pytest.raises(MachineFault):
        finish(path, format="jpg", quality=None)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_no_change_of_a_few_bytes_makes_a_crash(tmp_path: Path, kind: str) -> None:
    path, rng = tmp_path / f"out.{kind}", random.Random(7)
    write(path, kind)
    whole = path.read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(12, len(data))] = rng.randrange(256)
        path.write_bytes(data)
        thumbnail(path)
        with suppress(MachineFault):
            finish(path, format="jpg" if kind == "png" else kind, quality=None)
        with suppress(JobFault):
            clean_image(bytes(data), max_pixels=1 << 20)


def test_a_picture_above_pillows_own_limit_is_converted_and_one_above_the_workflows_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.png"
    pixels().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert finish(path, format="jpg", quality=None, max_pixels=64 * 48).size > 0
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(MachineFault, match="64x48 pixels; at most 3071 are converted") as caught:
        finish(path, format="jpg", quality=None, max_pixels=64 * 48 - 1)
    assert "output.max_pixels" in caught.value.hint


def test_boxes_in_boxes_in_boxes_are_a_broken_video(tmp_path: Path) -> None:
    path, deep = tmp_path / "out.mp4", 5000
    nested = b"".join(struct.pack(">I4s", 8 * (deep - level), b"moov") for level in range(deep))
    path.write_bytes(struct.pack(">I4s8x", 16, b"ftyp") + struct.pack(">I4s", 8, b"mdat") + nested)
    with pytest.raises(MachineFault, match="broken mp4"):
        finish(path, format="mp4", quality=None)


def test_a_file_that_is_not_there_is_this_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="cannot be read"):
        finish(tmp_path / "gone.png", format="png", quality=None)


def test_a_large_video_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, codec="h264", flags="use_metadata_tags")
    moov = path.read_bytes()
    with path.open("wb") as file:  # 300 MB of frames that no index names, as a sparse file
        file.write(moov[:40])
        file.write(struct.pack(">I4s", 300 << 20, b"mdat"))
        file.seek(40 + (300 << 20))
        file.write(moov[40:])
    tracemalloc.start()
    try:
        media = finish(path, format="mp4", quality=None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert media.size > 300 << 20
    assert peak < 4 << 20
    with path.open("rb") as file:
        file.seek(300 << 20)
        assert b"secret garden" not in file.read()


def test_a_metadata_box_larger_than_the_copy_buffer_is_blanked_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write_video(path, codec="h264")
    note = b"secret garden" * 200_000
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", len(note) + 8, b"uuid") + note)
    finish(path, format="mp4", quality=None)
    assert_silent(path)
    assert len(decoded(path)) == FRAMES
