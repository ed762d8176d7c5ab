"""Which addresses are public, and that the one connected to is one that was judged."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from miner.media.inputs import Fetcher
from miner.net.addresses import Refused, is_public, parse_allow, parse_url
from miner.net.deadline import Deadline
from miner.net.session import Guard, Session
from miner.task.errors import ConfigError, JobFault
from tests.support.scripted_comfyui import png
from tests.support.scripted_server import Answer, ScriptedServer, in_turn, redirect, says, trickles, whole

PUBLIC_V4, PUBLIC_V6 = "93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
OK = whole(png(), "Content-Type: image/png")


class Answers:
    """A resolver whose answers change: one list of addresses to each question, the last one for good."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked = 0
        self._answers = answers

    def __call__(self, _host: str, _port: int) -> Sequence[str]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return answer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def fetcher(resolve: Answers, *allow: str, timeout: float = 20.0) -> Fetcher:
    return Fetcher(allow=parse_allow(allow), max_bytes=1 << 20, timeout=timeout, backoff=0.001, resolve=resolve)


# ---- what is public ---------------------------------------------------------------------------------------------

PRIVATE = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
    "ff00::/8",
]  # fmt: skip


@pytest.mark.parametrize("network", PRIVATE)
def test_no_address_of_a_special_network_is_public_from_its_first_to_its_last(network: str) -> None:
    whole = ipaddress.ip_network(network)
    for address in (whole[0], whole[1 % whole.num_addresses], whole[whole.num_addresses // 2], whole[-1]):
        assert not is_public(str(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0", "223.255.255.255", PUBLIC_V4, "2000::", "2001:200::", "2003::1", PUBLIC_V6,
        "3ffd::1", "2a00:1450:4001::200e",
    ],
)  # fmt: skip
def test_the_neighbours_of_special_networks_are_public(address: str) -> None:
    assert is_public(address)


def test_what_python_calls_private_is_not_public() -> None:
    for top in range(0, 1 << 32, 0x3FFFF1):  # a thousand addresses all over IPv4
        address = ipaddress.IPv4Address(top)
        if not address.is_global:
            assert not is_public(str(address))


# ---- what the operator allows -----------------------------------------------------------------------------------


def test_allowed_places_are_read_in_every_form() -> None:
    allow = parse_allow(["192.168.1.5:9000", "NAS.local:80", "[FD00::5]:9000", "store_1:443"])
    assert allow == {("192.168.1.5", 9000), ("nas.local", 80), ("fd00::5", 9000), ("store_1", 443)}


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:65536",
        "host:0x50",
        "http://host:80",
        "host:80/path",
        "fd00::5:80",
        "u@host:80",
        "a b:80",
    ],
)
def test_a_malformed_allowed_place_names_the_key(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"network\.allow"):
        parse_allow([entry])


def test_what_is_allowed_is_that_port_of_that_spelling_alone(server: ScriptedServer) -> None:
    server.serve(OK)
    resolver = Answers(["127.0.0.1"])
    with pytest.raises(JobFault, match="neither 80 nor 443"):
        fetcher(resolver, f"127.0.0.1:{server.port}").fetch(f"http://localhost:{server.port}/0")
    with pytest.raises(JobFault, match="neither 80 nor 443"):
        fetcher(resolver, "127.0.0.1:1").fetch(f"http://127.0.0.1:{server.port}/0")
    assert server.requests == []


def test_an_allowed_name_may_be_private(server: ScriptedServer) -> None:
    server.serve(OK)
    data = fetcher(Answers(["127.0.0.1"]), f"store.test:{server.port}").fetch(f"http://Store.Test:{server.port}/0")
    assert data.startswith(b"\x89PNG")
    assert f"Host: store.test:{server.port}".encode() in server.requests[0].head


# ---- answers that change ----------------------------------------------------------------------------------------


def test_the_address_that_was_judged_is_the_one_connected_to(server: ScriptedServer) -> None:
    with ScriptedServer(host="127.0.0.2", port=server.port) as other:
        server.serve(OK)
        other.serve(OK)
        resolver = Answers(["127.0.0.1"], ["127.0.0.2"])
        fetcher(resolver, f"store.test:{server.port}").fetch(f"http://store.test:{server.port}/0")
        assert resolver.asked == 1  # there is no second question that could be answered otherwise
        assert (len(server.requests), len(other.requests)) == (1, 0)


def test_a_name_that_turns_private_is_judged_anew_by_every_connection() -> None:
    guard = Guard(resolve=Answers([PUBLIC_V4], [PUBLIC_V4, "127.0.0.1"], ["::1"]))
    with Deadline(20):
        assert guard.address("turning.test", 443) == PUBLIC_V4
        for turn in (1, 2):
            with pytest.raises(Refused, match="not public"):
                guard.address("turning.test", 443, turn=turn)


def test_a_name_that_turns_private_on_a_redirect_is_refused(server: ScriptedServer) -> None:
    server.serve(redirect("http://turning.test/"))
    resolver = Answers(["10.0.0.1"])
    with pytest.raises(JobFault, match="not public"):
        fetcher(resolver, f"127.0.0.1:{server.port}").fetch(f"http://127.0.0.1:{server.port}/0")
    assert resolver.asked == 1


def test_an_address_that_the_guard_let_through_by_mistake_is_refused_by_the_connection(server: ScriptedServer) -> None:
    class Mistaken(Guard):
        def check(self, _url: str) -> None:
            pass

        def address(self, _host: str, _port: int, *, turn: int = 0) -> str:
            return f"127.0.0.{1 + turn}"

    url = f"http://mistaken.test:{server.port}/"
    session = Session(Mistaken())
    with (
        Deadline(20),
        pytest.raises(Refused, match="not public"),
        closing(session),
        session.exchange("GET", url, headers={}),
    ):
        pass
    assert server.requests == []


def test_one_private_address_among_many_is_enough() -> None:
    guard = Guard(resolve=lambda _host, _port: [PUBLIC_V4, PUBLIC_V6, *[PUBLIC_V4] * 50, "192.168.0.1"])
    with Deadline(20), pytest.raises(Refused, match="not public"):
        guard.address("many.test", 443)


def test_every_attempt_takes_the_next_address_one_of_the_other_version_first() -> None:
    guard = Guard(resolve=lambda _host, _port: ["2000::1", "2000::2", "1.1.1.1", "1.1.1.2", "1.1.1.3"])
    with Deadline(20):
        turns = [guard.address("both.test", 443, turn=turn) for turn in range(6)]
    assert turns == ["2000::1", "1.1.1.1", "2000::2", "1.1.1.2", "1.1.1.3", "2000::1"]


def test_an_address_that_does_not_answer_is_followed_by_the_next(server: ScriptedServer) -> None:
    server.serve(OK)
    with socket.socket() as unused:  # bound, and so not anybody else's; it refuses connections
        unused.bind(("127.0.0.3", server.port))
        resolver = Answers(["127.0.0.3", "127.0.0.1"])
        fetcher(resolver, f"store.test:{server.port}").fetch(f"http://store.test:{server.port}/0")
    assert len(server.requests) == 1


# ---- time -------------------------------------------------------------------------------------------------------


def test_a_look_up_that_hangs_counts_as_well() -> None:
    answer = threading.Event()

    def hang(_host: str, _port: int) -> Sequence[str]:
        answer.wait(60)
        return []

    begun = time.monotonic()
    try:
        with pytest.raises(JobFault, match=r"no whole answer within 0\.2 s"):
            Fetcher(allow=frozenset(), max_bytes=1, timeout=0.2, resolve=hang).fetch("http://slow.test/")
        assert time.monotonic() - begun < 30
    finally:
        answer.set()


@pytest.mark.parametrize(
    "answer", [says(60.0), trickles(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\0")], ids=["silent", "trickling"]
)
def test_a_handshake_that_never_ends_counts_as_well(server: ScriptedServer, answer: Answer) -> None:
    server.otherwise = answer
    with pytest.raises(JobFault, match=r"no whole answer within 1 s"):
        fetcher(Answers([]), f"127.0.0.1:{server.port}", timeout=1.0).fetch(f"https://127.0.0.1:{server.port}/")


def test_a_server_without_a_valid_certificate_is_not_asked(server: ScriptedServer) -> None:
    server.otherwise = says(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(JobFault, match="no valid TLS certificate"):
        fetcher(Answers([]), f"127.0.0.1:{server.port}").fetch(f"https://127.0.0.1:{server.port}/")


def test_redirects_and_attempts_share_one_time_limit(server: ScriptedServer) -> None:
    slow = trickles(b"HTTP/1.1 200 OK\r\nX: ")
    url = server.serve(in_turn(redirect(""), redirect(""), slow))
    begun = time.monotonic()
    with pytest.raises(JobFault, match="no whole answer"):
        fetcher(Answers(["127.0.0.1"]), f"127.0.0.1:{server.port}", timeout=0.5).fetch(url)
    assert 0.4 < time.monotonic() - begun < 30
    assert len(server.requests) == 3


# ---- the environment --------------------------------------------------------------------------------------------


def test_no_proxy_and_no_password_of_the_environment_goes_along(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ScriptedServer() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        url = server.serve(OK)
        fetcher(Answers([]), f"127.0.0.1:{server.port}").fetch(url)
        assert proxy.requests == []
    assert b"authorization" not in server.requests[0].head.lower()
    assert b"cookie" not in server.requests[0].head.lower()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("HTTP://Example.COM/x", ("http", "example.com", 80)),
        ("https://example.com", ("https", "example.com", 443)),
        ("https://1.1.1.1:80/a?b#c", ("https", "1.1.1.1", 80)),
        ("http://[2000::1]:443/", ("http", "2000::1", 443)),
        ("https://a_b.example/photo one.png?x=ü", ("https", "a_b.example", 443)),
    ],
)
def test_plain_urls_are_read_as_they_are(url: str, place: tuple[str, str, int]) -> None:
    found = parse_url(url)
    assert (found.scheme, found.host, found.port) == place
