"""The object store over plain HTTP: signed URLs for results, and inputs."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import NARROW, Talk, until

MB = 1_000_000


def lease(talk: Talk) -> dict[str, Any]:
    talk.create()
    return talk.lease()


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("signature=", "signature=0"),
        lambda url: re.sub("signature=.*", "signature=ü", url),
        lambda url: re.sub("signature=.*", "", url),
        lambda url: url.replace("expires=1", "expires=2"),
        lambda url: url.replace("/store/results/", "/store/results/x"),
        lambda url: url.replace("/store/results/", "/store/other/"),
        lambda url: url.partition("?")[0],
    ],
)
def test_a_changed_url_is_refused_and_counted(talk: Talk, change: Any) -> None:
    reply = talk.session.put(change(lease(talk)["upload_url"]), data=b"x", timeout=5)
    assert (reply.status_code, "signature" in reply.json()["message"]) == (403, True)
    assert talk.devnet.stats()["violations"] == 1


def test_a_url_for_putting_does_not_get(talk: Talk) -> None:
    task = lease(talk)
    talk.upload(task)
    assert talk.session.get(task["upload_url"], timeout=5).status_code == 403


def test_a_url_expires(start: Start) -> None:
    talk = start(upload_ttl=0.001)
    task = lease(talk)
    refused: list[requests.Response] = []

    def is_refused() -> bool:
        refused.append(talk.session.put(task["upload_url"], data=b"x", timeout=5))
        return refused[-1].status_code == 403

    until(is_refused)
    assert "expired" in refused[-1].json()["message"]


def test_the_headers_of_the_task_are_required(start: Start) -> None:
    talk = start(**NARROW)
    task = lease(talk)
    assert talk.session.put(task["upload_url"], data=b"x", timeout=5).status_code == 403
    sent = talk.session.put(task["upload_url"], data=b"x", headers=task["upload_headers"], timeout=5)
    assert sent.status_code == 200


def test_a_body_without_a_length_is_refused(talk: Talk) -> None:
    reply = talk.session.put(lease(talk)["upload_url"], data=iter([b"a", b"b"]), timeout=5)
    assert (reply.status_code, "Content-Length" in reply.json()["message"]) == (411, True)


def test_an_object_that_is_too_large_is_refused(start: Start) -> None:
    talk = start(**NARROW)
    task = lease(talk)
    reply = talk.session.put(task["upload_url"], data=b"x" * 10_001, headers=task["upload_headers"], timeout=5)
    assert (reply.status_code, "larger than" in reply.json()["message"]) == (413, True)


def test_an_upload_may_be_repeated_until_the_task_is_answered_and_not_after(talk: Talk) -> None:
    task = lease(talk)
    talk.upload(task, b"first")
    assert talk.answer(task, result=talk.upload(task, b"second")).status_code == 200
    reply = talk.session.put(task["upload_url"], data=b"third", timeout=5)
    assert (reply.status_code, "is answered" in reply.json()["message"]) == (409, True)
    assert talk.session.get(talk.query(task["task_id"])["result"]["url"], timeout=5).content == b"second"


def test_an_upload_that_breaks_off_leaves_nothing(talk: Talk) -> None:
    task = lease(talk)
    host, _, port = talk.devnet.url.removeprefix("http://").partition(":")
    path = task["upload_url"].removeprefix(talk.devnet.url)
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 500_000
        )
        until(talk.files)
    until(lambda: not talk.files())
    assert talk.answer(task, result=path.partition("?")[0]).status_code == 400
    until(lambda: [seen["status"] for seen in talk.devnet.requests("store_put")] == [499])


def test_a_large_file_is_streamed_to_disk_and_back(talk: Talk, tmp_path: Path) -> None:
    task, video = lease(talk), tmp_path / "video.mp4"
    video.write_bytes(os.urandom(MB) * 48)
    with video.open("rb") as body:
        assert talk.session.put(task["upload_url"], data=body, timeout=30).status_code == 200
    talk.answer(task, result=task["upload_url"].partition("?")[0].partition("/store/")[2])
    url = talk.query(task["task_id"])["result"]["url"]
    digest = hashlib.sha256()
    with talk.session.get(url, stream=True, timeout=30) as reply:
        assert reply.headers["Content-Length"] == str(48 * MB)
        for chunk in reply.iter_content(MB):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(video.read_bytes()).digest()
    assert len(talk.files()) == 1


def test_an_input_is_served_at_the_url_that_it_gets(talk: Talk) -> None:
    put = talk.session.put(
        f"{talk.devnet.url}/inputs/my photo.jpg", data=b"jpeg", headers={"Content-Type": "image/jpeg"}, timeout=5
    )
    assert put.status_code == 201
    got = talk.session.get(put.json()["url"], timeout=5)
    assert (got.content, got.headers["Content-Type"]) == (b"jpeg", "image/jpeg")
    assert "sandbox" in got.headers["Content-Security-Policy"]


def test_two_inputs_of_one_name_are_two(talk: Talk) -> None:
    urls = [
        talk.session.put(f"{talk.devnet.url}/inputs/a.png", data=data, timeout=5).json()["url"] for data in (b"1", b"2")
    ]
    assert [talk.session.get(url, timeout=5).content for url in urls] == [b"1", b"2"]
    assert talk.session.get(f"{talk.devnet.url}/inputs/guess/a.png", timeout=5).status_code == 404


def test_a_part_of_an_object_can_be_asked_for(talk: Talk) -> None:
    url = talk.session.put(f"{talk.devnet.url}/inputs/a", data=b"0123456789", timeout=5).json()["url"]
    reply = talk.session.get(url, headers={"Range": "bytes=2-4"}, timeout=5)
    assert (reply.status_code, reply.content) == (206, b"234")


@pytest.mark.parametrize("name", ["..%2F..%2Fetc", "%2e%2e", "a%00b", "a\\b"])
def test_no_name_becomes_a_path(talk: Talk, name: str) -> None:
    before = set(talk.state.parent.iterdir())
    talk.session.put(f"{talk.devnet.url}/inputs/{name}", data=b"x", timeout=5)
    assert set(talk.state.parent.iterdir()) == before
    assert all(re.fullmatch("[0-9a-f]{32}", path.name) for path in talk.files())
