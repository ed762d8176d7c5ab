"""An object of an S3 bucket in parts: a connection that breaks costs one part, and 5 GB is no limit.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html. Promises: a part is read from disk while it is
sent, and tried again alone; an upload that is given up is aborted, if the store can be reached. Never: goes on with the
upload of an earlier call, or parses XML beyond a name and a value in the first SAID bytes.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from miner.media.bodies import Body
from miner.net.deadline import Deadline, in_force
from miner.net.session import Response, drain
from miner.task.errors import JobFault, MinerError, Retryable
from miner.task.policy import backoff

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MOST_PARTS = 10_000
MOST_AT_ONCE = 5 << 30  # bytes of one PUT

ABORT = 10.0  # seconds for an abort
LONGEST_PAUSE = 30.0  # seconds; a store that asks for more is left to the lane's retries
SAID = 4096  # bytes of an answer

_UPLOAD_ID = re.compile(rb"<UploadId>\s*([^<\s]{1,1024})\s*</UploadId>")
_COMPLETED = re.compile(rb"\s*(?:<\?xml[^>]*\?>)?\s*<CompleteMultipartUploadResult[\s/>]")
_ETAG = re.compile(r"[!-~]{1,256}")
_RNG = random.Random()

Exchange = Callable[[str, str, Mapping[str, str], Body | bytes], AbstractContextManager[Response]]
"""Method, query, headers and body of a request for the object; its answer is unread, and no refusal."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Which objects go in parts, and how."""

    above: int = 64 << 20  # bytes of an object
    size: int = 16 << 20  # bytes of a part, more where MOST_PARTS would not do
    tries: int = 6  # of a part, and of the completion
    pause: float = 2.0  # seconds before the second try, at most; doubles up to LONGEST_PAUSE

    def spans(self, size: int) -> list[tuple[int, int]]:
        """Start and size of each part. All but the last are equal, as some stores demand."""
        each = max(self.size, -(-size // MOST_PARTS))
        return [(start, min(each, size - start)) for start in range(0, size, each)]


class Forgotten(Retryable):
    """The store does not know this upload any more; a new one may succeed."""


def put_in_parts(
    exchange: Exchange, body: Body, *, content_type: str, parts: Parts, wait: Callable[[float], bool]
) -> bool:
    """Upload the object. `wait` blocks for a pause; True if there is no time left.

    False: the store takes no parts, or not with these credentials, and the object fits one PUT. Raises as
    `Uploader.upload` does.
    """
    try:
        upload = _create(exchange, content_type)
    except JobFault:
        if len(body) > MOST_AT_ONCE:
            raise
        return False
    try:
        etags = [
            _tried(partial(_put, exchange, upload, number, body, span), parts, wait)
            for number, span in enumerate(parts.spans(len(body)), start=1)
        ]
        _tried(partial(_complete, exchange, upload, etags), parts, wait)
    except BaseException:
        with suppress(MinerError), Deadline(ABORT), exchange("DELETE", f"uploadId={upload}", {}, b""):
            pass
        raise
    return True


def _tried(step: Callable[[], _T], parts: Parts, wait: Callable[[float], bool]) -> _T:
    attempt = 1
    while True:
        try:
            return step()
        except Retryable as error:
            asked = error.retry_after or 0.0
            pause, limit = backoff(attempt, rng=_RNG, base=parts.pause, cap=LONGEST_PAUSE, at_least=asked), in_force()
            late = limit.expired or pause >= limit.left
            if isinstance(error, Forgotten) or asked > LONGEST_PAUSE or late or attempt == parts.tries or wait(pause):
                raise
            attempt += 1


def _create(exchange: Exchange, content_type: str) -> str:
    """The new upload's id, as it is spelled in a query."""
    with exchange("POST", "uploads", {"Content-Type": content_type}, b"") as response:
        found = _UPLOAD_ID.search(_said(response))
    if found is None:
        raise Retryable("the S3 store named no upload")
    return quote(html.unescape(found[1].decode(errors="replace")), safe="-._~")


def _put(exchange: Exchange, upload: str, number: int, body: Body, span: tuple[int, int]) -> str:
    """The part's ETag."""
    with exchange("PUT", f"partNumber={number}&uploadId={upload}", {}, body.part(*span)) as response:
        etag = response.headers.get("ETag", "")
        drain(response)
    if not _ETAG.fullmatch(etag):
        raise Retryable("the S3 store sent no ETag for a part")
    return etag


def _complete(exchange: Exchange, upload: str, etags: Sequence[str]) -> None:
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(etag, quote=False)}</ETag></Part>"
        for number, etag in enumerate(etags, start=1)
    )
    names = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    document = f"<CompleteMultipartUpload {names}>{listed}</CompleteMultipartUpload>".encode()
    with exchange("POST", f"uploadId={upload}", {"Content-Type": "application/xml"}, document) as response:
        said = _said(response)
    if b"<Code>NoSuchUpload<" in said:
        raise Forgotten("the S3 store forgot the upload")
    if not _COMPLETED.match(said):  # a 200 may be sent before the store knows how it ends
        raise Retryable("the S3 store could not put the parts together")


def _said(response: Response) -> bytes:
    """The start of an answer, its blanks folded: a store sends them while it works, and they count as movement."""
    said = b""
    while len(said) < SAID and (block := response.read1(SAID, decode_content=False)):
        in_force().sent += len(block)
        said = re.sub(rb"\s+", b" ", said + block)
    return said
