"""A real S3 with temporary credentials: moto's, one a process, with one bucket.

It checks signatures and session tokens, as AWS does: anybody but `credential` is refused.
"""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "results"
ROLE = "arn:aws:iam::123456789012:role/miner"  # moto's account
ALLOW = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


class S3:
    """`credential` is as a lease hands it out."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        self.url = "http://{}:{}".format(*server.get_host_and_port())
        anybody = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        self._client("s3", anybody).create_bucket(Bucket=BUCKET)
        iam = self._client("iam", anybody)
        iam.create_role(RoleName="miner", AssumeRolePolicyDocument=_policy())
        iam.put_role_policy(RoleName="miner", PolicyName="all", PolicyDocument=_policy(ALLOW))
        given = self._client("sts", anybody).assume_role(RoleArn=ROLE, RoleSessionName="miner")["Credentials"]
        self.credential = {
            "access_key_id": given["AccessKeyId"],
            "secret_access_key": given["SecretAccessKey"],
            "session_token": given["SessionToken"],
        }
        requests.post(f"{self.url}/moto-api/reset-auth", data="0", timeout=30).raise_for_status()  # from now on checked
        self._s3 = self._client("s3", {f"aws_{name}": value for name, value in self.credential.items()})

    def get(self, key: str) -> bytes:
        """The object; raises where it is missing."""
        return self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def has(self, key: str) -> bool:
        return self._s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] > 0

    def unfinished(self) -> int:
        """Uploads in parts that were neither completed nor aborted."""
        return len(self._s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))

    def _client(self, service: str, keys: dict[str, str]) -> Any:
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **keys)


def _policy(*statements: dict[str, str]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@functools.cache
def running_s3() -> S3:
    """The one of this process, started when it is first asked for; its thread is a daemon."""
    return S3()
