"""An S3 bucket as the place of results, by temporary credentials.

Promises: what only the operator can mend, such as a bucket that does not exist or an endpoint that is not allowed, is
told before a render, and as this machine's fault. An object is one streamed `PUT`, a large one several (`s3_parts`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from miner.media.bodies import Body
from miner.media.s3_parts import SAID, Forgotten, Parts, put_in_parts
from miner.media.signature import UNSIGNED, object_url, signed
from miner.media.targets import check_credentials
from miner.net.addresses import PORTS, Refused, parse_url
from miner.net.deadline import Deadline, Standstill, in_force
from miner.net.egress import Egress
from miner.net.errors import passing
from miner.net.session import Guard, OperatorsSession, Response, drain
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import TemporaryS3

LOOK = 10.0  # seconds for a look at the bucket
LOOK_AGAIN = 600.0  # seconds until the next one, whatever the last one found that is no fault

_NO_OBJECT = "xalora-miner-looks-for-its-bucket"
_NO_BUCKET = b"<Code>NoSuchBucket<", b"<Code>PermanentRedirect<", b"<Code>InvalidBucketName<"


class TargetFault(MachineFault):
    """The place of results that the operator configured cannot take one: no task with credentials will succeed."""

    fault = "upload"


@contextmanager
def settings_fault(what: str, key: str) -> Iterator[None]:
    """The operator named this place: what the guard refuses is not the task's."""
    try:
        yield
    except Refused as refusal:
        hint = f"Check [upload] {key}, or name its host:port in [network] allow."
        raise TargetFault(f"{what}: {refusal}", hint=hint) from None


class S3:
    """One bucket. Threads may share it."""

    def __init__(
        self,
        guard: Guard,
        *,
        bucket: str,
        endpoint: str,
        region: str,
        timeout: float,
        parts: Parts,
        blocksize: int,
        egress: Egress,
    ) -> None:
        """`endpoint`: "" is Amazon's. `timeout`: seconds of a request without a byte. Raises ConfigError."""
        self._bucket = bucket
        self._region = "us-east-1" if region == "auto" and not endpoint else region
        self._endpoint = endpoint.rstrip("/") or f"https://s3.{self._region}.amazonaws.com"
        self._session = OperatorsSession(guard, self._endpoint, blocksize=blocksize)
        self._timeout = timeout
        self._parts = parts
        self._egress = egress
        self._closed = threading.Event()
        self._looked_at = float("-inf")  # monotonic time

    def check(self, target: TemporaryS3) -> None:
        """Look whether there is such a bucket, unless that was done lately. Blocks for LOOK seconds at most.

        It asks for an object that nobody has: only a store that says that the bucket is missing or elsewhere is
        believed, the upload judges the rest. Raises TargetFault, and Refused for credentials that are none.
        """
        self._require_bucket()
        check_credentials(target)
        if time.monotonic() - self._looked_at < LOOK_AGAIN:
            return
        with suppress(Retryable), Deadline(LOOK):
            url = object_url(self._endpoint, self._bucket, _NO_OBJECT)
            with self._exchange("GET", url, target, {"Accept-Encoding": "identity"}) as response:
                said = response.read(SAID, decode_content=False) if response.status >= 300 else b""
            if any(code in said for code in _NO_BUCKET):
                raise _no_bucket(response.status)
        self._looked_at = time.monotonic()

    def put(self, body: Body, target: TemporaryS3, *, key: str, content_type: str) -> None:
        """Put the object, until the deadline in force. Raises as `Uploader.upload` does, and Refused."""
        self._require_bucket()
        check_credentials(target)
        try:
            url = object_url(self._endpoint, self._bucket, key)
        except ValueError:
            hint = "Check [upload] prefix."
            raise TargetFault("the key of the result is not one that every S3 takes", hint=hint) from None
        exchange, parts = partial(self._of_object, target, url), self._parts
        if len(body) > parts.above and put_in_parts(
            exchange, body, content_type=content_type, parts=parts, wait=self._closed.wait
        ):
            return
        with exchange("PUT", "", {"Content-Type": content_type}, body) as response:
            drain(response)

    def close(self) -> None:
        self._closed.set()
        self._session.close()

    @contextmanager
    def _of_object(
        self, target: TemporaryS3, url: str, method: str, query: str, headers: Mapping[str, str], body: Body | bytes
    ) -> Iterator[Response]:
        """One request for an object, as long as bytes move; see `s3_parts.Exchange`."""
        url = f"{url}?{query}" if query else url
        headers = {**headers, "Content-Length": str(len(body))}
        with (
            Standstill(self._timeout, longest=in_force().left),
            self._exchange(method, url, target, headers, body=body) as response,
        ):
            if error := _refusal(response):
                raise error
            yield response

    def _require_bucket(self) -> None:
        if not self._bucket:
            raise TargetFault("no bucket is configured for S3 uploads", hint="Set [upload] bucket in config.toml.")

    @contextmanager
    def _exchange(
        self,
        method: str,
        url: str,
        target: TemporaryS3,
        headers: Mapping[str, str],
        *,
        body: Body | bytes | None = None,
    ) -> Iterator[Response]:
        with settings_fault("S3 endpoint", "endpoint"):
            place = parse_url(url)
            host = urlsplit(url).netloc.removesuffix(f":{PORTS[place.scheme]}")
            signature = signed(
                method, url, target, region=self._region, host=host, at=self._egress.time(), payload=UNSIGNED
            )
            with self._session.exchange(
                method, url, body=body, headers={**signature, "Host": host, **headers}
            ) as response:
                yield response


def _no_bucket(status: int) -> TargetFault:
    hint = "Check [upload] bucket, region and endpoint."
    return TargetFault(f"the S3 store has no such bucket ({status})", hint=hint)


def _refusal(response: Response) -> Retryable | JobFault | MachineFault | None:
    status = response.status
    if 200 <= status < 300:
        return None
    if status == 404:
        if b"<Code>NoSuchUpload<" in response.read(SAID, decode_content=False):
            return Forgotten("the S3 store forgot the upload")
        return _no_bucket(status)
    if 300 <= status < 400:
        return TargetFault(f"the S3 store redirects ({status})", hint="Check [upload] region and endpoint.")
    if status != 501 and (error := passing("the S3 store", status, response.headers)):
        return error
    return JobFault(f"the upload target refused the file ({status})")
