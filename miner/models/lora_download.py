"""Downloads one LoRA that a task names, from a host that the operator allows.

Promises: each hop of a redirect is judged, by the list of hosts and by the address guard; a token goes to its own
site alone; what does not move for STALL seconds is cut; room is reserved before a byte is written, and no more is
written than was reserved; a web page, a pickle, a file that is cut off, and a LoRA for another base are refused,
most of them by their first bytes. A broken connection goes on where it broke, if the file is still the same.

Never: follows what a proxy or ~/.netrc says, gives the file a name that ComfyUI lists, or puts an address or a token
into a text.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from miner.models.disk import disk_errors
from miner.models.lora_base import kind_of_header
from miner.models.safetensors import header_flaw
from miner.net.addresses import Refused, parse_url
from miner.net.deadline import Standstill
from miner.net.errors import answered, passing
from miner.net.references import Reference
from miner.net.session import Guard, Response, Session, redirect
from miner.task.errors import MinerError, Retryable
from miner.task.policy import backoff
from miner.telemetry.sizes import gb
from miner.workflows.lora_names import title

STALL = 20.0  # seconds without a byte
LONGEST = 3600.0  # seconds in all
LONGEST_HEADER = 16_000_000  # bytes; one of a LoRA has 0.1 to 2 MB, and as JSON it needs ten times its size in memory
ATTEMPTS = 4  # in a row without a new byte
LONGEST_WAIT = 30.0  # seconds without a new byte, after which no attempt begins; and that a host may ask us to wait

_CHUNK = 1 << 18  # bytes read at a time
_REDIRECTS = 5
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
_BLOCKED = 451  # Unavailable For Legal Reasons: the region, not the file


class HostRefused(Refused):
    """The host answers nothing at all to this machine, whatever it is asked for."""


class Unwanted(MinerError):
    """No task needs the file any more, or the miner is stopping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Where references lead, and what the operator allows there."""

    hosts: tuple[str, ...]  # names, `*.` and a domain, or `*`
    hub: str = "https://huggingface.co"
    civitai: str = "https://civitai.com"
    hub_token: str = field(default="", repr=False)
    civitai_token: str = field(default="", repr=False)

    def first(self, reference: Reference) -> str:
        """The URL to begin at."""
        if (file := reference.hub) is not None:
            return self.hub + file.route
        if reference.kind == "civitai":
            return f"{self.civitai}/api/download/models/{reference.place}?type=Model&format=SafeTensor"
        return reference.place

    def require(self, url: str) -> str:
        """The host of a URL. Raises Refused unless it is allowed."""
        host = parse_url(url).host
        for allowed in self.hosts:
            domain = allowed.removeprefix("*.")
            if host == allowed or allowed == "*" or (domain != allowed and host.endswith(f".{domain}")):
                return host
        raise Refused(f"{host} is not among the hosts that this miner fetches LoRAs from")

    def token(self, url: str) -> Mapping[str, str]:
        """The header with the token of the site that a URL is on, if it is one of the two."""
        for site, token in ((self.hub, self.hub_token), (self.civitai, self.civitai_token)):
            if token and _origin(url) == _origin(site):
                return {"Authorization": f"Bearer {token}"}
        return {}


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


@dataclass(slots=True, kw_only=True)
class Orders:
    """What the shelf tells a download, and hears from it."""

    reserve: Callable[[int], bool]  # whether so many bytes in all may be written now
    wait_for_room: Callable[[int], None]  # blocks until they may; raises Refused and Unwanted
    require_wanted: Callable[[], None]  # raises Unwanted
    require_host: Callable[[str], None]  # raises Refused for a host that is left alone now
    bases: Callable[[], Collection[str]]  # that the waiting tasks need
    most: int  # bytes of one file
    stop: threading.Event


class Download:
    """One file, in one thread. `host`: the one that is asked now, for the blame."""

    def __init__(self, reference: Reference, path: Path, *, sites: Sites, guard: Guard, orders: Orders) -> None:
        self.reference = reference
        self.host = ""
        self.hosts: set[str] = set()  # that were asked
        self.size: int | None = None  # bytes, where known
        self.base = ""
        self.length = 0  # bytes that are on the disk
        self._path = path
        self._sites = sites
        self._guard = guard
        self._orders = orders
        self._wanted_hash = reference.sha256
        self._validator = ""  # of the bytes that are there: a strong ETag, or the hub's hash
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._judged = False
        self._rng = random.Random()

    def run(self) -> str:
        """The SHA-256 of the file, once it is complete on the disk, checked and synced. Blocks.

        Raises Refused for the consumer, Retryable where the host or the network failed, Unwanted, and MachineFault.
        """
        with disk_errors(self._path), self._path.open("wb", buffering=0) as file:
            failures, furthest, moved_at = 0, -1, time.monotonic()
            while True:
                try:
                    self._attempt(file)
                    break
                except Retryable as error:
                    if self.length > furthest:
                        failures, furthest, moved_at = 0, self.length, time.monotonic()
                    failures += 1
                    asked, still = error.retry_after or 0.0, time.monotonic() - moved_at
                    if failures >= ATTEMPTS or still >= LONGEST_WAIT or asked > LONGEST_WAIT:
                        raise
                    self._orders.stop.wait(backoff(failures, rng=self._rng, base=0.5, cap=5.0, at_least=asked))
                    self._orders.require_wanted()
            os.fsync(file.fileno())
        found = self._hash.hexdigest()
        if self._wanted_hash and found != self._wanted_hash:
            raise Refused(f"{self.host} sent another file than the SHA-256 says")
        return found

    # ---- one attempt ------------------------------------------------------------------------------------------------

    def _attempt(self, file: IO[bytes]) -> None:
        self._orders.require_wanted()
        limit = Standstill(STALL, longest=LONGEST)
        with limit, closing(Session(self._guard)) as session:
            url = self._sites.first(self.reference)
            for _ in range(1 + _REDIRECTS):
                self._ask(self._sites.require(url))
                with session.exchange("GET", url, headers=self._headers(url)) as response:
                    target = redirect(response, url)
                    if target is None:
                        room = self._receive(response, file, limit)
                        break
                    self._learn(response, url)
                    url = target
            else:
                raise Refused(f"{self.host} redirects more than {_REDIRECTS} times")
        if room:  # with the connection closed: its server would not wait
            self._orders.wait_for_room(room)
            self._attempt(file)

    def _ask(self, host: str) -> None:
        if host not in self.hosts:
            self._orders.require_host(host)
        self.host = host
        self.hosts.add(host)

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", **self._sites.token(url)}
        if self.length and (self._validator or self._wanted_hash):  # else what comes might be of another file
            headers["Range"] = f"bytes={self.length}-"
            if self._validator:
                headers["If-Range"] = self._validator
        return headers

    def _learn(self, response: Response, url: str) -> None:
        """Of its large files the hub tells the size and the hash before it redirects."""
        if self.reference.kind != "hub" or _origin(url) != _origin(self._sites.hub):
            return
        etag = response.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            if self._wanted_hash and etag != self._wanted_hash:
                if self.reference.sha256:
                    raise Refused(f"{self.host} has another file than the SHA-256 says")
                self.length = 0  # it changed meanwhile
            self._wanted_hash = etag

    def _receive(self, response: Response, file: IO[bytes], limit: Standstill) -> int:
        """Take the rest of the file. Returns the bytes that there is no room for now, or 0 if it is complete."""
        self._require_file(response)
        if response.status == 206 and self._is_rest(response):
            pass
        elif response.status == 206:
            self._restart(file)
            raise Retryable(f"{self.host} sends the rest of another file")
        else:
            self._restart(file)
            length = response.headers.get("Content-Length", "")
            self.size = int(length) if re.fullmatch(r"\d{1,15}", length) else None
        etag = response.headers.get("ETag", "")
        self._validator = etag if etag.startswith('"') else ""
        if (self.size or 0) > self._orders.most:
            raise Refused(f"it has {gb(self.size)}, and this miner takes LoRAs of at most {gb(self._orders.most)}")
        room = self.size if self.size is not None else self._orders.most
        if not self._orders.reserve(room):
            return room
        self._read(response, file, limit, room)
        return 0

    def _require_file(self, response: Response) -> None:
        status = response.status
        if status == _BLOCKED:
            raise HostRefused(f"{answered(self.host, status)}: it is blocked where this miner is")
        if error := passing(self.host, status, response.headers):
            raise error
        if status in (401, 403):
            raise Refused(f"{answered(self.host, status)}: the LoRA does not exist there, or needs an account")
        if status == 416:
            self._validator, self.length = "", 0
            raise Retryable(f"the file at {self.host} changed")
        if status not in (200, 206):
            raise Refused(f"{answered(self.host, status)}; check the reference")
        if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
            raise Refused(f"{self.host} sends a web page in place of the LoRA; it may need an account")
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise Refused(f"{self.host} compresses the file, although it was asked not to")

    def _is_rest(self, response: Response) -> bool:
        """Whether a partial answer goes on where we stopped, in the same file."""
        span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        same = not self._validator or response.headers.get("ETag", self._validator) == self._validator
        if span is None or int(span[1]) != self.length or not same:
            return False
        self.size = self.size or int(span[2])
        return int(span[2]) == self.size

    def _restart(self, file: IO[bytes]) -> None:
        with disk_errors(self._path):
            file.seek(0)
            file.truncate()
        self.length, self._hash, self._judged = 0, hashlib.sha256(), False
        self._head.clear()

    def _read(self, response: Response, file: IO[bytes], limit: Standstill, room: int) -> None:
        looked = 0
        while chunk := response.read1(_CHUNK, decode_content=False):
            limit.sent += len(chunk)
            if self.length + len(chunk) > room:
                says = "than it said" if self.size is not None else f"than the {gb(room)} that this miner takes"
                raise Refused(f"{self.host} sends more {says}")
            self._write(file, chunk)
            if not self._judged:
                self._head += chunk
                self._judge_head()
            if self.length - looked >= 8 * _CHUNK:
                looked = self.length
                self._orders.require_wanted()
        if self.size is not None and self.length < self.size:
            raise Retryable(f"{self.host} closed the connection after {self.length} of {self.size} bytes")
        if not self._judged:
            raise Refused(f"what {self.host} sends is not a safetensors file")
        if flaw := header_flaw(self._header(), data=self.length - 8 - len(self._header())):
            if self.size is None and "cut off" in flaw:
                raise Retryable(f"{self.host} closed the connection too early")
            raise Refused(f"what {self.host} sends {flaw}")

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        with disk_errors(self._path):  # here, or it would be taken for the network's
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
        self._hash.update(chunk)
        self.length += len(chunk)

    # ---- the header -------------------------------------------------------------------------------------------------

    def _header(self) -> bytes:
        return bytes(self._head[8 : 8 + int.from_bytes(self._head[:8], "little")])

    def _judge_head(self) -> None:
        """Judge the file by its first bytes, as soon as they are there. Raises Refused."""
        if len(self._head) < 9:
            return
        size = int.from_bytes(self._head[:8], "little")
        if self._head[8:9] != b"{" or size > (self.size or self._orders.most):
            page = self._head.lstrip()[:1] == b"<"
            what = "a web page; it may need an account" if page else "not a safetensors file"
            raise Refused(f"what {self.host} sends is {what}")
        if size > LONGEST_HEADER:
            raise Refused(f"the file's header has {gb(size)}; at most {gb(LONGEST_HEADER)} are taken")
        if len(self._head) < 8 + size:
            return
        self._judged = True
        del self._head[8 + size :]
        header = self._header()
        kind = kind_of_header(header)
        if self.size is not None and (flaw := header_flaw(header, data=self.size - 8 - size)):
            raise Refused(f"what {self.host} sends {flaw}")
        if not kind.is_lora:
            raise Refused(f"what {self.host} sends is not a LoRA")
        self.base = kind.base or ""
        if not fits_any(self.base, self._orders.bases()):
            raise Refused(wrong_base(self.base, self._orders.bases()))


def fits_any(base: str, wanted: Collection[str]) -> bool:
    """Whether a LoRA for `base` is of use to a workflow for one of `wanted`; "" is unknown, and fits."""
    return not base or "" in wanted or not wanted or base in wanted


def wrong_base(base: str, wanted: Collection[str]) -> str:
    """A clause for a consumer."""
    return f"it is a LoRA for {title(base)}, and the workflow needs one for {' or '.join(map(title, sorted(wanted)))}"
