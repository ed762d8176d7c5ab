"""Uploads results to the network's store: a presigned `PUT`, or S3 with temporary credentials.

Promises: a file is streamed from disk, never held in memory; each call makes one attempt, since the lane retries, and
goes on as long as bytes move; a task's target is judged like an input's address, and must be https unless the operator
allowed it.

Never: follows a redirect, sends a header that the target did not ask for, or puts an answer's text, a URL or a key
into an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import unquote, urlsplit

from miner.media.signature import object_url, signed
from miner.media.targets import check_credentials, check_not_expired, checked_headers
from miner.net.addresses import PORTS, Allow, Refused, parse_url
from miner.net.deadline import Standstill
from miner.net.egress import Egress
from miner.net.errors import passing
from miner.net.session import Guard, OperatorsSession, Resolve, Response, Session, resolve
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, PresignedPut, TemporaryS3, UploadTarget

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and the bytes in all."""

LONGEST = 7 * 86400.0  # seconds of an attempt, unless the task's time is over before

_BLOCK = 1 << 18  # bytes per send; with urllib3's 16 KB, Python's overhead is measurable
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def object_key(*, prefix: str, workflow: str, miner_id: str, task_id: str, format: str) -> str:  # noqa: A002
    """The protocol's key of a result, `<prefix>/<workflow name>-<miner id>-<task id>.<format>`.

    A task id is opaque. If it is not 1 to 128 plain letters, digits, `.`, `_` and `-`, the hex of its SHA-256 takes its
    place, so that no id is ever a path.
    """
    if not _PLAIN_ID.fullmatch(task_id):
        task_id = f"sha256-{hashlib.sha256(task_id.encode(errors='surrogatepass')).hexdigest()}"
    folders = [folder for folder in prefix.split("/") if folder]
    return "/".join((*folders, f"{workflow}-{miner_id}-{task_id}.{format}"))


def presigned_key(target: PresignedPut) -> str:
    """The key to answer with for a presigned URL: its decoded path without the first slash.

    A bucket's name at the start of the path stays, since a miner cannot tell a bucket from a folder. Raises JobFault
    for an invalid URL.
    """
    try:
        return unquote(urlsplit(target.url).path).removeprefix("/")
    except ValueError:
        raise JobFault("upload target: upload_url is not a URL") from None


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
        resolve: Resolve = resolve,
        egress: Egress | None = None,
    ) -> None:
        """`bucket`, `endpoint` ("": Amazon's) and `region` are for S3 credentials; `timeout` is in seconds without a
        byte. `egress`: whose network failed. Raises ConfigError.
        """
        self._guard = Guard(allow=allow, schemes=("https",), resolve=resolve)
        self._session = Session(self._guard, blocksize=_BLOCK)
        self._bucket = bucket
        self._region = "us-east-1" if region == "auto" and not endpoint else region
        self._endpoint = endpoint.rstrip("/") or f"https://s3.{self._region}.amazonaws.com"
        self._s3 = OperatorsSession(self._guard, self._endpoint, blocksize=_BLOCK)
        self._timeout = timeout
        self._egress = egress or Egress()

    def check(self, target: UploadTarget) -> None:
        """Judge a target before any GPU time is spent: spelling, scheme, port, headers, credentials, expiry.

        Makes no look-up. Raises JobFault, and MachineFault if credentials came but no bucket is configured.
        """
        try:
            if isinstance(target, PresignedPut):
                self._guard.check(target.url)
                checked_headers(target.headers)
                check_not_expired(target.url, now=self._egress.time())
            else:
                self._check_credentials(target)
        except Refused as refusal:
            raise JobFault(f"upload target: {refusal}") from None

    def _check_credentials(self, target: TemporaryS3) -> None:
        if not self._bucket:
            raise MachineFault("no bucket is configured for S3 uploads", hint="Set [upload] bucket in config.toml.")
        check_credentials(target)

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
        limit = Standstill(self._timeout, longest=within)
        try:
            with media.path.open("rb") as file, limit:
                body = _Body(file, media.size, progress, limit)
                if isinstance(target, PresignedPut):
                    self._put(body, target)
                else:
                    self._put_object(body, target, key, media.content_type)
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
        self._s3.close()

    def _put(self, body: _Body, target: PresignedPut) -> None:
        headers = {**checked_headers(target.headers), "Content-Length": str(len(body))}
        with self._session.exchange("PUT", target.url, body=body, headers=headers) as response:
            if error := passing("the upload target", response.status, response.headers):
                raise error
            if not 200 <= response.status < 300:
                raise _refusal(response.status)
            _drain(response)

    def _put_object(self, body: _Body, target: TemporaryS3, key: str, content_type: str) -> None:
        self._check_credentials(target)
        with self._as_settings_fault():
            try:
                url = object_url(self._endpoint, self._bucket, key)
            except ValueError:
                hint = "Check [upload] prefix."
                raise MachineFault("the key of the result is not one that every S3 takes", hint=hint) from None
            place = parse_url(url)
            host = urlsplit(url).netloc.removesuffix(f":{PORTS[place.scheme]}")
            signature = signed(url, target, region=self._region, host=host, at=self._egress.time())
            headers = {**signature, "Host": host, "Content-Type": content_type, "Content-Length": str(len(body))}
            with self._s3.exchange("PUT", url, body=body, headers=headers) as response:
                if error := _s3_refusal(response):
                    raise error
                _drain(response)

    @contextmanager
    def _as_settings_fault(self) -> Iterator[None]:
        """The operator named this store: what the guard refuses is not the task's."""
        try:
            yield
        except Refused as refusal:
            hint = "Check [upload] endpoint, or name its host:port in [network] allow."
            raise MachineFault(f"S3 endpoint: {refusal}", hint=hint) from None


class _Body:
    """A file as a request's body, of the announced length, read while it is sent."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress | None, limit: Standstill) -> None:
        self._file = file
        self._size = size
        self._sent = 0
        self._progress = progress or (lambda _sent, _size: None)
        self._limit = limit

    def __len__(self) -> int:
        return self._size

    def read(self, size: int) -> bytes:
        try:
            block = self._file.read(min(size, self._size - self._sent))
        except OSError as error:
            raise MachineFault(f"the output file cannot be read: {error.strerror}") from error
        if not block and self._sent < self._size:
            raise MachineFault("the output file became shorter while it was uploaded")
        self._sent += len(block)
        self._limit.sent = self._sent
        self._progress(self._sent, self._size)
        return block


def _drain(response: Response) -> None:
    """Read a short rest, so that the connection can be used again."""
    unread = response.length_remaining
    if unread is not None and unread <= _BLOCK:  # else drop the connection
        response.read(_BLOCK, decode_content=False)


def _refusal(status: int) -> JobFault:
    if 300 <= status < 400:
        return JobFault(f"the upload target redirects ({status}), which is not followed")
    return JobFault(f"the upload target refused the file ({status})")


def _s3_refusal(response: Response) -> Retryable | JobFault | MachineFault | None:
    status = response.status
    if 200 <= status < 300:
        return None
    if status == 404:
        return MachineFault("the S3 store has no such bucket (404)", hint="Check [upload] bucket and endpoint.")
    if 300 <= status < 400:
        return MachineFault(f"the S3 store redirects ({status})", hint="Check [upload] region and endpoint.")
    return passing("the S3 store", status, response.headers) or _refusal(status)
