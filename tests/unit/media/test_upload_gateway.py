"""The network's upload gateway: a server that takes what botocore would have signed alike."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from miner.media.bodies import Base64Body
from miner.media.uploads import Uploader
from miner.net.deadline import Deadline
from miner.task.errors import ConfigError, JobFault, MachineFault, Retryable
from miner.task.stages import Media, TemporaryS3
from tests.support.scripted_server import Request, Said, ScriptedServer, reply
from tests.unit.media.signer import botocore_signature

Make = Callable[[bytes | int], Media]
GOOD = TemporaryS3(access_key_id="AKIATEST", secret_access_key="TopSecret", session_token="SessionToken")


class Server(ScriptedServer):
    """An API Gateway with IAM: it signs the request itself, with botocore and GOOD, and compares."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status = 200
        super().__init__()

    def respond(self, request: Request) -> Said:
        if not self._is_signed(request):
            return reply({"message": "the signature does not match"}, status=403)
        if self.status == 200:
            said = request.json()
            self.files[said["filename"]] = base64.b64decode(said["file"], validate=True)
        return reply({}, status=self.status)

    def _is_signed(self, request: Request) -> bool:
        headers = {name.lower(): value for name, value in request.headers.items()}
        claim = headers["authorization"]
        return claim.rpartition("Signature=")[2] == botocore_signature(
            request.method, request.target, headers, GOOD, body=request.body
        ) and (
            claim.partition("Credential=")[2].partition("/")[0],
            headers["x-amz-security-token"],
            claim.partition("Credential=")[2].split("/")[3],
        ) == (GOOD.access_key_id, GOOD.session_token, "execute-api")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def uploader(server: Server, uploader_of: Callable[..., Uploader]) -> Uploader:
    return uploader_of(server, bucket="", endpoint="", gateway=f"{server.url}/dev/upload-video")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1000, 196_607, 196_608, 1_000_001])
@pytest.mark.parametrize("key", ["flux-lora/flux-lora-0xA-1.jpg", 'ü "quoted" \\ .png'])
def test_a_file_arrives_under_its_key_signed(
    server: Server, uploader: Uploader, media: Make, size: int, key: str
) -> None:
    told: list[int] = []
    file = media(bytes(range(256)) * (size // 256 + 1))
    file = replace(file, size=size)
    file.path.write_bytes(file.path.read_bytes()[:size])
    uploader.check(GOOD)
    uploader.upload(file, GOOD, key=key, progress=lambda sent, _size: told.append(sent))
    assert server.files == {key: file.path.read_bytes()}
    assert json.loads(server.requests[0].body).keys() == {"filename", "file"}
    assert (told, told[-1]) == (sorted(told), size)


@pytest.mark.parametrize("part", ["access_key_id", "secret_access_key", "session_token"])
def test_wrong_credentials_are_refused(uploader: Uploader, media: Make, part: str) -> None:
    with pytest.raises(JobFault, match="refused the file"):
        uploader.upload(media(b"x"), replace(GOOD, **{part: "wrong"}), key="k.png")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, JobFault), (413, JobFault), (404, MachineFault), (302, MachineFault), (429, Retryable), (502, Retryable)],
)
def test_each_refusal_says_whose_fault_it_is(
    server: Server, uploader: Uploader, media: Make, status: int, kind: type[Exception]
) -> None:
    server.status = status
    with pytest.raises(kind):
        uploader.upload(media(b"x"), GOOD, key="k.png")


def test_what_the_gateway_does_not_take_is_not_sent(server: Server, uploader: Uploader, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(JobFault, match="larger than the 8 MB"):
        uploader.upload(Media(path=path, content_type="video/mp4", size=64 << 20), GOOD, key="k.mp4")
    assert server.requests == []


def test_a_file_is_not_held_in_memory(tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "long.mp4").open("w+b") as file:
        file.truncate(size)
        body = Base64Body(file, size, None, filename="k.mp4")
        tracemalloc.start()
        try:
            with Deadline(60.0):
                body.sha256()
                read = sum(iter(lambda: len(body.read(1 << 18)), 0))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert read == len(body)
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("gateway", "says"),
    [
        ("https://127.0.0.1/x", "not public"),
        ("http://gateway.example/x", "not https"),
        ("https://store.test", "public"),
    ],
)
def test_a_gateway_that_is_not_allowed_is_told_before_a_render(
    server: Server, uploader_of: Callable[..., Uploader], gateway: str, says: str
) -> None:
    guarded = uploader_of(server, gateway=gateway, resolve=lambda _host, _port: ["10.0.0.1"])
    with pytest.raises(MachineFault, match=says) as caught:
        guarded.check(GOOD)
    assert ("[upload] gateway" in caught.value.hint, caught.value.fault) == (True, "upload")


def test_a_query_in_its_url_is_refused(server: Server, uploader_of: Callable[..., Uploader]) -> None:
    with pytest.raises(ConfigError, match=r"upload\.gateway"):
        uploader_of(server, gateway="https://gateway.example/x?y=1")
