"""The sequencer: its name, reply and clock, and the API key.

Promises: no request leases, creates or answers a task. The only call is a consumer's request for the result of a task
that does not exist (docs/protocol.md): it takes a key and changes nothing.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from miner import __version__
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.net.addresses import is_literal
from miner.net.environment import proxy_for, shown, trust
from miner.net.errors import in_words, is_tls_fault, too_slow
from miner.task.errors import ConfigError
from miner.telemetry.health import Mark

LONGEST = 10.0  # seconds for one reply
SLOW = 2.0  # seconds for one reply
SKEW_SAME = 2.0  # seconds; less cannot be measured
SKEW_SEEN = 60.0  # seconds; more is a warning
SKEW_FATAL = 900.0  # seconds; more, and S3 refuses signed requests (RequestTimeTooSkewed)

_NETWORK = "check this machine's network, and XALORA_WORKFLOW_URL"
_TLS = "check this machine's clock and its CA certificates; a proxy that decrypts traffic has its own certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply. Times are Unix seconds, by our clock."""

    status: int
    date: float | None  # by the server's clock
    at: float
    seconds: float
    speaks_json: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why there was no reply."""

    reason: str
    cure: str = _NETWORK


def name_lookup(facts: Facts) -> Iterator[Mark]:
    """Whether the sequencer's name has an address."""
    parts = urlsplit(facts.settings.sequencer.url)
    host = parts.hostname or ""
    if is_literal(host):
        yield good("DNS", f"{host} is an address: no lookup needed")
        return
    with suppress(ConfigError):  # another check tells
        if proxy_for(facts.settings.sequencer.url):
            yield note("DNS", f"the proxy looks up {host}; inputs of tasks need this machine's own DNS")
            return
    began = time.monotonic()
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        cure = "check /etc/resolv.conf and XALORA_WORKFLOW_URL; in a container, the runtime's DNS options"
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not a valid name"
        yield bad("DNS", f"{host} has no address: {reason}", cure)
        return
    yield resolved(host, len(found), time.monotonic() - began)


def environment(facts: Facts) -> Iterator[Mark]:
    """Which certificates and proxies of the environment count, and where."""
    settings = facts.settings
    try:
        source = trust().source
        named = {
            "sequencer": settings.sequencer.url,
            "S3 store": settings.upload.endpoint,
            "upload gateway": settings.upload.gateway,
            **{f"ComfyUI {number}": url for number, url in enumerate(settings.comfyui.urls, 1)},
        }
        proxies = {name: shown(proxy) for name, url in named.items() if url and (proxy := proxy_for(url))}
    except ConfigError as error:
        yield bad("Proxy and certificates", error.message, error.hint)
        return
    yield from surroundings(source, proxies)


def surroundings(source: str, proxies: Mapping[str, str]) -> Iterator[Mark]:
    """Pure. Silent where the environment says nothing."""
    scope = "sequencer, S3 store, ComfyUI and downloads of models; never for inputs and upload URLs of tasks"
    if source != "certifi":
        yield good("Certificates", f"{source} counts for {scope}")
    if proxies:
        says = ", ".join(f"{name} over {proxy}" for name, proxy in proxies.items())
        yield good("Proxy", f"{says}; inputs and upload URLs of tasks are reached directly, or not at all")


def resolved(host: str, addresses: int, seconds: float) -> Mark:
    """Pure."""
    says = f"{host} has {addresses} address{'es'[: 2 * (addresses != 1)]}, found in {seconds * 1000:.0f} ms"
    return warning("DNS", says, "use a closer resolver") if seconds > SLOW else good("DNS", says)


def sequencer(facts: Facts) -> Iterator[Mark]:
    """Whether it answers, its clock, and whether it accepts the key."""
    settings = facts.settings.sequencer
    secret = settings.api_key.get_secret_value() if settings.api_key else ""
    timeout = min(settings.timeout, LONGEST)
    answer = ask(settings.url, secret, timeout=timeout)
    yield reachable(urlsplit(settings.url).netloc.rpartition("@")[2], answer)
    if isinstance(answer, Answer):
        yield clock(answer)
        yield key(settings.url, secret, answer, timeout=timeout)


def ask(url: str, key: str, *, timeout: float) -> Answer | NoAnswer:
    """Request the result of an unknown task, with `key` in both places of the protocol. Blocks for `timeout` s."""
    headers = {"User-Agent": f"xalora-miner/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = {"task_id": f"doctor-{secrets.token_hex(16)}", "api_key": key}
    host = urlsplit(url).netloc.rpartition("@")[2]
    with closing(requests.Session()) as session:
        session.trust_env = False
        session.verify = trust().path
        session.proxies = {"all": proxy_for(url)}  # "": none
        began = time.time()
        try:
            with session.post(
                f"{url}/task_result_query",
                json=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                stream=True,  # the body is not needed
            ) as reply:
                ended = time.time()
                return Answer(
                    status=reply.status_code,
                    date=_unix(reply.headers.get("Date", "")),
                    at=(began + ended) / 2,
                    seconds=ended - began,
                    speaks_json="json" in reply.headers.get("Content-Type", ""),
                )
        except requests.RequestException as error:
            slow = isinstance(error, requests.Timeout)
            reason = too_slow(host, timeout).message if slow else in_words(error, host)
            return NoAnswer(reason=reason, cure=_TLS if is_tls_fault(error) else _NETWORK)


def reachable(host: str, answer: Answer | NoAnswer) -> Mark:
    """Pure."""
    name = "Sequencer"
    if isinstance(answer, NoAnswer):
        return bad(name, answer.reason, answer.cure)
    if answer.status >= 500 or answer.status == 429:
        cure = "wait: the miner retries by itself; if it lasts, tell the sequencer's operator"
        return warning(name, f"{host} answers {answer.status}: overloaded or out of order", cure)
    if 300 <= answer.status < 400:
        cure = "set XALORA_WORKFLOW_URL to its new address; the miner does not follow redirects"
        return bad(name, f"{host} answers {answer.status}: a redirect", cure)
    if not answer.speaks_json:
        says = f"{host} answers {answer.status} without JSON: not a sequencer"
        return bad(name, says, "set XALORA_WORKFLOW_URL to the sequencer's base URL")
    says = f"{host} answers in {answer.seconds * 1000:.0f} ms"
    return warning(name, says, "use a closer network") if answer.seconds > SLOW else good(name, says)


def clock(answer: Answer) -> Mark:
    """Our clock against the sequencer's. Pure."""
    name = "Clock"
    if answer.date is None:
        return note(name, "the sequencer's reply has no Date to compare with")
    skew = answer.at - answer.date - 0.5  # on average, since Date has whole seconds
    if abs(skew) < SKEW_SAME:
        return good(name, "agrees with the sequencer")
    says = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the sequencer"
    cure = "turn on time synchronisation: timedatectl set-ntp true"
    if abs(skew) >= SKEW_FATAL:
        return bad(name, f"{says}: signed uploads and TLS certificates will be refused", cure)
    return warning(name, says, cure) if abs(skew) >= SKEW_SEEN else good(name, says)


def key(url: str, secret: str, answer: Answer, *, timeout: float) -> Mark:
    """Whether the key is accepted and a made-up one is not. Sends one or two more requests."""
    name = "API key"
    if not secret:
        return note(name, "not set; a sequencer that requires one refuses the first request for a task")
    if _is_refusal(answer) and not _accepts_second_half(url, secret, timeout):
        cure = "set XALORA_API_KEY to the complete key that this sequencer issued to you"
        return bad(name, f"the sequencer refuses it ({answer.status})", cure)
    control = ask(url, f"no-such-key-{secrets.token_hex(8)}", timeout=timeout)
    if isinstance(control, Answer) and _is_refusal(control):
        return good(name, "accepted; a made-up one is refused")
    says = "not verified: the sequencer accepts any key here, and doctor never requests a task"
    return note(name, says)


def _accepts_second_half(url: str, secret: str, timeout: float) -> bool:
    """A combined key is `<consumer id>#<key>` or `<consumer id>-<key>`; consumers send the second half."""
    _, _, half = secret.partition("#" if "#" in secret else "-")
    answer = ask(url, half, timeout=timeout) if half else None
    return isinstance(answer, Answer) and not _is_refusal(answer)


def _is_refusal(answer: Answer) -> bool:
    return answer.status in (401, 403)


def _unix(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
