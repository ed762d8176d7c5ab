"""Temporary S3 credentials against a real S3, through a store that records each request and refuses on demand."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest

from miner.media.uploads import Uploader
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, TemporaryS3
from tests.support.s3 import running_s3
from tests.unit.media.store import Store

Make = Callable[[bytes | int], Media]
Uploaders = Callable[..., Uploader]
TARGET = TemporaryS3(access_key_id="AKIATEST", secret_access_key="TopSecret", session_token="SessionToken")
"""Credentials that nobody gave."""
KEY = "results/flux-lora-0xA-task_1.png"
OBJECT = f"/results/{KEY}"


@pytest.fixture
def good() -> TemporaryS3:
    return TemporaryS3(**running_s3().credential)


def test_a_small_file_is_one_signed_put_with_its_type(
    store: Store, uploader: Uploader, media: Make, good: TemporaryS3
) -> None:
    file = media(100_000)
    uploader.upload(file, good, key=KEY)
    assert running_s3().get(KEY) == file.path.read_bytes()
    (call,) = store.requests
    headers = {name.lower(): value for name, value in call.headers.items()}
    assert (call.method, call.target) == ("PUT", OBJECT)
    assert headers["content-type"] == "image/png"
    assert headers["x-amz-security-token"] == good.session_token
    assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={good.access_key_id}/")


@pytest.mark.parametrize("part", ["access_key_id", "secret_access_key", "session_token"])
def test_s3_refuses_credentials_of_which_one_part_is_wrong(
    uploader: Uploader, media: Make, good: TemporaryS3, part: str
) -> None:
    with pytest.raises(JobFault, match="refused the file"):
        uploader.upload(media(b"x"), replace(good, **{part: "wrong"}), key=f"wrong-{part}.png")
    assert not running_s3().has(f"wrong-{part}.png")


def test_a_large_file_is_streamed_as_one_object(
    store: Store, uploader: Uploader, media: Make, good: TemporaryS3
) -> None:
    file = media(20 << 20)
    told: list[int] = []
    uploader.upload(file, good, key=KEY, progress=lambda sent, _size: told.append(sent))
    assert running_s3().get(KEY) == file.path.read_bytes()
    assert [call.size for call in store.requests] == [20 << 20]
    assert told == sorted(told)
    assert told[-1] == 20 << 20


@pytest.mark.parametrize("name", ["a b.png", "ü+&=@.png", "100%.png", "(1)!'*.png", "~x,y;z:$.png"])
def test_a_prefix_of_any_letters_is_signed_as_it_is_sent(
    uploader: Uploader, media: Make, good: TemporaryS3, name: str
) -> None:
    uploader.upload(media(b"x"), good, key=f"results/{name}")
    assert running_s3().get(f"results/{name}") == b"x"


def test_the_environment_of_other_programs_has_no_say(
    store: Store, uploader: Uploader, media: Make, good: TemporaryS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store() as other:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        uploader.upload(media(b"of its own"), good, key=KEY)
        assert other.requests == []
        monkeypatch.undo()
    assert running_s3().get(KEY) == b"of its own"
    assert f"Credential={good.access_key_id}/" in str(store.requests[0].headers)
    assert "/auto/s3/" in str(store.requests[0].headers)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (400, JobFault, "refused the file"),
        (401, JobFault, "refused the file"),
        (403, JobFault, "refused the file"),
        (409, JobFault, "refused the file"),
        (413, JobFault, "refused the file"),
        (404, MachineFault, "no such bucket"),
        (429, Retryable, "answered 429"),
        (503, Retryable, "answered 503"),
    ],
)
@pytest.mark.parametrize("size", [10, 9 << 20])
def test_each_refusal_says_whose_fault_it_is(
    store: Store, uploader: Uploader, media: Make, status: int, kind: type[Exception], says: str, size: int
) -> None:
    store.knobs.status, store.knobs.headers = status, {"Location": f"{store.url}/elsewhere"}
    with pytest.raises(kind, match=says) as caught:
        uploader.upload(media(size), TARGET, key=KEY)
    text = "".join(traceback.format_exception(caught.value))
    assert not re.search(r"TopSecret|SessionToken|AKIATEST|127\.0\.0\.1|elsewhere", str(caught.value))
    assert not re.search(r"TopSecret|SessionToken|AKIATEST", text)
    assert {call.path for call in store.requests} == {OBJECT}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_a_file_is_the_settings_fault(store: Store, uploader: Uploader, media: Make, status: int) -> None:
    store.knobs.status, store.knobs.headers = status, {"Location": f"{store.url}/elsewhere"}
    with pytest.raises(MachineFault, match="redirects"):
        uploader.upload(media(b"x"), TARGET, key=KEY)
    assert [call.path for call in store.requests] == [OBJECT]


@pytest.mark.parametrize("size", [10, 9 << 20])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_reaches_nobody(
    store: Store, uploader: Uploader, media: Make, status: int, size: int
) -> None:
    with Store() as other:
        store.knobs.status, store.knobs.headers = status, {"Location": f"http://localhost:{other.port}/elsewhere"}
        with pytest.raises((MachineFault, Retryable)):
            uploader.upload(media(size), TARGET, key=KEY)
        assert other.requests == []


def test_a_store_that_stops_answering_is_given_up_in_time(store: Store, uploader_of: Uploaders, media: Make) -> None:
    store.bodies = "leave"
    with pytest.raises(Retryable, match=r"neither took nor sent anything for 0\.3 s"):
        uploader_of(store, timeout=0.3).upload(media(9 << 20), TARGET, key=KEY)


def test_a_store_that_is_away_is_to_be_tried_again(uploader_of: Uploaders, media: Make) -> None:
    with Store() as gone:
        pass
    with pytest.raises(Retryable, match="connection to the server failed"):
        uploader_of(gone).upload(media(b"x"), TARGET, key=KEY)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("https://store.test", "not public"),  # one of the two addresses of its name is private
        ("https://127.0.0.1", "not public"),
        ("https://169.254.169.254", "not public"),
        ("http://example.com", "not https"),
        ("https://example.com:9000", "neither 80 nor 443"),
        ("nonsense", "plain http or https URL"),
    ],
)
def test_a_private_endpoint_has_to_be_allowed(
    store: Store, uploader_of: Uploaders, media: Make, endpoint: str, says: str
) -> None:
    guarded = uploader_of(store, endpoint=endpoint, resolve=lambda _host, _port: ["93.184.216.34", "10.0.0.1"])
    for use in (lambda: guarded.check(TARGET), lambda: guarded.upload(media(b"x"), TARGET, key=KEY)):
        with pytest.raises(MachineFault, match=says) as caught:
            use()
        assert ("[upload] endpoint" in caught.value.hint, caught.value.fault) == (True, "upload")


def test_without_a_bucket_the_operator_is_told_what_to_set(store: Store, uploader_of: Uploaders, media: Make) -> None:
    without = uploader_of(store, allow=frozenset(), bucket="")
    for use in (lambda: without.check(TARGET), lambda: without.upload(media(b"x"), TARGET, key=KEY)):
        with pytest.raises(MachineFault) as caught:
            use()
        assert "[upload] bucket" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (404, "<Error><Code>NoSuchBucket</Code></Error>", True),
        (301, "<Error><Code>PermanentRedirect</Code></Error>", True),
        (404, "<Error><Code>NoSuchKey</Code></Error>", False),  # the bucket is there
        (404, "not S3", False),  # nor sure to be
        (403, "<Error><Code>AccessDenied</Code></Error>", False),  # it may be for uploads alone
        (503, "<Error><Code>SlowDown</Code></Error>", False),
    ],
)
def test_a_bucket_is_looked_for_before_a_render_and_once(
    store: Store, uploader: Uploader, status: int, body: str, fault: bool
) -> None:
    store.knobs.status, store.knobs.body = status, body.encode()
    for _ in range(2):
        if fault:
            with pytest.raises(MachineFault, match="no such bucket") as caught:
                uploader.check(TARGET)
            assert caught.value.fault == "upload"
        else:
            uploader.check(TARGET)
    assert [call.method for call in store.requests] == ["GET"] * (2 if fault else 1)


def test_a_missing_bucket_of_a_real_s3_is_found_before_a_render(
    store: Store, uploader_of: Uploaders, good: TemporaryS3
) -> None:
    uploader_of(store).check(good)
    with pytest.raises(MachineFault, match="no such bucket"):
        uploader_of(store, bucket="missing").check(good)


def test_a_file_that_shrinks_leaves_no_object(uploader: Uploader, media: Make, good: TemporaryS3) -> None:
    for size in (1000, 9 << 20):
        file = media(size)
        with pytest.raises(MachineFault, match="became shorter"):
            uploader.upload(replace(file, size=size + 1), good, key="shrunk.png")
    assert not running_s3().has("shrunk.png")


@pytest.mark.parametrize("key", ["../x", "a//b", "a/../b", "a\nb"])
def test_a_key_that_s3_does_not_take_is_the_settings_fault(
    store: Store, uploader: Uploader, media: Make, key: str
) -> None:
    with pytest.raises(MachineFault) as caught:
        uploader.upload(media(b"x"), TARGET, key=key)
    assert "[upload] prefix" in caught.value.hint
    assert store.requests == []
