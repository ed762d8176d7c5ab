"""The network's upload gateway: results as base64 in JSON, signed with a task's temporary credentials.

It is what miners of the network post to that have credentials and no bucket: an API of Amazon's API Gateway, which
takes no body above MOST bytes. Promises: the file is encoded while it is sent, and read twice, since the signature is
over the body's hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from miner.media.bodies import Base64Body
from miner.media.s3 import TargetFault, settings_fault
from miner.media.signature import signed
from miner.media.targets import check_credentials
from miner.net.addresses import PORTS, parse_url
from miner.net.egress import Egress
from miner.net.errors import passing
from miner.net.session import Guard, OperatorsSession, Response
from miner.task.errors import ConfigError, JobFault
from miner.task.stages import TemporaryS3

MOST = 10 << 20
"""Bytes of a request's body: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html."""

_REGION = re.compile(r"[a-z0-9]+\.execute-api\.([a-z0-9-]+)\.amazonaws\.com")


class Gateway:
    """One gateway. Threads may share it."""

    def __init__(self, guard: Guard, url: str, *, region: str, blocksize: int, egress: Egress) -> None:
        """Raises ConfigError."""
        if set("?#") & set(url):
            raise ConfigError("upload.gateway has a query", hint="Write it without: https://host/stage/upload.")
        named = _REGION.fullmatch(urlsplit(url).hostname or "")
        self._url = url
        self._guard = guard
        self._region = named[1] if named else "us-east-1" if region == "auto" else region
        self._session = OperatorsSession(guard, url, blocksize=blocksize)
        self._egress = egress

    def check(self, target: TemporaryS3) -> None:
        """Raises TargetFault, and Refused for credentials that are none."""
        check_credentials(target)
        with settings_fault("upload gateway", "gateway"):
            self._guard.look(self._url)

    @contextmanager
    def post(self, body: Base64Body, target: TemporaryS3) -> Iterator[Response]:
        """Post the file; yields the answer, unread, once it is taken. Raises as `Uploader.upload` does, and Refused."""
        check_credentials(target)
        if len(body) > MOST:
            raise JobFault(f"the result is larger than the {MOST * 3 / 4e6:.0f} MB that the upload gateway takes")
        with settings_fault("upload gateway", "gateway"):
            place = parse_url(self._url)
            host = urlsplit(self._url).netloc.removesuffix(f":{PORTS[place.scheme]}")
            signature = signed(
                "POST",
                self._url,
                target,
                service="execute-api",
                region=self._region,
                host=host,
                at=self._egress.time(),
                payload=body.sha256(),
            )
            headers = {
                **signature,
                "Host": host,
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
            }
            with self._session.exchange("POST", self._url, body=body, headers=headers) as response:
                _require_taken(response)
                yield response

    def close(self) -> None:
        self._session.close()


def _require_taken(response: Response) -> None:
    status = response.status
    if error := passing("the upload gateway", status, response.headers):
        raise error
    if status in (404, 405) or 300 <= status < 400:
        raise TargetFault(f"the upload gateway answered {status}", hint="Check [upload] gateway.")
    if not 200 <= status < 300:
        raise JobFault(f"the upload target refused the file ({status})")
