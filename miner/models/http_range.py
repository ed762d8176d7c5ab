"""Range requests and what a server's reply to one means. Pure.

The rules are RFC 9110's: a range is requested on the condition that the file is unchanged (`If-Range`); a server with
another file replies 200 and all of it, and 416 tells the file's length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from miner.models.catalogue import ModelFile
from miner.models.partial_file import Origin
from miner.models.source import Source

RangeReply = Literal["rest", "whole", "complete", "changed", "refused"]
"""rest: the bytes after ours · whole: the file from its beginning · complete: ours are the whole file ·
changed: ours are of another file · refused: no file in the reply"""

_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-(?P<last>\d{1,19})/(?P<total>\d{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(?P<total>\d{1,19})")


def resume_at(length: int, origin: Origin | None, source: Source, file: ModelFile) -> int:
    """How many of the `length` bytes of `origin` can be kept: all or 0.

    All if the hub says that the content is the same, if the server can check that (`If-Range`), or if the final hash
    will.
    """
    if origin is None or length > (file.size or source.size or length):
        return 0
    if source.identity or origin.identity:
        return length if source.identity == origin.identity else 0
    same_place = origin.url == source.display_url
    return length if same_place and (origin.validator or file.sha256) else 0


def range_headers(start: int, origin: Origin | None) -> dict[str, str]:
    """Headers that request the bytes from `start` on; empty for 0."""
    if not start or origin is None:
        return {}
    condition = {"If-Range": origin.validator} if origin.validator and not origin.identity else {}
    return {"Range": f"bytes={start}-", **condition}


def origin_of(source: Source, headers: Mapping[str, str]) -> Origin:
    """The origin of a reply's bytes. `headers` have to be case-insensitive, here and below.

    A weak ETag does not promise the same bytes, so `If-Range` must not use it.
    """
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    return Origin(url=source.display_url, identity=source.identity, validator=validator)


def classify(status: int, headers: Mapping[str, str], *, start: int, origin: Origin | None) -> RangeReply:
    """What the reply to a request from `start` on means, for bytes of `origin` on the disk."""
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return "refused"  # its bytes and ranges are not the file's
    if status == 200:
        return "whole"
    if not start:
        return "refused"
    if status == 416:
        unsatisfied = _UNSATISFIED.fullmatch(headers.get("Content-Range", ""))
        return "complete" if unsatisfied and int(unsatisfied["total"]) == start else "changed"
    if status == 206:
        span = _RANGE.fullmatch(headers.get("Content-Range", ""))
        begins = span is not None and int(span["first"]) == start
        return "rest" if begins and not _has_changed(headers, origin) else "changed"
    return "refused"


def total_of(status: int, headers: Mapping[str, str]) -> int | None:
    """The length of the whole file in bytes, if the reply tells it."""
    if status == 206:
        span = _RANGE.fullmatch(headers.get("Content-Range", ""))
        return int(span["total"]) if span and span["total"] != "*" else None
    length = headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,19}", length) else None


def _has_changed(headers: Mapping[str, str], origin: Origin | None) -> bool:
    """Whether a server that ignored `If-Range` sends the rest of another file."""
    known = origin.validator if origin and not origin.identity else ""
    now = headers.get("ETag", "") if known.startswith('"') else headers.get("Last-Modified", "")
    return bool(known and now and known != now)
