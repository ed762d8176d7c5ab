"""What a server's answer to a request for the rest of a file means. Pure.

The rules are RFC 9110's: a range is asked for on the condition that the file is the same (`If-Range`), so a server
that has another one answers 200 with all of it; 416 tells its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from miner.models.catalogue import ModelFile
from miner.models.partial_file import Origin
from miner.models.source import Source

RangeReply = Literal["rest", "whole", "nothing left", "changed", "refused"]
"""rest: it begins where ours ends · whole: it begins at the beginning · nothing left: ours was all of it ·
changed: ours is of another file · refused: it is no answer with the file"""

_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-(?P<last>\d{1,19})/(?P<total>\d{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(?P<total>\d{1,19})")


def resume_at(length: int, origin: Origin | None, source: Source, file: ModelFile) -> int:
    """How many of the `length` bytes of `origin` can be kept: all, or none.

    All, if the hub says that the content is the same; or if the server can be asked whether it is; or if the hash at
    the end will tell.
    """
    if origin is None or length > (file.size or source.size or length):
        return 0
    if source.identity or origin.identity:
        return length if source.identity == origin.identity else 0
    same_place = origin.url == source.display_url
    return length if same_place and (origin.validator or file.sha256) else 0


def range_headers(start: int, origin: Origin | None) -> dict[str, str]:
    """What asks for the bytes from `start` on, none of them if it is 0."""
    if not start or origin is None:
        return {}
    condition = {"If-Range": origin.validator} if origin.validator and not origin.identity else {}
    return {"Range": f"bytes={start}-", **condition}


def origin_of(source: Source, headers: Mapping[str, str]) -> Origin:
    """What the answer is the beginning of. `headers` are to be case-insensitive, here and below.

    A weak ETag does not promise the same bytes, so `If-Range` may not have it.
    """
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    return Origin(url=source.display_url, identity=source.identity, validator=validator)


def classify(status: int, headers: Mapping[str, str], *, start: int, origin: Origin | None) -> RangeReply:
    """What an answer to a request from `start` on is worth, `origin` being what is there."""
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return "refused"  # its bytes are not the file's, and no range of them is
    if status == 200:
        return "whole"
    if not start:
        return "refused"
    if status == 416:
        unsatisfied = _UNSATISFIED.fullmatch(headers.get("Content-Range", ""))
        return "nothing left" if unsatisfied and int(unsatisfied["total"]) == start else "changed"
    if status == 206:
        span = _RANGE.fullmatch(headers.get("Content-Range", ""))
        begins = span is not None and int(span["first"]) == start
        return "rest" if begins and not _is_other(headers, origin) else "changed"
    return "refused"


def total_of(status: int, headers: Mapping[str, str]) -> int | None:
    """The length of the whole file in bytes, if the answer tells."""
    if status == 206:
        span = _RANGE.fullmatch(headers.get("Content-Range", ""))
        return int(span["total"]) if span and span["total"] != "*" else None
    length = headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,19}", length) else None


def _is_other(headers: Mapping[str, str], origin: Origin | None) -> bool:
    """Whether a server that took no notice of `If-Range` sends the rest of another file."""
    known = origin.validator if origin and not origin.identity else ""
    now = headers.get("ETag", "") if known.startswith('"') else headers.get("Last-Modified", "")
    return bool(known and now and known != now)
