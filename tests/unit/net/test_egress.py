"""Whose network failed: the rule as a table, and the control over real sockets."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.net.addresses import parse_allow
from miner.net.egress import Egress, NetworkFault, is_ours
from miner.net.errors import Unreached, unreached
from miner.net.session import Resolve
from miner.task.errors import JobFault, Retryable
from miner.task.stages import Media, PresignedPut
from tests.support.scripted_server import ScriptedServer, says, whole

AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
CONTROLS = ("good", "local", "no name", "no connection", "no trust")


@pytest.mark.parametrize(
    ("kind", "ours"),
    [  # with the sequencer: reached, reached nearby, without a name, without a connection, without its certificate
        ("ours", "yes yes yes yes yes"),
        ("look-up", "no yes yes yes yes"),
        ("name", "no no yes no no"),
        ("address", "no no yes yes yes"),
        ("connection", "no no yes yes yes"),
        ("certificate", "no no yes yes yes"),
        ("answer", "no no no no yes"),
    ],
)
def test_the_rule(kind, ours) -> None:
    assert ["yes" if is_ours(kind, control) else "no" for control in CONTROLS] == ours.split()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AGAIN, "look-up"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), "look-up"),
        (NONE, "name"),
        (socket.gaierror(socket.EAI_NODATA, "No address"), "name"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "connection"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "connection"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "connection"),
        (TimeoutError("timed out"), "connection"),
        (OSError(errno.EMFILE, "Too many open files"), "ours"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "ours"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ours"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "certificate"),
    ],
)
def test_how_far_an_exchange_came(error: OSError, kind: str) -> None:
    assert unreached(error, "the server").kind == kind


class Names:
    """A resolver that knows what it is told, and raises otherwise."""

    def __init__(self, otherwise: OSError = NONE, **known: Sequence[str]) -> None:
        self.known = {f"{name}.test": addresses for name, addresses in known.items()}
        self.otherwise = otherwise

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        if host not in self.known:
            raise self.otherwise
        return self.known[host]


@pytest.fixture
def there():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def gone() -> int:
    """A port at which nobody listens."""
    with ScriptedServer() as server:
        return server.port


@pytest.mark.parametrize(
    ("names", "control"),
    [
        (Names(sequencer=["127.0.0.1"]), "local"),
        (Names(sequencer=["127.0.0.9", "127.0.0.1"]), "local"),  # nobody listens at the first
        (Names(), "no name"),
        (Names(AGAIN), "no name"),
        (Names(sequencer=[]), "no name"),
        (Names(sequencer=["127.0.0.9"]), "no connection"),
    ],
)
def test_the_control_looks_up_and_reaches_the_sequencer(there: ScriptedServer, names: Names, control: str) -> None:
    assert Egress(f"http://sequencer.test:{there.port}", resolve=names).control() == control


def test_someone_who_answers_for_the_sequencer_without_its_certificate_is_noticed(there: ScriptedServer) -> None:
    there.otherwise = says(b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\n\r\n")
    assert Egress(f"https://127.0.0.1:{there.port}").control() == "no trust"


def test_one_control_serves_a_flood_of_tasks(there: ScriptedServer) -> None:
    egress = Egress(f"http://127.0.0.1:{there.port}")
    assert {egress.control() for _ in range(50)} == {"local"}
    assert there.reaches(lambda: there.accepted == 1 and not there.connections)


def fetched(url: str, names: Resolve, sequencer: str, *, allow: str, timeout: float = 20.0) -> bytes:
    egress = Egress(sequencer, resolve=names)
    settings = {"max_bytes": 1 << 20, "timeout": timeout, "backoff": 0.001}
    return Fetcher(allow=parse_allow([allow]), resolve=names, egress=egress, **settings).fetch(url)


def test_an_outage_that_ends_meanwhile_is_not_the_tasks(there: ScriptedServer) -> None:
    """The picture's server is out of reach for all attempts, and both are there when the control looks."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def names(host: str, _port: int) -> Sequence[str]:
        if host == "sequencer.example":
            server = socket.create_server(("127.0.0.1", port))
            threading.Thread(target=answer_once, args=(server, b"picture"), daemon=True).start()
        return ["127.0.0.1"]

    sequencer = f"http://sequencer.example:{there.port}"
    url = f"http://pictures.example:{port}/1.png"
    assert fetched(url, names, sequencer, allow=f"pictures.example:{port}") == b"picture"


def answer_once(server: socket.socket, body: bytes) -> None:
    with server, server.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.mark.parametrize(
    ("names", "fault", "says"),
    [
        # our resolver is dead: it answers for nobody
        (Names(AGAIN), NetworkFault, "does not resolve; for the sequencer there is no address either"),
        (Names(NONE), NetworkFault, "does not resolve"),
        # it works, and nobody knows the name, or its name server is down
        (Names(NONE, sequencer=["127.0.0.1"]), JobFault, "does not resolve"),
        # it answers for everybody, with the portal's address
        (Names(picture=["10.0.0.1"]), NetworkFault, "not public"),
        (Names(sequencer=["127.0.0.1"], picture=["10.0.0.1"]), JobFault, "not public"),
    ],
)
def test_a_look_up_that_fails(there: ScriptedServer, names: Names, fault: type[Exception], says: str) -> None:
    with pytest.raises(fault, match=says):
        fetched("http://picture.test/a.png", names, f"http://sequencer.test:{there.port}", allow="other.test:1")


def test_a_server_that_is_down_is_the_tasks_and_all_that_are_down_are_our_network(
    there: ScriptedServer, gone: int
) -> None:
    names, url = Names(picture=["127.0.0.1"], sequencer=["127.0.0.1"]), f"http://picture.test:{gone}/a.png"
    with pytest.raises(JobFault, match="connection to the server failed"):
        fetched(url, names, f"http://sequencer.test:{there.port}", allow=f"picture.test:{gone}")
    with pytest.raises(NetworkFault, match="no connection either") as caught:
        fetched(url, names, f"http://sequencer.test:{gone}", allow=f"picture.test:{gone}")
    assert caught.value.fault == "network"
    assert "doctor" in caught.value.hint


def test_a_page_is_the_tasks_unless_someone_answers_for_the_sequencer_too(there: ScriptedServer) -> None:
    there.otherwise = whole(PAGE)
    names, url = Names(picture=["127.0.0.1"]), f"http://picture.test:{there.port}/a.png"
    allow = f"picture.test:{there.port}"
    assert fetched(url, names, f"http://127.0.0.1:{there.port}", allow=allow) == PAGE
    with pytest.raises(NetworkFault, match="no valid certificate either"):
        fetched(url, names, f"https://127.0.0.1:{there.port}", allow=allow)
    there.otherwise = whole(PAGE, status=511)
    with pytest.raises(NetworkFault, match="answered 511"):
        fetched(url, names, f"https://127.0.0.1:{there.port}", allow=allow)


def test_a_server_that_stands_still_is_the_tasks(there: ScriptedServer) -> None:
    there.otherwise = says(60.0)
    url, allow = f"http://127.0.0.1:{there.port}/a.png", f"127.0.0.1:{there.port}"
    with pytest.raises(JobFault, match="no whole answer within"):
        fetched(url, Names(), f"http://127.0.0.1:{there.port}", allow=allow, timeout=0.3)


def test_without_a_file_left_to_open_it_is_this_machine(there: ScriptedServer) -> None:
    with pytest.raises(NetworkFault, match="too many open files"):
        Egress(there.url).judge(unreached(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "the server"), who="image")


@pytest.mark.parametrize(("ahead", "fault"), [(-86400.0, True), (86400.0, True), (60.0, False)])
def test_a_clock_that_is_far_off_makes_every_certificate_invalid(
    there: ScriptedServer, ahead: float, *, fault: bool
) -> None:
    egress = Egress(there.url, clock=lambda: 1e9 + ahead)
    egress.heard(1e9)
    assert egress.time() == 1e9
    error = Unreached("the server has no valid TLS certificate", kind="certificate", clock=True)
    if not fault:
        egress.judge(error, who="image")
        return
    with pytest.raises(NetworkFault, match="clock is off by 24 h"):
        egress.judge(error, who="image")


def test_an_upload_knows_its_store_from_its_own_network(
    there: ScriptedServer, gone: int, media: Callable[..., Media]
) -> None:
    target = PresignedPut(url=f"http://127.0.0.1:{gone}/key")
    for sequencer, fault in ((there.port, Retryable), (gone, NetworkFault)):
        egress = Egress(f"http://127.0.0.1:{sequencer}")
        allow = parse_allow([f"127.0.0.1:{gone}"])
        uploader = Uploader(allow=allow, bucket="", endpoint="", region="auto", timeout=5.0, egress=egress)
        with pytest.raises(fault, match="connection to the server failed"):
            uploader.upload(media(b"x"), target, key="")
        uploader.close()


@pytest.fixture
def media(tmp_path: Path) -> Callable[[bytes], Media]:
    def make(data: bytes) -> Media:
        path = tmp_path / "result.png"
        path.write_bytes(data)
        return Media(path=path, content_type="image/png", size=len(data))

    return make
