"""Certificates and proxies of the environment: where they count, and where they never do."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from miner.comfy.client import ComfyClient, ComfyDown
from miner.doctor.checks.network import surroundings
from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.net.addresses import parse_allow
from miner.net.egress import Egress
from miner.net.environment import CA_VARIABLES, proxy_for, shown, trust, websocket_options
from miner.sequencer import Sequencer
from miner.task.errors import ConfigError, JobFault, Retryable
from miner.task.stages import Media, PresignedPut, TemporaryS3
from tests.support.scripted_server import ScriptedServer, reply

IDLE = b'{"queue_running": [], "queue_pending": []}'  # also a sequencer's that has no task
ME = "0x0000000000000000000000000000000000000001"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a private authority's certificate; beside it, `server.pem`: that of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A private authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + pem)
    (folder / "authority.pem").write_bytes(pem)
    return folder / "authority.pem"


@pytest.fixture
def tls(authority: Path) -> Iterator[int]:
    """The port of a server with a certificate of the private authority, that has nothing to do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(IDLE)))
            self.end_headers()
            self.wfile.write(IDLE)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("server.pem"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def ask(url: str) -> None:
    sequencer = Sequencer(url, timeout=5.0)
    try:
        assert sequencer.request(ME, ["4"]).lease is None
    finally:
        sequencer.close()


@pytest.mark.parametrize("variable", CA_VARIABLES[:3])
def test_a_private_authority_counts_for_every_host_that_the_operator_named(
    tls: int, authority: Path, variable: str, monkeypatch: pytest.MonkeyPatch, media: Media
) -> None:
    url = f"https://127.0.0.1:{tls}"
    with pytest.raises(Retryable, match="no valid TLS certificate"):
        ask(url)
    assert Egress(url).control() == "no trust"
    monkeypatch.setenv(variable, str(authority))
    assert trust().source == variable
    ask(url)
    assert Egress(url).control() == "local"
    comfy = ComfyClient(url, client_id="a")
    comfy.queue()
    comfy.close()
    s3(url, tls).upload(media, TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c"), key="k")
    assert websocket_options(url)["sslopt"] == {"ca_certs": str(authority)}


def test_a_private_authority_does_not_count_for_hosts_that_a_task_names(
    tls: int, authority: Path, monkeypatch: pytest.MonkeyPatch, media: Media
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    url, allow = f"https://127.0.0.1:{tls}/a.png", parse_allow([f"127.0.0.1:{tls}"])
    with pytest.raises(JobFault, match="no valid TLS certificate"):
        Fetcher(allow=allow, max_bytes=100, timeout=5.0, backoff=0.001).fetch(url)
    with pytest.raises(Retryable, match="no valid TLS certificate"):
        s3("", tls).upload(media, PresignedPut(url=url), key="")


def s3(endpoint: str, port: int) -> Uploader:
    allow = parse_allow([f"127.0.0.1:{port}"])
    return Uploader(allow=allow, bucket="b", endpoint=endpoint, region="auto", timeout=5.0)


@pytest.fixture
def media(tmp_path: Path) -> Media:
    path = tmp_path / "result.png"
    path.write_bytes(b"x")
    return Media(path=path, content_type="image/png", size=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), ("no certificate", "has no certificates"), ("", "has no certificates")],
)
def test_a_variable_that_names_no_certificates_is_an_error_at_the_start(
    tmp_path: Path, content: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(ConfigError, match=f"^SSL_CERT_FILE: .*{says}") as caught:
        Sequencer("https://sequencer.test")
    assert "unset it" in caught.value.hint


@pytest.fixture
def proxy() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda _: reply(IDLE)) as server:
        yield server


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_sequencer_is_asked_over_the_proxy(
    proxy: ScriptedServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://user:pa%3Ass@{proxy.host}")
    ask("http://sequencer.test")
    (request,) = proxy.requests
    assert request.target == "http://sequencer.test/miner_request"
    assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwYTpzcw=="  # user:pa:ss


def test_a_sequencer_with_tls_is_asked_through_a_tunnel(proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(Retryable):  # the proxy answers, but builds no tunnel
        ask("https://sequencer.test")
    assert (proxy.requests[0].method, proxy.requests[0].target) == ("CONNECT", "sequencer.test:443")
    assert b"/miner_request" not in b"".join(request.head for request in proxy.requests)


def test_the_s3_store_is_reached_over_the_proxy_and_its_name_is_the_proxys_to_look_up(
    proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch, media: Media
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    allow = parse_allow(["store.test:9000"])
    uploader = Uploader(allow=allow, bucket="b", endpoint="http://store.test:9000", region="auto", timeout=5.0)
    uploader.upload(media, TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c"), key="k")
    assert [request.target for request in proxy.requests] == ["http://store.test:9000/b/k"]


def test_hosts_that_a_task_names_and_loopback_are_never_proxied(
    proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch, media: Media
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, proxy.url)
    monkeypatch.setenv("NO_PROXY", "other.test")  # a list without loopback
    with ScriptedServer(lambda _: reply(IDLE)) as server:
        allow = parse_allow([f"store.test:{server.port}", f"127.0.0.1:{server.port}"])
        resolve = lambda _host, _port: ["127.0.0.1"]  # noqa: E731
        url = f"http://store.test:{server.port}/a.png"
        Fetcher(allow=allow, max_bytes=100, timeout=5.0, resolve=resolve).fetch(url)
        uploader = Uploader(allow=allow, bucket="", endpoint="", region="auto", timeout=5.0, resolve=resolve)
        uploader.upload(media, PresignedPut(url=url), key="")
        ask(server.url)
        comfy = ComfyClient(server.url, client_id="a")
        comfy.queue()
        comfy.close()
        assert len(server.requests) == 4
    assert proxy.requests == []
    assert websocket_options(server.url)["http_no_proxy"] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://sequencer.test", True),
        ("https://inside.corp.test/x", False),
        ("http://10.1.2.3:8188", False),
        ("http://10.2.2.3:8188", True),
        ("http://localhost:8188", False),
        ("http://127.0.0.9:8188", False),
        ("http://[::1]:8188", False),
    ],
)
def test_no_proxy_is_respected(url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "corp.test,10.1.0.0/16")
    assert proxy_for(url) == ("http://proxy.test:3128" if proxied else "")


@pytest.mark.parametrize("value", ["socks5://user:secret@proxy.test:1080", "http://", "ftp://proxy.test", "http://a:b"])
def test_a_proxy_that_cannot_be_used_is_an_error_at_the_start_without_its_password(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ConfigError, match=r"proxy for sequencer\.test is not an http or https URL") as caught:
        Sequencer("https://sequencer.test")
    assert "secret" not in caught.value.message + caught.value.hint


def test_no_password_of_a_proxy_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("http://user:secret@proxy.test:3128") == "http://proxy.test:3128"
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:1")
    with pytest.raises(Retryable) as caught:
        ask("http://sequencer.test")
    assert "secret" not in caught.value.message
    with pytest.raises(ComfyDown) as down:
        ComfyClient("http://comfy.test", client_id="a").queue()
    assert "secret" not in down.value.message + down.value.hint


def test_the_doctor_says_what_counts_where() -> None:
    assert list(surroundings("certifi", {})) == []
    marks = list(surroundings("SSL_CERT_FILE", {"sequencer": "http://proxy.test:3128"}))
    text = " ".join(mark.says for mark in marks)
    for words in ("SSL_CERT_FILE counts for sequencer", "never for inputs", "sequencer over http://proxy.test:3128"):
        assert words in text
