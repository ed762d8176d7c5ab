"""What shows in a file of weights before ComfyUI loads it: by size, first bytes and tables of contents alone."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from pathlib import Path

import pytest

from miner.models.flaws import flaw_of
from tests.unit.models.samples import content, gguf, safetensors

LEGACY = base64.b64decode(
    "gAKKCmz8nEb5IGqoUBkugAJN6QMugAJ9cQAoWBAAAABwcm90b2NvbF92ZXJzaW9ucQFN6QNYDQAAAGxpdHRsZV9lbmRpYW5xAohYCgAA"
    "AHR5cGVfc2l6ZXNxA31xBChYBQAAAHNob3J0cQVLAlgDAAAAaW50cQZLBFgEAAAAbG9uZ3EHSwR1dS6AAn1xAChYCAAAAGEud2VpZ2h0"
    "cQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MgpxAigoWAcAAABzdG9yYWdlcQNjdG9yY2gKRmxvYXRTdG9yYWdlCnEEWA4A"
    "AAA5NDMzMjUyNTc1OTc3NnEFWAMAAABjcHVxBksGTnRxB1FLAEsCSwOGcQhLA0sBhnEJiWNjb2xsZWN0aW9ucwpPcmRlcmVkRGljdApx"
    "CilScQt0cQxScQ1YAQAAAGJxDmgCKChoA2N0b3JjaApIYWxmU3RvcmFnZQpxD1gOAAAAOTQzMzI0Mjg3MzQ4OTZxEGgGSwVOdHERUUsA"
    "SwWFcRJLAYVxE4loCilScRR0cRVScRZYAQAAAGNxF2gCKChoA2N0b3JjaApMb25nU3RvcmFnZQpxGFgOAAAAOTQzMzI0Mjg2NzE3OTJx"
    "GWgGSwJOdHEaUUsASwKFcRtLAYVxHIloCilScR10cR5ScR9YBAAAAHRpZWRxIGgNdS6AAl1xAChYDgAAADk0MzMyNDI4NjcxNzkycQFY"
    "DgAAADk0MzMyNDI4NzM0ODk2cQJYDgAAADk0MzMyNTI1NzU5Nzc2cQNlLgIAAAAAAAAAAQAAAAAAAAACAAAAAAAAAAUAAAAAAAAAADwA"
    "PAA8ADwAPAYAAAAAAAAAAAAAAAAAgD8AAABAAABAQAAAgEAAAKBA"
)
"""Three tensors and one that shares storage, by torch.save(…, _use_new_zipfile_serialization=False)."""


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, content(5000))
    return data.getvalue()


ZIP = archive("archive/data.pkl", "archive/data/0", "archive/version")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 66857836\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>"

WHOLE = {
    "x.safetensors": safetensors(),
    "x.sft": safetensors(0),
    "X.SAFETENSORS": safetensors(60),  # its first byte can be any
    "x.pth": ZIP,
    "x.ckpt": LEGACY,
    "x.pt": b"\x80\x04\x95" + content(100),  # another pickle: it does not tell
    "x.bin": content(500),  # formats of custom nodes
    "y.bin": archive("model/other.txt"),
    "x.pt2": archive("x/models/model.json"),
    "x.gguf": gguf(500),
    "x.onnx": content(500),
}

BROKEN = {
    "empty": ("x.pth", b"", "is empty"),
    "a page": ("x.safetensors", PAGE, "is a web page"),
    "a page as .pth": ("x.pth", b"<html>\n", "is a web page"),
    "a page as .gguf": ("x.gguf", PAGE, "is a web page"),
    "a store's error": ("x.pth", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "is an XML document"),
    "JSON": ("x.safetensors", b'{"error":"Invalid username or password."}', "is text"),
    "words": ("x.bin", b"Access to model x is restricted.", "is text"),
    "LFS": ("x.safetensors", LFS, "is a Git LFS pointer"),
    "annex": ("x.pth", b"/annex/objects/SHA256E-s66857836--4d7a.pth\n", "is a git-annex pointer"),
    "zeros": ("x.safetensors", bytes(5000), "begins with zeros"),
    "gzip": ("x.pth", b"\x1f\x8b\x08\0" + content(100), "is compressed"),
    "safetensors cut": (
        "x.safetensors",
        safetensors()[:-1],
        "is cut off: it has 4095 bytes of tensors, but its header",
    ),
    "safetensors cut in its header": ("x.sft", safetensors()[:40], "is cut off: its header"),
    "safetensors padded": (
        "x.safetensors",
        safetensors() + b"x",
        "has 4097 bytes of tensors, but its header says 4096",
    ),
    "no header": ("x.safetensors", content(5000), "is not a safetensors file"),
    "header too long": ("x.safetensors", (10**12).to_bytes(8, "little") + bytes(100), "is not a safetensors file"),
    "header of no tensors": ("x.safetensors", safetensors(header=["no", "object"]), "invalid header"),
    "gaps": (
        "x.safetensors",
        safetensors(header={"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 4096]}}),
        "gaps between",
    ),
    "backwards": (
        "x.safetensors",
        safetensors(header={"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, -1]}}),
        "before it begins",
    ),
    "a boolean": ("x.safetensors", safetensors(header={"a": {"dtype": "U8", "data_offsets": [False, 9]}}), "invalid"),
    "no type": ("x.safetensors", safetensors(header={"a": {"data_offsets": [0, 4096]}}), "invalid header"),
    "ZIP as safetensors": ("x.safetensors", ZIP, "is a PyTorch file"),
    "pickle as safetensors": ("x.safetensors", LEGACY, "is a PyTorch file"),
    "safetensors as .pth": ("x.pth", safetensors(), "is a safetensors file under the name of a .pth file"),
    "ZIP cut": ("x.pth", ZIP[: len(ZIP) // 2], "is cut off"),
    "ZIP without its last byte": ("x.pth", ZIP[:-1], "is cut off"),
    "ZIP with a hole": ("x.pth", ZIP[:2000] + ZIP[3000:], "is damaged"),
    "another ZIP": ("x.ckpt", archive("model/readme.txt"), "is a ZIP archive without weights"),
    "legacy cut in its tensors": ("x.pth", LEGACY[:-1], "is cut off: it has 662 bytes of 663"),
    "legacy cut in its pickles": ("x.pth", LEGACY[:300], "is cut off: its list of tensors"),
    "noise": ("x.pth", content(5000), "is not a PyTorch file"),
    "noise as .gguf": ("x.gguf", content(5000), "is not a GGUF file"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_or_unknown_has_no_flaw(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    assert flaw_of(tmp_path / name) == ""


@pytest.mark.parametrize(("name", "data", "flaw"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_said(tmp_path: Path, name: str, data: bytes, flaw: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert flaw in flaw_of(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        *[(name, "") for name in ("x.safetensors", "x.pth", "x.ckpt")],  # they tell that they are whole
        *[(name, "bytes, expected 7") for name in ("x.gguf", "x.bin", "x.pt", "x.onnx")],
    ],
)
def test_a_known_size_decides_where_the_format_does_not_tell(tmp_path: Path, name: str, flaw: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    assert flaw in flaw_of(tmp_path / name, size=7)
    assert flaw_of(tmp_path / name, size=len(WHOLE[name])) == ""


def test_what_is_no_file_is_said_without_waiting_for_it(tmp_path: Path) -> None:
    (tmp_path / "link.pth").symlink_to("nowhere")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    flaws = [flaw_of(tmp_path / f"{name}.pth") for name in ("link", "loop", "folder", "pipe", "gone")]
    assert flaws[:4] == ["is a link to nothing", "is a link to nothing", "is a folder", "is not a regular file"]
    assert flaws[4] == "cannot be read: No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(ZIP)
    (tmp_path / "x.pth").chmod(0)
    assert flaw_of(tmp_path / "x.pth") == "cannot be read: Permission denied"


def test_only_the_ends_of_a_large_file_are_read(tmp_path: Path) -> None:
    """A header that says 1 TB of tensors, in a sparse file of that size."""
    size = 10**12
    head = safetensors(size, data=0)
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    assert flaw_of(tmp_path / "x.safetensors") == ""
