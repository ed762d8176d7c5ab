"""Our signature of a request is the one that botocore makes of it."""

from __future__ import annotations

import pytest

from miner.media.signature import UNSIGNED, signed
from miner.task.stages import TemporaryS3
from tests.unit.media.signer import botocore_signature

CREDENTIAL = TemporaryS3(access_key_id="AKIATEST", secret_access_key="TopSecret", session_token="SessionToken")


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("path", ["", "/", "/bucket/a%20b/~x-y_z.png", "/b/%C3%BC%2B%26.mp4"])
@pytest.mark.parametrize(
    "query",
    [
        "",
        "?uploads",
        "?uploads=",
        "?uploadId=a-b_c.d~e",
        "?partNumber=10&uploadId=x%2Fy%3D%3D%2B",
        "?uploadId=2&partNumber=1",  # not in order
        "?a=2&a=1&B=3&a%20=0&a=",
        "?x=a=b",
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_it_is_botocores(method: str, query: str, path: str, service: str) -> None:
    made = signed(
        method,
        f"https://store.test{path}{query}",
        CREDENTIAL,
        region="eu-west-3",
        host="store.test:9000",
        at=1_700_000_000.5,
        payload=UNSIGNED,
        service=service,
    )
    headers = {"host": "store.test:9000", **{name.lower(): value for name, value in made.items()}}
    theirs = botocore_signature(method, f"{path or '/'}{query}", headers, CREDENTIAL)
    assert headers["authorization"].endswith(f"Signature={theirs}")
    assert headers["x-amz-security-token"] == CREDENTIAL.session_token
