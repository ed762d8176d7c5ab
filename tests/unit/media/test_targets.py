"""What is judged of an upload target before a render."""

from __future__ import annotations

import pytest

from miner.media.targets import SKEW, check_not_expired, checked_headers, content_type, expires_at
from miner.net.addresses import Refused
from miner.task.stages import PresignedPut

SIGNED = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize("value", [" b", "b ", "\tb", "  b\t "])
def test_blanks_around_a_value_do_not_count(value: str) -> None:
    assert checked_headers({"x-a": value, "x-b": "c d"}) == {"x-a": "b", "x-b": "c d"}


@pytest.mark.parametrize("value", ["b\r", "b\n", "\nb", "b\r\nc: d", "b\0", "é", "日本", "b\x7f", "b\x85"])
def test_a_value_that_is_no_header_is_refused(value: str) -> None:
    with pytest.raises(Refused, match="not valid HTTP"):
        checked_headers({"x-a": value})


def test_a_header_may_come_once() -> None:
    with pytest.raises(Refused, match="names a header twice"):
        checked_headers({"Content-Type": "image/png", "content-type": "image/jpeg"})


@pytest.mark.parametrize(
    ("query", "headers", "sent"),
    [
        ("X-Amz-SignedHeaders=host&X-Amz-Signature=s", {}, True),
        ("X-Amz-SignedHeaders=content-type%3Bhost&X-Amz-Signature=s", {}, True),
        ("X-Goog-SignedHeaders=host&X-Goog-Signature=s", {}, True),
        ("se=2023-11-14T22%3A23%3A20Z&sig=s", {}, True),
        ("expires=1&signature=s", {}, True),
        ("AWSAccessKeyId=a&Signature=s&Expires=1700000600", {}, False),  # which is over this header
        ("GoogleAccessId=a&Signature=s&Expires=1700000600", {}, False),
        ("X-Amz-SignedHeaders=host&X-Amz-Signature=s", {"content-type": "image/jpeg"}, False),
    ],
)
def test_the_files_type_is_sent_where_the_signature_takes_it(query: str, headers: dict[str, str], sent: bool) -> None:
    target = PresignedPut(url=f"https://store.test/key?{query}", headers=headers)
    assert content_type(target, "image/png") == ({"Content-Type": "image/png"} if sent else {})


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=600&X-Amz-Signature=s", SIGNED + 600),
        ("X-Goog-Date=20231114T221320Z&X-Goog-Expires=600&X-Goog-Signature=s", SIGNED + 600),
        ("AWSAccessKeyId=a&Signature=s&Expires=1700000600", SIGNED + 600),
        ("se=2023-11-14T22%3A23%3A20Z&sig=s", SIGNED + 600),
        ("se=2023-11-14T22%3A23%3A20&sig=s", SIGNED + 600),
        ("Expires=1700000600", None),  # not signed: a parameter of its own
        ("expires=1&signature=s", None),
        ("X-Amz-Date=yesterday&X-Amz-Expires=600", None),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=soon", None),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=" + "9" * 400, None),
        ("Signature=s&Expires=" + "9" * 400, float("inf")),
        ("", None),
    ],
)
def test_when_a_signed_url_expires(query: str, ends: float | None) -> None:
    assert expires_at(f"https://store.test/key?{query}") == ends


def test_a_url_is_refused_once_it_has_expired_by_more_than_clocks_may_differ() -> None:
    url = "https://store.test/key?X-Amz-Date=20231114T221320Z&X-Amz-Expires=600&X-Amz-Signature=s"
    check_not_expired(url, now=SIGNED + 600 + SKEW)
    with pytest.raises(Refused, match="expired 16 minutes ago"):
        check_not_expired(url, now=SIGNED + 600 + 960)
