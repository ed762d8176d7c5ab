"""Uploads results to the network's store: a presigned `PUT`, S3 with temporary credentials, or the network's gateway.

Promises: a file is streamed from disk, never held in memory; each call makes one attempt, since the lane retries, and
goes on as long as bytes move; the parts of a large file for S3 have tries of their own; a task's target is judged like
an input's address, and must be https unless the operator allowed it.

Never: follows a redirect, sends a header that the target did not ask for, except the file's type where its signature
takes one, or puts an answer's text, a URL or a key into an error.
"""

from __future__ import annotations

import hashlib
import re
from typing import IO
from urllib.parse import unquote, urlsplit

from miner.media.bodies import Base64Body, Body, Progress
from miner.media.gateway import Gateway
from miner.media.s3 import S3
from miner.media.s3_parts import Parts
from miner.media.targets import check_not_expired, checked_headers, content_type
from miner.net.addresses import Allow, Refused
from miner.net.deadline import Deadline, Standstill
from miner.net.egress import Egress
from miner.net.errors import passing
from miner.net.session import Guard, Resolve, Session, drain, resolve
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, PresignedPut, TemporaryS3, UploadTarget

LONGEST = 7 * 86400.0  # seconds of an attempt, unless the task's time is over before

_BLOCK = 1 << 18  # bytes per send; with urllib3's 16 KB, Python's overhead is measurable
_PARTS = Parts()
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Hosts whose URLs have the bucket as the first part of the path.
_PATH_STYLE = re.compile(
    r"s3(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
    r"|[0-9a-f]{32}(?:\.[a-z]+)?\.r2\.cloudflarestorage\.com"
    r"|storage\.googleapis\.com"
)


def object_key(*, prefix: str, workflow: str, miner_id: str, task_id: str, format: str) -> str:  # noqa: A002
    """The protocol's key of a result, `<prefix>/<workflow name>-<miner id>-<task id>.<format>`.

    A task id is opaque. If it is not 1 to 128 plain letters, digits, `.`, `_` and `-`, the hex of its SHA-256 takes its
    place, so that no id is ever a path.
    """
    if not _PLAIN_ID.fullmatch(task_id):
        task_id = f"sha256-{hashlib.sha256(task_id.encode(errors='surrogatepass')).hexdigest()}"
    folders = [folder for folder in prefix.split("/") if folder]
    return "/".join((*folders, f"{workflow}-{miner_id}-{task_id}.{format}"))


def presigned_key(target: PresignedPut, *, bucket: str = "") -> str:
    """The key to answer with for a presigned URL: its decoded path without the first slash.

    A bucket at the start of the path is no part of the key: the first part under a host that is known to have it there,
    and else `bucket`, the configured one. Raises JobFault for an invalid URL.
    """
    try:
        parts = urlsplit(target.url)
        path = unquote(parts.path).removeprefix("/")
    except ValueError:
        raise JobFault("upload target: upload_url is not a URL") from None
    first, slash, rest = path.partition("/")
    if slash and rest and (first == bucket or _PATH_STYLE.fullmatch(parts.hostname or "")):
        return rest
    return path


class Uploader:
    """Uploads finished files. Threads may share one; connections stay open between uploads."""

    def __init__(
        self,
        *,
        allow: Allow,
        bucket: str,
        endpoint: str,
        region: str,
        timeout: float,
        gateway: str = "",
        parts: Parts = _PARTS,
        resolve: Resolve = resolve,
        egress: Egress | None = None,
    ) -> None:
        """`bucket`, `endpoint` ("": Amazon's) and `region` are for S3 credentials, unless they are for a `gateway`, a
        URL; `timeout` is in seconds without a byte. `parts`: which files S3 gets in parts. `egress`: whose network
        failed. Raises ConfigError.
        """
        self.bucket = bucket
        self._guard = Guard(allow=allow, schemes=("https",), resolve=resolve)
        self._session = Session(self._guard, blocksize=_BLOCK)
        self._timeout = timeout
        self._egress = egress or Egress()
        self._place: S3 | Gateway = (
            Gateway(self._guard, gateway, region=region, blocksize=_BLOCK, egress=self._egress)
            if gateway
            else S3(
                self._guard,
                bucket=bucket,
                endpoint=endpoint,
                region=region,
                timeout=timeout,
                parts=parts,
                blocksize=_BLOCK,
                egress=self._egress,
            )
        )

    def check(self, target: UploadTarget) -> None:
        """Judge a target before any GPU time is spent: spelling, scheme, port, headers, credentials, expiry; of what is
        for credentials, now and then also whether it exists.

        Blocks for seconds at most. Raises JobFault, and MachineFault of the kind `upload` if what the
        operator configured for credentials cannot take a result.
        """
        try:
            if isinstance(target, PresignedPut):
                self._guard.look(target.url)
                checked_headers(target.headers)
                check_not_expired(target.url, now=self._egress.time())
            else:
                self._place.check(target)
        except Refused as refusal:
            raise JobFault(f"upload target: {refusal}") from None

    def upload(
        self,
        media: Media,
        target: UploadTarget,
        *,
        key: str,
        within: float = LONGEST,
        progress: Progress | None = None,
    ) -> None:
        """Upload the file: one attempt, which blocks for at most `within` seconds, and `timeout` without a byte.

        `key` is for S3 credentials; a presigned URL has its own. Raises Retryable if it may succeed later, NetworkFault
        if it may once this machine's network is back, JobFault if the target refuses or is refused, MachineFault for
        the file and for `[upload]` settings.
        """
        try:
            with media.path.open("rb") as file:
                if isinstance(target, PresignedPut):
                    with Standstill(self._timeout, longest=within):
                        self._put(Body(file, media.size, progress), target, media.content_type)
                else:
                    self._send(file, media, target, key, within, progress)
        except Refused as refusal:
            raise JobFault(f"upload target: {refusal}") from None
        except Retryable as error:
            self._egress.judge(error, who="upload")
            raise Retryable(f"upload: {error.message}", retry_after=error.retry_after) from None
        except OSError as error:
            raise MachineFault(f"the output file cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()
        self._place.close()

    def _put(self, body: Body, target: PresignedPut, media_type: str) -> None:
        headers = {
            **checked_headers(target.headers),
            **content_type(target, media_type),
            "Content-Length": str(len(body)),
        }
        with self._session.exchange("PUT", target.url, body=body, headers=headers) as response:
            if error := passing("the upload target", response.status, response.headers):
                raise error
            if not 200 <= response.status < 300:
                raise _refusal(response.status)
            drain(response)

    def _send(
        self, file: IO[bytes], media: Media, target: TemporaryS3, key: str, within: float, progress: Progress | None
    ) -> None:
        """To where the credentials are good."""
        if isinstance(self._place, S3):
            with Deadline(within):  # the standstill is each request's
                body = Body(file, media.size, progress)
                self._place.put(body, target, key=key, content_type=media.content_type)
            return
        coded = Base64Body(file, media.size, progress, filename=key)
        with Standstill(self._timeout, longest=within), self._place.post(coded, target) as response:
            drain(response)


def _refusal(status: int) -> JobFault:
    if 300 <= status < 400:
        return JobFault(f"the upload target redirects ({status}), which is not followed")
    return JobFault(f"the upload target refused the file ({status})")
