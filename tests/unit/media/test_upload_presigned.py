"""Presigned URLs against a store over real sockets."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from miner.media.uploads import Uploader
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, PresignedPut
from tests.unit.media.store import Store

Make = Callable[[bytes | int], Media]
Uploaders = Callable[..., Uploader]


def target(store: Store, path: str = "/bucket/key.png?X-Amz-Signature=TopSecret", **headers: str) -> PresignedPut:
    return PresignedPut(url=f"{store.url}{path}", headers=headers)


def test_the_file_arrives_whole_with_its_length_and_the_targets_headers_alone(
    store: Store, uploader: Uploader, media: Make
) -> None:
    file = media(1_000_000)
    uploader.upload(file, target(store, **{"Content-Type": "image/png", "x-amz-acl": "private"}), key="")
    assert store.objects == {"/bucket/key.png": file.path.read_bytes()}
    (call,) = store.requests
    assert (call.method, call.target) == ("PUT", "/bucket/key.png?X-Amz-Signature=TopSecret")
    assert {name.lower(): value for name, value in call.headers.items()} == {
        "host": f"127.0.0.1:{store.port}",
        "content-length": "1000000",
        "content-type": "image/png",
        "x-amz-acl": "private",
        "accept-encoding": "identity",
        "user-agent": call.headers["User-Agent"],
    }


def test_one_connection_serves_several_uploads(store: Store, uploader: Uploader, media: Make) -> None:
    for number in range(3):
        uploader.upload(media(b"%d" % number), target(store, f"/bucket/{number}"), key="")
    assert store.objects == {"/bucket/0": b"0", "/bucket/1": b"1", "/bucket/2": b"2"}
    assert store.accepted == 1


def test_progress_rises_to_the_whole_file(store: Store, uploader: Uploader, media: Make) -> None:
    told: list[tuple[int, int]] = []
    uploader.upload(media(1_000_000), target(store), key="", progress=lambda sent, size: told.append((sent, size)))
    assert told == sorted(told)
    assert told[-1] == (1_000_000, 1_000_000)
    assert len(told) > 2


def test_a_file_is_not_held_in_memory(store: Store, uploader: Uploader, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    store.bodies = "drop"
    tracemalloc.start()
    try:
        uploader.upload(Media(path=path, content_type="video/mp4", size=64 << 20), target(store), key="")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.requests[0].size == 64 << 20
    assert peak < 4 << 20


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_status_of_success_is_one(store: Store, uploader: Uploader, media: Make, status: int) -> None:
    store.knobs.status = status
    uploader.upload(media(b"x"), target(store), key="")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 411, 412, 413, 451])
def test_a_refusal_is_the_tasks_fault_and_names_the_status(
    store: Store, uploader: Uploader, media: Make, status: int
) -> None:
    store.knobs.status = status
    with pytest.raises(JobFault) as caught:
        uploader.upload(media(b"x"), target(store), key="")
    assert caught.value.message == f"the upload target refused the file ({status})"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_to_be_tried_again(store: Store, uploader: Uploader, media: Make, status: int) -> None:
    store.knobs.status, store.knobs.headers = status, {"Retry-After": "7"}
    with pytest.raises(Retryable, match=str(status)) as caught:
        uploader.upload(media(b"x"), target(store), key="")
    assert caught.value.retry_after == 7.0
    assert len(store.requests) == 1  # the lane asks again, not this


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(store: Store, uploader: Uploader, media: Make, status: int) -> None:
    store.knobs.status, store.knobs.headers = status, {"Location": f"{store.url}/elsewhere"}
    with pytest.raises(JobFault, match=rf"redirects \({status}\)"):
        uploader.upload(media(b"x"), target(store), key="")
    assert [call.path for call in store.requests] == ["/bucket/key.png"]


def test_a_store_that_is_away_is_to_be_tried_again(uploader_of: Uploaders, media: Make) -> None:
    with Store() as gone:
        pass
    with pytest.raises(Retryable, match="connection to the server failed"):
        uploader_of(gone).upload(media(b"x"), target(gone), key="")


def test_an_upload_after_a_failed_one_succeeds(store: Store, uploader: Uploader, media: Make) -> None:
    store.knobs.status, store.knobs.failures = 503, 1
    with pytest.raises(Retryable):
        uploader.upload(media(b"x"), target(store), key="")
    uploader.upload(media(b"x"), target(store), key="")
    assert store.objects == {"/bucket/key.png": b"x"}


def test_a_store_that_stops_reading_is_given_up_in_time(store: Store, uploader_of: Uploaders, media: Make) -> None:
    store.bodies = "leave"
    with pytest.raises(Retryable, match=r"neither took nor sent anything for 0\.3 s"):
        uploader_of(store, timeout=0.3).upload(media(16 << 20), target(store), key="")


def test_no_error_holds_the_urls_secret_or_the_stores_words(
    store: Store, uploader: Uploader, uploader_of: Uploaders, media: Make
) -> None:
    with Store() as gone:
        pass
    anywhere = uploader_of(gone)
    store.knobs.status = 403
    for one, where in ((uploader, target(store)), (anywhere, target(gone)), (anywhere, target(store))):
        with pytest.raises((JobFault, Retryable)) as caught:
            one.upload(media(b"x"), where, key="")
        assert "TopSecret" not in "".join(traceback.format_exception(caught.value))
        assert "127.0.0.1" not in caught.value.message


def test_a_file_that_shrinks_is_this_machines_fault(store: Store, uploader: Uploader, media: Make) -> None:
    file = media(1_000_000)
    with file.path.open("r+b") as shrunk:
        shrunk.truncate(999_999)
    with pytest.raises(MachineFault, match="became shorter"):
        uploader.upload(file, target(store), key="")
    assert store.objects == {}
    uploader.upload(media(b"x"), target(store), key="")
    assert store.objects == {"/bucket/key.png": b"x"}


def test_a_file_that_grows_is_sent_as_long_as_it_was(store: Store, uploader: Uploader, media: Make) -> None:
    file = media(b"before")
    with file.path.open("ab") as grown:
        grown.write(b" and after")
    uploader.upload(file, target(store), key="")
    assert store.objects == {"/bucket/key.png": b"before"}


def test_a_file_that_is_gone_is_this_machines_fault(store: Store, uploader: Uploader, media: Make) -> None:
    file = media(b"x")
    file.path.unlink()
    with pytest.raises(MachineFault, match="cannot be read"):
        uploader.upload(file, target(store), key="")
    assert store.requests == []
