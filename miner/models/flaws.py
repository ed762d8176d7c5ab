"""Why a file of weights cannot be loaded, as far as its size, its head and its tables of contents show.

Promises: what is called broken, ComfyUI's loaders refuse too: safetensors by its header, PyTorch's files by the ZIP
directory or the sizes in the older format. Never: unpickles, reads a tensor, or judges a format that it does not know.
"""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

from miner.models import safetensors, torch_pickle

_HEAD = 512  # bytes
_TORCH = (".ckpt", ".pt", ".pth", ".pkl")  # ComfyUI gives these to torch.load, and .bin, which others use, too
_POINTERS = {
    b"version https://git-lfs": "is a Git LFS pointer: run `git lfs pull` for the file itself",
    b"/annex/objects/": "is a git-annex pointer: run `git annex get` for the file itself",
    b"<?xml": "is an XML document, not weights",
    b"<": "is a web page, not weights",
}


def flaw_of(path: Path, *, size: int | None = None, name: str = "") -> str:
    """Why the weights at `path` cannot be loaded, as the end of a sentence ("is …"); "" where nothing shows.

    `size`: bytes that the file should have; decides only where the format does not tell. `name`: if not the path's.
    Blocks for a few reads.
    """
    try:
        if path.is_symlink() and not path.exists():
            return "is a link to nothing"
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return "is a folder"
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        with path.open("rb") as file:
            flaw = _flaw(file, Path(name or path).suffix.lower(), status.st_size)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if flaw is None:
        return f"has {status.st_size} bytes, expected {size}" if size not in (None, status.st_size) else ""
    return flaw


def _flaw(file: BinaryIO, suffix: str, size: int) -> str | None:
    """None if the format does not tell whether the file is whole."""
    if not size:
        return "is empty"
    head = file.read(_HEAD)
    if foreign := _foreign(head):
        return foreign
    file.seek(0)
    pytorch = head.startswith((b"PK\3\4", torch_pickle.MAGIC))
    if suffix in (".safetensors", ".sft"):
        return "is a PyTorch file, not safetensors" if pytorch else safetensors.flaw_in(file, size)
    if suffix == ".gguf":
        return None if head.startswith(b"GGUF") else "is not a GGUF file"
    if suffix not in (*_TORCH, ".bin"):
        return None
    if head.startswith(b"PK\3\4"):
        return _zip_flaw(file, has_pickle=suffix != ".bin")
    if head.startswith(torch_pickle.MAGIC):
        return torch_pickle.flaw_in(file, size)
    if head[8:9] == b"{" and not safetensors.flaw_in(file, size):
        return f"is a safetensors file under the name of a {suffix} file"
    known = head.startswith(b"\x80") or head[257:262] == b"ustar" or suffix == ".bin"
    return None if known else "is not a PyTorch file"


def _foreign(head: bytes) -> str:
    """What the file is instead, if its first bytes say so. Every format of weights has a null byte early on."""
    if not head.strip(b"\0"):
        return "begins with zeros: its download or copy did not finish"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip"
    if b"\0" in head:
        return ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if pointer := next((says for start, says in _POINTERS.items() if text.startswith(start)), ""):
        return pointer
    return "is text, not weights" if all(byte > 31 or byte in b"\t\n\r\f" for byte in head) else ""


def _zip_flaw(file: BinaryIO, *, has_pickle: bool) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        return "is cut off: its ZIP archive has no end"
    if has_pickle and not any(member.filename.endswith("/data.pkl") for member in members):
        return "is a ZIP archive without weights"
    whole = (
        min((member.header_offset for member in members), default=0) == 0
    )  # else as many bytes are missing or too many
    return "" if whole else "is damaged: its ZIP archive has other offsets than it says"
