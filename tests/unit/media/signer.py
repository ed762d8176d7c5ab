"""Amazon's own signer, for what ours says."""

from __future__ import annotations

from collections.abc import Mapping

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from miner.task.stages import TemporaryS3

SIGNED = ("content-type", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token")


def botocore_signature(
    method: str, target: str, headers: Mapping[str, str], credential: TemporaryS3, *, body: bytes = b""
) -> str:
    """The signature that botocore makes of a request with `headers` (in lower case), for what its claim names."""
    claim = headers["authorization"]
    names = claim.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert "host" in names
    region, service = claim.partition("Credential=")[2].split("/")[2:4]
    kept = {name: headers[name] for name in names if name in SIGNED and name != "x-amz-date"}
    again = botocore.awsrequest.AWSRequest(method, f"http://{headers['host']}{target}", headers=kept, data=body)
    again.context["timestamp"] = headers["x-amz-date"]
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    signer = kind(
        botocore.credentials.Credentials(
            credential.access_key_id, credential.secret_access_key, credential.session_token
        ),
        service,
        region,
    )
    again.headers["X-Amz-Date"] = headers["x-amz-date"]
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))
