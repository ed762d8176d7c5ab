"""A URL's path and query reach the server byte for byte: a signature may cover every one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.net.addresses import Refused, parse_allow, target_of
from miner.net.deadline import Deadline
from miner.net.session import Guard, OperatorsSession
from miner.task.stages import Media, PresignedPut
from tests.support.scripted_server import Request, Said, ScriptedServer, redirect, reply

AS_THEY_ARE = [
    "/", "//", "//key", "/a//b", "/a/./b", "/a/../b", "/..", "/a/", "/%7Ea", "/~a", "/%2f", "/%2F", "/%2fA%2F",
    "/%zz", "/%", "/a%", "/%41", "/[1]", "/a[0].png", "/a|b", "/{a}", "/a^b`", '/"a"', "/<a>", "/a+b", "/a%20b",
    "/a;b=c,d", "/a:b@c", "/!$&'()*", "/%C3%A9", "/%c3%a9", "/?", "/a?", "/?a", "/a?b?c", "/a?b=c&b=a&a", "/a?=&&=",
    "/a?x[]=1&x[1]=2", "/a?u=http://b/c//d", "/a?X-Amz-Signature=aB%2b%2B/%2f&x-id=GetObject", "/a?%7e~%7E",
    "/a?b=%00", "/a?b=c+d", "/a?b=c%2Bd", "/a?{b}|c", "/a?'", "/a?../b", "/a?/../b",
]  # fmt: skip
ENCODED = [
    ("", "/"),
    ("?a=b", "/?a=b"),
    ("#a", "/"),
    ("/a#b?c", "/a"),
    ("/a?b#c", "/a?b"),
    ("/a?#", "/a?"),
    ("/a b", "/a%20b"),
    ("/é?ü=ß", "/%C3%A9?%C3%BC=%C3%9F"),
    ("/\u200b😀", "/%E2%80%8B%F0%9F%98%80"),
]
TARGETS = [*((target, target) for target in AS_THEY_ARE), *ENCODED]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def answer(request: Request) -> Said:
        if request.target.startswith("/to"):
            return redirect(to[0])(request)
        return reply(b"whole")

    with ScriptedServer(answer) as server:
        yield server


to = [""]


def fetcher(server: ScriptedServer) -> Fetcher:
    return Fetcher(allow=parse_allow([server.host]), max_bytes=100, timeout=10.0, backoff=0.001)


def test_a_picture_is_asked_for_as_its_url_is_spelled(server: ScriptedServer) -> None:
    one = fetcher(server)
    for rest, _ in TARGETS:
        one.fetch(server.url + rest)
    assert [request.target for request in server.requests] == [target for _, target in TARGETS]


def test_a_result_is_put_where_its_url_is_spelled(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    media = Media(path=path, content_type="image/png", size=1)
    uploader = Uploader(allow=parse_allow([server.host]), bucket="", endpoint="", region="auto", timeout=5.0)
    for rest, _ in TARGETS:
        uploader.upload(media, PresignedPut(url=server.url + rest), key="")
    uploader.close()
    assert [(r.method, r.target) for r in server.requests] == [("PUT", target) for _, target in TARGETS]


@pytest.mark.parametrize("form", ["absolute", "without a scheme", "path"])
def test_a_redirect_is_followed_as_it_is_spelled(server: ScriptedServer, form: str) -> None:
    before = {"absolute": server.url, "without a scheme": f"//{server.host}", "path": ""}[form]
    for target in AS_THEY_ARE:
        if form == "path" and target.startswith("//"):
            continue  # which is a host
        to[0] = before + target
        fetcher(server).fetch(f"{server.url}/to/x?y")
        assert server.requests[-1].target == target


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("?", "/to/x?"),
        ("?a//b[1]%7E", "/to/x?a//b[1]%7E"),
        ("a//b%7e?c", "/to/a//b%7e?c"),
        ("../a/./b", "/a/b"),
        ("a:b/../c", "not a URL"),
    ],
)
def test_a_relative_redirect_starts_from_where_it_came(server: ScriptedServer, location: str, target: str) -> None:
    to[0] = location
    if target == "not a URL":
        with pytest.raises(Exception, match="plain http or https URL"):
            fetcher(server).fetch(f"{server.url}/to/x?y")
        return
    if target.startswith("/to"):
        with pytest.raises(Exception, match="redirects more than"):
            fetcher(server).fetch(f"{server.url}/to/x?y")
        assert server.requests[1].target == target
    else:
        fetcher(server).fetch(f"{server.url}/to/x?y")
        assert server.requests[-1].target == target


def test_a_proxy_is_told_the_host_and_the_target_as_it_is_spelled(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    session = OperatorsSession(Guard(allow=parse_allow(["store.test:80"])), "http://store.test")
    with (
        Deadline(5.0),
        session.exchange("PUT", "http://store.test/b//k[1]%7E?x", headers={}, body=b"") as response,
    ):
        assert response.status == 200
    session.close()
    assert server.requests[0].target == "http://store.test/b//k[1]%7E?x"


@pytest.mark.parametrize("url", ["ftp://a/b", "http://a\\b/", "http://a/\r\nX: y", "http://u@a/"])
def test_what_is_no_url_has_no_target(url: str) -> None:
    with pytest.raises(Refused):
        target_of(url)
