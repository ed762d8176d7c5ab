"""Large files for S3 in parts, against a real S3 behind a store that fails on demand."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from miner.media.s3_parts import MOST_PARTS, Parts
from miner.media.uploads import Uploader
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.stages import Media, TemporaryS3
from tests.support.s3 import running_s3
from tests.support.scripted_server import RESET, Request, Said, head, reply
from tests.unit.media.store import Store

Uploaders = Callable[..., Uploader]
PART = 5 << 20  # S3's least
QUICK = Parts(above=6 << 20, size=PART, tries=3, pause=0.001)
NOBODY = TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c")
SMALL = replace(QUICK, above=9, size=10)
KEY = "results/hunyuan-fp8-0xA-task_1.mp4"
ERROR = b'<?xml version="1.0"?>\n<Error><Code>%s</Code><Message>TopSecret</Message></Error>'
DONE = b"<CompleteMultipartUploadResult><Location>x</Location></CompleteMultipartUploadResult>"
UNDONE = reply(ERROR % b"InternalError")  # a 200
FORGOTTEN = reply(ERROR % b"NoSuchUpload", status=404)


class Faulty(Store):
    """Says `fault` to the first `faults` requests of a kind ("create", "part 2", "complete", "abort")."""

    kind, faults = "", 0
    _fault: Callable[[], Said]

    def fail(self, kind: str, fault: Callable[[], Said], times: int = 1) -> None:
        self.kind, self._fault, self.faults = kind, fault, times

    def respond(self, request: Request) -> Said:
        if kind_of(request) == self.kind and self.faults:
            self.faults -= 1
            return self._fault()
        return super().respond(request)


def kind_of(request: Request) -> str:
    query = parse_qs(request.query, keep_blank_values=True)
    if "partNumber" in query:
        return f"part {query['partNumber'][0]}"
    named = {"POST": "complete" if "uploadId" in query else "create", "DELETE": "abort"}
    return named.get(request.method, "whole")


class Scripted(Faulty):
    """An S3 that checks no signature and takes parts of any size."""

    whole: bytes | None = None

    def __init__(self) -> None:
        self.parts: dict[str, bytes] | None = None  # of the unfinished upload
        super().__init__()

    def respond(self, request: Request) -> Said:
        kind = kind_of(request)
        if kind == self.kind and self.faults:
            return super().respond(request)
        if kind == "create":
            self.parts = {}
            return reply(b"<InitiateMultipartUploadResult><UploadId> a&amp;b/c= </UploadId></Initi>")
        if kind == "whole":
            self.whole = request.body
            return reply(b"")
        assert parse_qs(request.query)["uploadId"] == ["a&b/c="]
        assert self.parts is not None
        if kind == "abort":
            self.parts = None
            return reply(b"", status=204)
        if kind == "complete":
            assert re.findall(rb"<PartNumber>(.)</PartNumber><ETag>&lt;(.)&gt;</ETag>", request.body) == [
                (number.encode(), number.encode()) for number in self.parts
            ]
            self.whole, self.parts = b"".join(self.parts.values()), None
            return reply(DONE)
        number = kind.removeprefix("part ")
        self.parts[number] = request.body
        return reply(b"", f"ETag: <{number}>")


@pytest.fixture
def store() -> Iterator[Faulty]:
    with Faulty() as store:
        yield store


@pytest.fixture
def good() -> TemporaryS3:
    return TemporaryS3(**running_s3().credential)


@pytest.fixture
def video(tmp_path: Path) -> Media:
    """Two parts and a rest."""
    path = tmp_path / "result.mp4"
    path.write_bytes(random.Random(7).randbytes(2 * PART + 1000))
    return Media(path=path, content_type="video/mp4", size=2 * PART + 1000)


@pytest.fixture
def small(tmp_path: Path) -> Media:
    (tmp_path / "small.mp4").write_bytes(bytes(range(25)))
    return Media(path=tmp_path / "small.mp4", content_type="video/mp4", size=25)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as store:
        yield store


def kinds(store: Store) -> list[str]:
    return [kind_of(request) for request in store.requests]


@pytest.mark.parametrize(
    ("size", "count", "least"),
    [
        ((64 << 20) + 1, 5, 1),
        (80 << 20, 5, 16 << 20),
        (16 * MOST_PARTS << 20, MOST_PARTS, 16 << 20),
        ((16 * MOST_PARTS << 20) + 1, MOST_PARTS, 1 << 20),
        (5 << 40, MOST_PARTS, 1 << 20),  # S3's largest object
    ],
)
def test_parts_are_equal_but_the_last_and_no_more_than_s3_takes(size: int, count: int, least: int) -> None:
    spans = Parts().spans(size)
    sizes = [span for _, span in spans]
    assert [start for start, _ in spans] == [sizes[0] * number for number in range(len(spans))]
    assert (sum(sizes), len(set(sizes[:-1]))) == (size, 1)
    assert count - 10 < len(sizes) <= count
    assert (sizes[0] >= 16 << 20, least <= sizes[-1] <= sizes[0] <= 5 << 30) == (True, True)


def test_a_large_file_goes_in_parts(store: Faulty, uploader_of: Uploaders, video: Media, good: TemporaryS3) -> None:
    told: list[tuple[int, int]] = []
    uploader_of(store, parts=QUICK).upload(video, good, key=KEY, progress=lambda *sent: told.append(sent))
    assert running_s3().get(KEY) == video.path.read_bytes()
    assert kinds(store) == ["create", "part 1", "part 2", "part 3", "complete"]
    assert [request.size for request in store.requests[1:4]] == [PART, PART, 1000]
    assert {request.headers["x-amz-security-token"] for request in store.requests} == {good.session_token}
    assert store.requests[0].headers["content-type"] == "video/mp4"
    assert (told, told[-1]) == (sorted(told), (video.size, video.size))
    assert (running_s3().unfinished(), store.accepted) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("part 2", lambda: reply(b"", status=503)),
        ("part 2", lambda: reply(b"", "Retry-After: 0", status=429)),
        ("part 3", lambda: [RESET]),
        ("part 1", lambda: reply(b"")),  # without an ETag
        ("complete", lambda: UNDONE),
        ("complete", lambda: reply(b"")),
        ("complete", lambda: [RESET]),
        ("complete", lambda: [head(200, "Content-Length: 900"), b"<CompleteMultipart"]),
    ],
)
def test_what_fails_once_is_sent_again_alone(
    scripted: Scripted, uploader_of: Uploaders, small: Media, kind: str, fault: Callable[[], Said]
) -> None:
    scripted.fail(kind, fault)
    uploader_of(scripted, parts=SMALL).upload(small, NOBODY, key=KEY)
    asked = kinds(scripted)
    assert (scripted.whole, scripted.parts) == (small.path.read_bytes(), None)
    assert [asked.count(one) for one in ("create", "part 1", "part 2", "part 3", "complete")] == [
        1 + (one == kind) for one in ("create", "part 1", "part 2", "part 3", "complete")
    ]


@pytest.mark.parametrize("fault", [lambda: reply(b"", status=503), lambda: [RESET]])
def test_a_real_s3_takes_a_part_again(
    store: Faulty, uploader_of: Uploaders, video: Media, good: TemporaryS3, fault: Callable[[], Said]
) -> None:
    store.fail("part 2", fault)
    uploader_of(store, parts=QUICK).upload(video, good, key="again.mp4")
    assert running_s3().get("again.mp4") == video.path.read_bytes()
    assert kinds(store) == ["create", "part 1", "part 2", "part 2", "part 3", "complete"]
    assert running_s3().unfinished() == 0


def test_a_part_that_stands_still_is_sent_again(scripted: Scripted, uploader_of: Uploaders, small: Media) -> None:
    scripted.fail("part 2", lambda: [scripted.stopping])
    uploader_of(scripted, parts=SMALL, timeout=0.5).upload(small, NOBODY, key=KEY)
    assert kinds(scripted) == ["create", "part 1", "part 2", "part 2", "part 3", "complete"]


def test_no_part_outlasts_the_time_for_all(scripted: Scripted, uploader_of: Uploaders, small: Media) -> None:
    scripted.fail("part 3", lambda: [scripted.stopping], times=9)
    with pytest.raises(Retryable, match="did not take everything"):
        uploader_of(scripted, parts=SMALL).upload(small, NOBODY, key=KEY, within=0.5)
    assert kinds(scripted) == ["create", "part 1", "part 2", "part 3", "abort"]


@pytest.mark.parametrize(
    ("kind", "fault", "error", "tries"),
    [
        ("part 2", lambda: reply(b"", status=503), Retryable, 3),
        ("part 2", lambda: reply(b"", "Retry-After: 600", status=503), Retryable, 1),  # the lane will wait
        ("part 2", lambda: [RESET], Retryable, 3),
        ("part 2", lambda: reply(ERROR % b"TopSecret", status=403), JobFault, 1),
        ("part 2", lambda: reply(b"", "Location: http://localhost/", status=307), MachineFault, 1),
        ("part 2", lambda: FORGOTTEN, Retryable, 1),
        ("complete", lambda: UNDONE, Retryable, 3),
        ("complete", lambda: reply(ERROR % b"InvalidPart", status=400), JobFault, 1),
        ("complete", lambda: reply(ERROR % b"NoSuchUpload"), Retryable, 1),
    ],
)
def test_an_upload_that_is_given_up_is_aborted(
    scripted: Scripted,
    uploader_of: Uploaders,
    small: Media,
    kind: str,
    fault: Callable[[], Said],
    error: type[Exception],
    tries: int,
) -> None:
    scripted.fail(kind, fault, times=9)
    with pytest.raises(error) as caught:
        uploader_of(scripted, parts=SMALL).upload(small, NOBODY, key=KEY)
    assert "TopSecret" not in str(caught.value)
    assert (kinds(scripted).count(kind), kinds(scripted)[-1]) == (tries, "abort")
    assert (scripted.whole, scripted.parts) == (None, None)


def test_an_abort_leaves_nothing_in_a_real_s3(
    store: Faulty, uploader_of: Uploaders, video: Media, good: TemporaryS3
) -> None:
    uploader = uploader_of(store, parts=QUICK)
    with pytest.raises(MachineFault, match="became shorter"):
        uploader.upload(replace(video, size=video.size + 1), good, key="given-up.mp4")
    store.fail("complete", lambda: UNDONE, times=9)
    with pytest.raises(Retryable, match="put the parts together"):
        uploader.upload(video, good, key="given-up.mp4")
    assert kinds(store).count("abort") == 2
    assert (running_s3().unfinished(), running_s3().has("given-up.mp4")) == (0, False)


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_store_without_parts_gets_the_file_whole(
    scripted: Scripted, uploader_of: Uploaders, small: Media, status: int
) -> None:
    scripted.fail("create", lambda: reply(b"", status=status))
    uploader_of(scripted, parts=SMALL).upload(small, NOBODY, key=KEY)
    assert (kinds(scripted), scripted.whole) == (["create", "whole"], small.path.read_bytes())


def test_without_the_session_token_nothing_is_taken(
    store: Faulty, uploader_of: Uploaders, video: Media, good: TemporaryS3
) -> None:
    with pytest.raises(JobFault, match="refused the file"):  # parts, and then the whole
        uploader_of(store, parts=QUICK).upload(video, replace(good, session_token="wrong"), key="wrong.mp4")
    assert (running_s3().unfinished(), running_s3().has("wrong.mp4")) == (0, False)


def test_the_file_is_not_held_in_memory_and_blanks_are_signs_of_life(
    scripted: Scripted, uploader_of: Uploaders, tmp_path: Path
) -> None:
    path, size = tmp_path / "long.mp4", 100 << 20
    with path.open("wb") as file:
        file.truncate(size)
    scripted.bodies = "drop"
    blanks = [step for _ in range(8) for step in (0.15, b"\n")]
    scripted.fail("complete", lambda: [head(200), b'<?xml version="1.0"?>', *blanks, DONE])
    uploader = uploader_of(scripted, timeout=0.9)
    tracemalloc.start()
    try:
        uploader.upload(Media(path=path, content_type="video/mp4", size=size), NOBODY, key=KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [request.size for request in scripted.requests[1:-1]] == [16 << 20] * 6 + [4 << 20]
    assert peak < 4 << 20
