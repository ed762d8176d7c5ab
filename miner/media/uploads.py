"""Uploads results to the network's store: a presigned `PUT`, or S3 with temporary credentials.

Promises: a file is streamed from disk, never held in memory; each call makes one attempt, since the lane retries; a
task's target is judged like an input's address, and must be https unless the operator allowed it.

Never: follows a redirect, sends a header that the target did not ask for, or puts an answer's text, a URL or a key
into an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from miner.net.addresses import Allow, Refused, parse_url
from miner.net.deadline import Deadline
from miner.net.errors import obstore_status, passing
from miner.net.session import Guard, Resolve, Session, resolve
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, PresignedPut, TemporaryS3, UploadTarget

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and the bytes in all."""

_BLOCK = 1 << 18  # bytes per send; with urllib3's 16 KB, Python's overhead is measurable
_PART = 8 << 20  # bytes of a part of a multipart upload
_PARTS_AT_ONCE = 3  # each in memory
_PART_RETRIES = 2  # by obstore, for one part; the lane retries the whole file

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110's token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]{0,4096}")
# They decide where a request goes and where its body ends.
_OUR_HEADERS = re.compile(
    r"connection|content-length|expect|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade", re.IGNORECASE
)
_MAX_HEADERS = 32
_CREDENTIAL = re.compile(r"[!-~]{1,4096}")
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
    """Uploads finished files. Threads may share one; connections for presigned URLs stay open between uploads."""

    def __init__(
        self,
        *,
        allow: Allow,
        bucket: str,
        endpoint: str,
        region: str,
        timeout: float,
        resolve: Resolve = resolve,
    ) -> None:
        """`bucket`, `endpoint` ("": Amazon's) and `region` are for S3 credentials; `timeout` is in seconds."""
        self._guard = Guard(allow=allow, schemes=("https",), resolve=resolve)
        self._session = Session(self._guard, blocksize=_BLOCK)
        self._bucket = bucket
        self._region = "us-east-1" if region == "auto" and not endpoint else region
        self._endpoint = endpoint.rstrip("/") or f"https://s3.{self._region}.amazonaws.com"
        self._timeout = timeout

    def check(self, target: UploadTarget) -> None:
        """Judge a target before any GPU time is spent: spelling, scheme, port, headers, credentials.

        Makes no look-up. Raises JobFault, and MachineFault if credentials came but no bucket is configured.
        """
        try:
            if isinstance(target, PresignedPut):
                self._guard.check(target.url)
                _checked(target.headers)
            else:
                self._check_credentials(target)
        except Refused as refusal:
            raise JobFault(f"upload target: {refusal}") from None

    def _check_credentials(self, target: TemporaryS3) -> None:
        if not self._bucket:
            raise MachineFault("no bucket is configured for S3 uploads", hint="Set [upload] bucket in config.toml.")
        if not all(map(_CREDENTIAL.fullmatch, (target.access_key_id, target.secret_access_key, target.session_token))):
            raise Refused("the S3 credentials contain invalid characters")  # obstore would panic

    def upload(self, media: Media, target: UploadTarget, *, key: str, progress: Progress | None = None) -> None:
        """Upload the file: one attempt, which blocks for at most `timeout` seconds.

        `key` is for S3 credentials; a presigned URL has its own. Raises Retryable if it may succeed later, JobFault
        if the target refuses or is refused, MachineFault for the file and for `[upload]` settings.
        """
        try:
            with media.path.open("rb") as file:
                body = _Body(file, media.size, progress)
                if isinstance(target, PresignedPut):
                    self._put(body, target)
                else:
                    self._put_object(body, target, key, media.content_type)
        except Refused as refusal:
            raise JobFault(f"upload target: {refusal}") from None
        except Retryable as error:
            raise Retryable(f"upload: {error.message}", retry_after=error.retry_after) from None
        except OSError as error:
            raise MachineFault(f"the output file cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def _put(self, body: _Body, target: PresignedPut) -> None:
        headers = _checked(target.headers)
        headers["Content-Length"] = str(len(body))
        with (
            Deadline(self._timeout),
            self._session.exchange("PUT", target.url, body=body, headers=headers) as response,
        ):
            if error := passing("the upload target", response.status, response.headers):
                raise error
            if not 200 <= response.status < 300:
                raise _refusal(response.status)
            unread = response.length_remaining
            if unread is not None and unread <= _BLOCK:  # else drop the connection
                response.read(_BLOCK, decode_content=False)

    def _put_object(self, body: _Body, target: TemporaryS3, key: str, content_type: str) -> None:
        self._check_credentials(target)
        self._check_endpoint()
        import obstore  # slow, and not needed for presigned targets
        from obstore.exceptions import BaseError

        async def put() -> None:
            await obstore.put_async(
                self._store(target),
                key,
                iter(body),
                attributes={"Content-Type": content_type},
                use_multipart=len(body) > _PART,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )

        try:
            asyncio.run(asyncio.wait_for(put(), self._timeout))
        except TimeoutError:
            raise Retryable(f"it took more than {self._timeout:g} s") from None
        except (BaseError, FileNotFoundError) as error:
            raise _s3_error(error) from None
        except ValueError:
            hint = "Check [upload] prefix, bucket, endpoint and region."
            raise MachineFault("S3 does not accept the key or the settings", hint=hint) from None

    def _check_endpoint(self) -> None:
        """Like a task's target, the operator's endpoint may be private only if it is allowed by name."""
        try:
            with Deadline(self._timeout):
                self._guard.check(self._endpoint)
                place = parse_url(self._endpoint)
                self._guard.address(place.host, place.port)
        except Refused as refusal:
            hint = "Check [upload] endpoint, or name its host:port in [network] allow."
            raise MachineFault(f"S3 endpoint: {refusal}", hint=hint) from None
        except Retryable as error:
            raise Retryable(f"S3 endpoint: {error.message}") from None

    def _store(self, target: TemporaryS3) -> Any:
        """obstore falls back to the environment, so everything that decides the place and the account is set here."""
        from obstore.store import S3Store

        return S3Store(
            self._bucket,
            access_key_id=target.access_key_id,
            secret_access_key=target.secret_access_key,
            session_token=target.session_token,
            region=self._region,
            endpoint=self._endpoint,
            aws_endpoint_url_s3=self._endpoint,  # it would win over `endpoint`
            virtual_hosted_style_request=False,
            skip_signature=False,
            client_options={
                "allow_http": self._endpoint.startswith("http:"),
                "timeout": timedelta(seconds=self._timeout),
                "connect_timeout": timedelta(seconds=10),
                # A proxy of our own keeps the environment's out. The endpoint bypasses it; any other host, after a
                # redirect, would go to a name that never resolves (RFC 6761).
                "proxy_url": "http://no-other-host.invalid",
                "proxy_excludes": parse_url(self._endpoint).host,
            },
            retry_config={"max_retries": _PART_RETRIES, "retry_timeout": timedelta(seconds=self._timeout)},
        )


class _Body:
    """A file as a request's body, of the announced length, read while it is sent."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._sent = 0
        self._progress = progress or (lambda _sent, _size: None)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_BLOCK), b"")

    def read(self, size: int) -> bytes:
        try:
            block = self._file.read(min(size, self._size - self._sent))
        except OSError as error:
            raise MachineFault(f"the output file cannot be read: {error.strerror}") from error
        if not block and self._sent < self._size:
            raise MachineFault("the output file became shorter while it was uploaded")
        self._sent += len(block)
        self._progress(self._sent, self._size)
        return block


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """The target's headers, once none can end a line or change where and how the body is sent."""
    if len(headers) > _MAX_HEADERS:
        raise Refused(f"it has more than {_MAX_HEADERS} headers")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Refused("one of its headers is not valid HTTP")
        if _OUR_HEADERS.fullmatch(name):
            raise Refused(f"a target may not set the header {name}")
    return dict(headers)


def _refusal(status: int) -> JobFault:
    if 300 <= status < 400:
        return JobFault(f"the upload target redirects ({status}), which is not followed")
    return JobFault(f"the upload target refused the file ({status})")


def _s3_error(error: Exception) -> Retryable | JobFault | MachineFault:
    """The meaning of obstore's error. Its text holds the key, the URL and the answer, so it is not passed on."""
    status = obstore_status(error)
    if status is None:
        return Retryable("the S3 store does not answer")
    if status == 404:
        return MachineFault("the S3 store has no such bucket (404)", hint="Check [upload] bucket and endpoint.")
    if 300 <= status < 400:
        return MachineFault(f"the S3 store redirects ({status})", hint="Check [upload] region and endpoint.")
    return passing("the S3 store", status, {}) or _refusal(status)
