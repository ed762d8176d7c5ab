"""Uploads with temporary S3 credentials: by obstore, as the miner does it, and by hand where they are to be wrong."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import obstore
import pytest
import requests
from obstore.store import S3Store

from miner.devnet.sigv4 import BadSignature, SignedRequest
from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import DETAILS, MINER, Talk

MB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A leased task, and the store as its credentials open it."""

    talk: Talk
    task: dict[str, Any]

    @property
    def key(self) -> str:
        return f"some/prefix/wf ü-{MINER}-{self.task['task_id']}.png"

    def open(self, bucket: str = "results", *, checksum_algorithm: str | None = None, **config: Any) -> S3Store:
        config = {"endpoint": f"{self.talk.devnet.url}/s3", "region": "auto", **self.task["credential"], **config}
        if checksum_algorithm:
            config["checksum_algorithm"] = checksum_algorithm
        return S3Store(bucket, **config, client_options={"allow_http": True}, retry_config={"max_retries": 0})

    def submit(self) -> int:
        return self.talk.answer(self.task, result=self.key).status_code


def lease(talk: Talk) -> Bucket:
    talk.devnet.create(task_type="upscaler", task_details=DETAILS, workflow_id="4", target="s3")
    return Bucket(talk=talk, task=talk.lease())


@pytest.fixture
def bucket(talk: Talk) -> Bucket:
    return lease(talk)


@pytest.mark.parametrize(
    "config", [{}, {"unsigned_payload": True}, {"checksum_algorithm": "SHA256"}], ids=["signed", "unsigned", "checksum"]
)
def test_an_object_is_put_and_answers_the_task(bucket: Bucket, config: dict[str, Any]) -> None:
    store = bucket.open(**config)
    obstore.put(store, bucket.key, b"a picture", attributes={"Content-Type": "image/png"})
    assert bucket.submit() == 200
    answer = bucket.talk.query(bucket.task["task_id"], "devnet")
    assert answer["result"] == bucket.key
    got = bucket.talk.session.get(answer["result_url"], timeout=5)
    assert (got.content, got.headers["Content-Type"]) == (b"a picture", "image/png")


def test_a_large_file_is_put_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(os.urandom(MB) * 12 + b"tail")
    store = bucket.open()
    obstore.put(store, bucket.key, video, use_multipart=True, chunk_size=5 * MB, max_concurrency=3)
    assert obstore.head(store, bucket.key)["size"] == 12 * MB + 4
    assert obstore.get(store, bucket.key).bytes() == video.read_bytes()
    assert bytes(obstore.get_range(store, bucket.key, start=12 * MB, length=4)) == b"tail"
    assert bucket.talk.devnet.stats()["store"] == {"objects": 1, "bytes": 12 * MB + 4}
    assert bucket.talk.violations() == []


def test_an_upload_in_parts_that_breaks_off_is_aborted_and_leaves_nothing(bucket: Bucket) -> None:

    def breaking() -> Iterator[bytes]:
        yield b"x" * (6 * MB)
        raise ValueError("the disk is gone")

    with pytest.raises(ValueError, match="the disk is gone"):
        obstore.put(bucket.open(), bucket.key, breaking(), chunk_size=5 * MB)
    assert bucket.talk.files() == []
    assert bucket.talk.devnet.stats()["store"]["objects"] == 0


def test_a_part_that_is_too_small_is_refused(bucket: Bucket) -> None:
    with pytest.raises(Exception, match="EntityTooSmall"):
        obstore.put(bucket.open(), bucket.key, b"x" * 2 * MB, use_multipart=True, chunk_size=MB)


@pytest.mark.parametrize("part", ["access_key_id", "secret_access_key", "session_token"])
def test_wrong_credentials_are_refused_and_counted(bucket: Bucket, part: str) -> None:
    with pytest.raises(obstore.exceptions.PermissionDeniedError):
        obstore.put(bucket.open(**{part: "wrong"}), bucket.key, b"x")
    assert bucket.talk.devnet.stats()["violations"] == 1


@pytest.mark.parametrize("key", ["result.png", f"wf-{MINER}-another.png", "wf-{task}.png", "{good}/more.png"])
def test_credentials_open_their_own_tasks_object_only(bucket: Bucket, key: str) -> None:
    with pytest.raises(obstore.exceptions.PermissionDeniedError, match="AccessDenied"):
        obstore.put(bucket.open(), key.format(task=bucket.task["task_id"], good=bucket.key), b"x")


def test_another_bucket_is_not_there(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        obstore.put(bucket.open("inputs"), bucket.key, b"x")


def test_an_object_stays_as_it_is_once_the_task_is_answered(bucket: Bucket) -> None:
    obstore.put(bucket.open(), bucket.key, b"x")
    assert bucket.submit() == 200
    with pytest.raises(Exception, match="must not change"):
        obstore.put(bucket.open(), bucket.key, b"y")


def test_credentials_expire(start: Start) -> None:
    bucket = lease(start(upload_ttl=0.001))
    with pytest.raises(Exception, match="ExpiredToken"):
        obstore.put(bucket.open(), bucket.key, b"x")


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [("DELETE", "", 403), ("POST", "", 501), ("POST", "?uploadId=no", 404), ("PUT", "?uploadId=no&partNumber=1", 404)],
)
def test_what_is_not_there_is_refused_as_in_s3(bucket: Bucket, method: str, query: str, status: int) -> None:
    reply = send(bucket, method, query=query)
    assert reply.status_code == status
    assert "<Code>" in reply.text


def test_a_body_that_is_not_the_signed_one_is_refused(bucket: Bucket) -> None:
    reply = send(bucket, "PUT", body=b"other", signed_body=b"a picture")
    assert (reply.status_code, "XAmzContentSHA256Mismatch" in reply.text) == (400, True)
    assert send(bucket, "GET").status_code == 404


def test_a_missing_object_is_404_and_no_violation(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError):
        obstore.head(bucket.open(), bucket.key)
    assert bucket.talk.violations() == []


@pytest.mark.parametrize("listing", [b"", b"<Complete", b"<A><Part><PartNumber>x</PartNumber></Part></A>", b"<A/>"])
def test_a_list_of_parts_that_is_wrong_is_refused(bucket: Bucket, listing: bytes) -> None:
    begun = send(bucket, "POST", query="?uploads=").text
    upload_id = begun.partition("<UploadId>")[2].partition("</UploadId>")[0]
    assert send(bucket, "PUT", query=f"?partNumber=1&uploadId={upload_id}", body=b"part").status_code == 200
    assert send(bucket, "POST", query=f"?uploadId={upload_id}", body=listing).status_code == 400


# The example "GET Object" of AWS's "Authenticating Requests: Using the Authorization Header", with its own answer.
EXAMPLE = SignedRequest(
    method="GET",
    path="/test.txt",
    query="",
    headers={
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-amz-date": "20130524T000000Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    },
)
EXAMPLE_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC).timestamp()


def test_the_signature_is_the_one_of_awss_own_example() -> None:
    assert EXAMPLE.check(secret=EXAMPLE_SECRET, token="", now=EXAMPLE_TIME) == EXAMPLE.headers["x-amz-content-sha256"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "PUT"}, "the signature"),
        ({"path": "/test.tx"}, "the signature"),
        ({"query": "acl"}, "the signature"),
        ({"headers": {"range": "bytes=0-8"}}, "the signature"),
        ({"headers": {"x-amz-acl": "public-read"}}, "x-amz-acl is not both"),
        ({"headers": {"x-amz-date": "now"}}, "not a time"),
        ({"headers": {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}}, "the signature"),
        ({"headers": {"authorization": "AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo"}}, "no Authorization"),
    ],
)
def test_what_was_changed_after_signing_is_refused(change: dict[str, Any], reason: str) -> None:
    headers = {**EXAMPLE.headers, **change.pop("headers", {})}
    with pytest.raises(BadSignature, match=reason):
        replace(EXAMPLE, headers=headers, **change).check(secret=EXAMPLE_SECRET, token="", now=EXAMPLE_TIME)


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_signature_of_another_time_is_refused(minutes: int) -> None:
    now = EXAMPLE_TIME + timedelta(minutes=minutes).total_seconds()
    with pytest.raises(BadSignature, match="from now"):
        EXAMPLE.check(secret=EXAMPLE_SECRET, token="", now=now)


def send(
    bucket: Bucket, method: str, *, query: str = "", body: bytes = b"", signed_body: bytes | None = None
) -> requests.Response:
    """A request signed by hand, to say what obstore never would."""
    credential, url = bucket.task["credential"], f"{bucket.talk.devnet.url}/s3/results/{quote(bucket.key)}{query}"
    now, parts = datetime.now(UTC), urlsplit(url)
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": hashlib.sha256(body if signed_body is None else signed_body).hexdigest(),
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-security-token": credential["session_token"],
    }
    names, lines = ";".join(headers), "".join(f"{name}:{value}\n" for name, value in headers.items())
    pairs = "&".join(sorted(pair if "=" in pair else f"{pair}=" for pair in parts.query.split("&") if pair))
    canonical = "\n".join((method, parts.path, pairs, lines, names, headers["x-amz-content-sha256"]))
    scope = f"{now:%Y%m%d}/auto/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + credential["secret_access_key"].encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    who = f"{credential['access_key_id']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={who}, SignedHeaders={names}, Signature={key.hex()}"
    return bucket.talk.session.request(method, url, data=body, headers=headers, timeout=5)
