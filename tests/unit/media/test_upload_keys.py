"""The names under which results are stored."""

from __future__ import annotations

import pytest

from miner.media.uploads import object_key, presigned_key
from miner.task.stages import PresignedPut

MINER = "0x52908400098527886E0F7030069857D2E4169EE7-gpu_0"


def key(task_id: str, *, prefix: str = "results") -> str:
    return object_key(prefix=prefix, workflow="flux-lora", miner_id=MINER, task_id=task_id, format="jpg")


@pytest.mark.parametrize("task_id", ["42", "a1b2-c3_d4.e5", "7f3c9b52-0d4e-4a83-9b0e-3a1a5c3e2b11", "x" * 128])
def test_a_plain_task_id_gives_the_protocols_key(task_id: str) -> None:
    assert key(task_id) == f"results/flux-lora-{MINER}-{task_id}.jpg"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_without_a_prefix_there_is_no_folder(prefix: str) -> None:
    assert key("42", prefix=prefix) == f"flux-lora-{MINER}-42.jpg"


def test_a_prefix_of_folders_is_kept() -> None:
    assert key("42", prefix="/a/b/") == f"a/b/flux-lora-{MINER}-42.jpg"


@pytest.mark.parametrize(
    "task_id",
    ["../../etc/passwd", "a/b", "a\\b", "..%2f", "", "a b", "ü", "\ud800", "\0", "a\nb", "x" * 129, "a?b#c", "~"],
)
def test_a_strange_task_id_is_never_a_path(task_id: str) -> None:
    made = key(task_id)
    name = made.removeprefix("results/")
    assert "/" not in name
    assert made.isascii()
    assert made.isprintable()
    assert len(name) < 160
    assert made == key(task_id)
    assert made != key(f"{task_id}/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://bucket.s3.amazonaws.com/results/flux-lora-0xA-1.jpg?X-Amz-Signature=s",
            "results/flux-lora-0xA-1.jpg",
        ),
        # a host that has the bucket in the path
        ("https://s3.amazonaws.com/bucket/a%20b.png?x", "a b.png"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/f/k.png", "f/k.png"),
        ("https://s3.dualstack.us-gov-west-1.amazonaws.com/bucket/k.png", "k.png"),
        ("https://s3-us-west-2.amazonaws.com/bucket/k.png", "k.png"),
        ("https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com/bucket/k.png", "k.png"),
        ("https://0123456789abcdef0123456789abcdef.eu.r2.cloudflarestorage.com/bucket/f/k.png", "f/k.png"),
        ("https://storage.googleapis.com/bucket/k.png", "k.png"),
        ("https://s3.amazonaws.com/only", "only"),
        # in the host
        ("https://bucket.0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com/f/k.png", "f/k.png"),
        ("https://s3.bucket.s3.eu-west-1.amazonaws.com/f/k.png", "f/k.png"),
        # the configured one
        ("https://minio.example/mine/f/k.png", "f/k.png"),
        ("https://minio.example/mine", "mine"),
        ("https://minio.example/yours/f/k.png", "yours/f/k.png"),
        ("http://127.0.0.1:9/store/results/k.png?expires=1&signature=s", "store/results/k.png"),
        ("https://host", ""),
    ],
)
def test_the_key_of_a_presigned_url_is_its_path(url: str, expected: str) -> None:
    assert presigned_key(PresignedPut(url=url), bucket="mine") == expected
