"""A picture on its way to a task, and a result on its way home."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from PIL import Image

from miner.sdk import APIError, ConnectionFailed, InvalidReply, InvalidTask, WorkflowError, download
from miner.sdk.files import image_url

from .stub import CUT, DROP, Say, Stub


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "my photo.jpg"
    Image.new("RGB", (8, 6), "teal").save(path)
    return path


def test_a_devnet_stores_the_picture_under_the_name_of_its_content(stub: Stub, photo: Path) -> None:
    copy = photo.with_name("copy.png")
    copy.write_bytes(photo.read_bytes())
    path = f"/inputs/{name_of(photo)}"
    stored = "http://store.example/inputs/x.jpeg"
    stub.answer(path, {"url": stored})

    assert image_url(photo, workflow_url=stub.url) == stored
    assert image_url(copy, workflow_url=stub.url) == stored, "the content decides, not the name"
    assert stub.requests[-1].path == path
    assert stub.requests[-1].method == "PUT"
    assert stub.requests[-1].body == photo.read_bytes()
    assert stub.requests[-1].headers["Content-Type"] == "image/jpeg"


def name_of(photo: Path) -> str:
    return f"{hashlib.sha256(photo.read_bytes()).hexdigest()[:16]}.jpeg"


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_sequencer_without_a_store_gets_it_inside_the_task(stub: Stub, photo: Path, status: int) -> None:
    stub.answer(f"/inputs/{name_of(photo)}", Say(status=status))

    url = image_url(photo, workflow_url=stub.url)

    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(data) == photo.read_bytes()
    assert [request.method for request in stub.requests] == ["PUT"]


@pytest.mark.parametrize("url", ["https://sequencer.invalid", "http://127.0.0.1.invalid", "http://10.255.255.1"])
def test_nothing_is_sent_to_a_sequencer_elsewhere(photo: Path, url: str) -> None:
    assert image_url(photo, workflow_url=url).startswith("data:image/jpeg;base64,")


def test_a_store_that_fails_is_not_taken_for_none(stub: Stub, photo: Path) -> None:
    stub.answer(f"/inputs/{name_of(photo)}", Say(status=503))

    with pytest.raises(APIError, match="503"):
        image_url(photo, workflow_url=stub.url)


def test_a_picture_too_large_for_a_task_is_refused_with_a_way_out(stub: Stub, tmp_path: Path) -> None:
    path = tmp_path / "large.bmp"
    Image.new("RGB", (420, 420)).save(path)  # 529 KB

    with pytest.raises(InvalidTask, match=r"large\.bmp has 529 KB.* pass its URL"):
        image_url(path, workflow_url=stub.url)


def test_a_store_that_answers_without_a_url_is_an_error(stub: Stub, photo: Path) -> None:
    stub.answer(f"/inputs/{name_of(photo)}", {"path": "x"})

    with pytest.raises(InvalidReply, match="url is missing"):
        image_url(photo, workflow_url=stub.url)


def test_a_sequencer_that_does_not_answer_is_not_taken_for_the_public_one(stub: Stub, photo: Path) -> None:
    stub.answer(f"/inputs/{name_of(photo)}", DROP)

    with pytest.raises(ConnectionFailed):
        image_url(photo, workflow_url=stub.url)


def test_what_is_no_picture_is_not_sent(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "secrets.png").write_text("no picture")

    for path in (tmp_path / "secrets.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(InvalidTask, match=path.name):
            image_url(path, workflow_url=stub.url)

    assert stub.requests == []


def test_a_download_replaces_what_was_there(stub: Stub, tmp_path: Path) -> None:
    stub.answer("/out.png?signature=s3cret", Say(body=b"picture"))
    destination = tmp_path / "out.png"
    destination.write_text("an older one")

    assert download(f"{stub.url}/out.png?signature=s3cret", destination, workflow_url=stub.url) == 7
    assert destination.read_bytes() == b"picture"
    assert list(tmp_path.iterdir()) == [destination]


@pytest.mark.parametrize(
    ("reply", "kind"), [(CUT, ConnectionFailed), (DROP, ConnectionFailed), (Say(status=403), APIError)]
)
def test_a_download_that_breaks_leaves_what_was_there_and_keeps_the_urls_secret(
    stub: Stub, tmp_path: Path, reply: Say | str, kind: type[WorkflowError]
) -> None:
    stub.answer("/out.png?signature=s3cret", reply)
    destination = tmp_path / "out.png"
    destination.write_text("an older one")

    with pytest.raises(kind) as caught:
        download(f"{stub.url}/out.png?signature=s3cret", destination, workflow_url=stub.url)

    assert "s3cret" not in caught.value.message
    assert destination.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [destination]


def test_a_destination_that_cannot_be_written_is_named(stub: Stub, tmp_path: Path) -> None:
    stub.answer("/out.png", Say(body=b"picture"))

    with pytest.raises(WorkflowError, match=r"out\.png cannot be written"):
        download(f"{stub.url}/out.png", tmp_path / "nowhere" / "out.png", workflow_url=stub.url)


@pytest.mark.parametrize(
    ("url", "sequencer", "refused"),
    [
        ("http://127.0.0.1:{port}/out.png", "http://localhost:1", False),  # a store beside a sequencer on this machine
        ("http://127.0.0.1:{port}/out.png", "https://sequencer.example", True),
        ("http://169.254.169.254/latest", "https://sequencer.example", True),
        ("http://10.0.0.1/out.png", "http://127.0.0.1:1", True),
        ("file:///etc/passwd", "http://127.0.0.1:1", True),
    ],
)
def test_a_result_is_fetched_from_public_addresses_or_the_sequencers_own(
    stub: Stub, tmp_path: Path, url: str, sequencer: str, refused: bool
) -> None:
    stub.answer("/out.png", Say(body=b"picture"))
    url = url.format(port=stub.url.rpartition(":")[2])

    if refused:
        with pytest.raises(WorkflowError, match="was not made"):
            download(url, tmp_path / "out.png", workflow_url=sequencer)
        assert stub.requests == []
    else:
        assert download(url, tmp_path / "out.png", workflow_url=sequencer) == 7
