"""The miner's side of the sequencer's wire: ask for a task, submit an outcome.

It uses urllib3 directly: the overhead of requests takes longer than a call itself, twice a task, while the GPU waits.
It promises that a reply is bounded (bytes, nesting, seconds) and typed before it is returned, and that every library
error becomes one of ours. It never retries and never decides: `policy` and the loops do. docs/protocol.md describes
the wire.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Literal

import urllib3

from miner import __version__
from miner.net.deadline import Deadline
from miner.net.egress import Egress
from miner.net.errors import answered, http_date, in_words, retry_after
from miner.net.pools import operators_pools
from miner.sequencer.replies import Reply, parse_object, parse_reply, parse_salvage
from miner.sequencer.salvage import Salvage
from miner.task.errors import Retryable
from miner.task.stages import Outcome
from miner.telemetry import clock
from miner.telemetry.log import cut

MAX_REPLY_BYTES = 1 << 20  # of a reply, besides pictures
LONGEST_SCAN = 4  # times that, to look for the id of a task that is too large
CHUNK = 1 << 16  # bytes read at a time
RATE = 250_000  # bytes a second that a large reply may take
# Seconds for a new connection. Linux retries after 1 and 3 s; a longer limit would let more of a fleet connect at once
# when a host comes back (docs/scale.md).
CONNECT = 4.0
KEPT = 4  # connections that are kept open
UNAUTHORIZED_PAUSE = 300.0  # seconds between asks while the id or the key is refused

_APPLIED = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,6})\b", re.IGNORECASE)  # RFC 7240

Ack = Literal["acknowledged", "refused", "gone"]
"""The result of a submission: accepted, rejected for good (400), or its task no longer exists (404)."""


class Unauthorized(Retryable):
    """401 or 403: the sequencer rejects this miner id or key."""


class Aborted(Retryable):
    """We ended a held request ourselves; it may have leased a task, which the next reply names."""


class Waits:
    """Held requests in progress (`Prefer: wait`), so that a drain can end them: urllib3 cannot cancel a request."""

    def __init__(self) -> None:
        self._limits: dict[Deadline, str] = {}  # → the miner id
        self._mutex = threading.Lock()
        self._closed = False

    @contextmanager
    def cancellable(self, limit: Deadline, miner_id: str) -> Iterator[None]:
        """Make a request under `limit` one that `cancel` can end from another thread."""
        with self._mutex:
            self._limits[limit] = miner_id
            if self._closed:
                limit.cut()
        try:
            yield
        finally:
            with self._mutex:
                del self._limits[limit]

    def cancel(self, *, for_good: bool = False, miner_id: str = "") -> None:
        """End those in progress, of one miner id or of all; `for_good`: later ones too."""
        with self._mutex:
            self._closed = self._closed or for_good
            for limit, owner in self._limits.items():
                if miner_id in ("", owner):
                    limit.cut()


class Sequencer:
    """One sequencer. Methods block, and may be called from any thread."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        timeout: float = 30.0,
        max_input: int = 0,
        egress: Egress | None = None,
    ) -> None:
        """`max_input`: bytes of a picture that a task may hold as a `data:` URL. `egress` is told the sequencer's time.
        Raises ConfigError for a proxy or certificates that cannot be used.
        """
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._max_reply = MAX_REPLY_BYTES + max_input * 11 // 8  # base64, whose slashes JSON may escape
        self._egress = egress or Egress()
        self._pools = operators_pools(self._url, maxsize=KEPT)
        self._waits = Waits()
        self._headers = {
            "User-Agent": f"xalora-miner/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        }

    def request(
        self,
        miner_id: str,
        workflow_ids: Collection[str],
        *,
        wait: float = 0.0,
        progress: Sequence[Mapping[str, Any]] = (),
    ) -> Reply:
        """Ask for a task for one of `workflow_ids`; an empty list only reports that this miner is alive, and `progress`
        how far its tasks are.

        The sequencer may hold the request for `wait` seconds until it has a task. Raises Retryable, or its subclasses
        Unauthorized and Aborted.
        """
        body = {
            "erc20_address": miner_id,
            "miner_id": miner_id,
            "workflow_ids": list(workflow_ids),
            "version": __version__,
            **({"progress": list(progress)} if progress else {}),
        }
        headers = {"Prefer": f"wait={int(wait)}"} if wait >= 1 else {}
        limit = Deadline(self._timeout + wait, longest=self._timeout + wait + self._max_reply / RATE)
        try:
            with self._waits.cancellable(limit, miner_id) if headers else nullcontext():
                response, data = self._post("/miner_request", body, limit, headers=headers)
        except Retryable as error:
            raise Aborted("the miner ended its request") if limit.over and not limit.expired else error from error
        if response.status not in (200, 204):
            raise _failure("/miner_request", response, data)
        if isinstance(data, Salvage):
            says = f"the task is larger than {self._max_reply / 1e6:.0f} MB, which is all that this miner takes"
            reply = parse_salvage(data, f"{says}: pass pictures as URLs of files", leased_at=clock.now())
        else:
            reply = parse_reply(data if response.status == 200 else b"{}", leased_at=clock.now())
        applied = _APPLIED.search(response.headers.get("Preference-Applied", ""))
        return replace(reply, held_for=min(float(applied[1]), wait) if applied else 0.0)

    def submit(self, miner_id: str, outcome: Outcome) -> Ack:
        """Answer a task. Raises Retryable if it is unknown whether the answer arrived: submit it again."""
        response, data = self._post("/miner_submit", {"miner_id": miner_id, **asdict(outcome)}, Deadline(self._timeout))
        if 200 <= response.status < 300:
            return "acknowledged"
        if response.status == 400:
            return "refused"
        if response.status == 404:
            return "gone"
        raise _failure("/miner_submit", response, data)

    def abort_waits(self, *, for_good: bool = True) -> None:
        """End every held request now: each raises Aborted in its own thread. `for_good`: and every later one."""
        self._waits.cancel(for_good=for_good)

    def end_wait(self, miner_id: str) -> None:
        """End this miner's held request now: it raises Aborted in its own thread; a lease in its reply is lost."""
        self._waits.cancel(miner_id=miner_id)

    def close(self) -> None:
        self._pools.clear()

    def _post(
        self, path: str, body: Mapping[str, Any], limit: Deadline, *, headers: Mapping[str, str] | None = None
    ) -> tuple[urllib3.BaseHTTPResponse, bytes | Salvage]:
        """POST JSON and read a bounded body, all within `limit`, however slowly it arrives."""
        try:
            with (
                limit,
                self._pools.urlopen(
                    "POST",
                    self._url + path,
                    body=json.dumps(body).encode(),
                    headers={**self._headers, **(headers or {})},
                    timeout=urllib3.Timeout(connect=min(CONNECT, limit.seconds), read=limit.seconds),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                ) as response,
            ):
                data = self._read(response, limit)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not limit.expired:
                raise Retryable(in_words(error, "the sequencer")) from error
        if limit.expired:  # a cut also ends a body that has no length
            raise Retryable(f"the sequencer {limit.why}")
        if (date := http_date(response.headers.get("Date", ""))) is not None:
            self._egress.heard(date)
        return response, data

    def _read(self, response: urllib3.BaseHTTPResponse, limit: Deadline) -> bytes | Salvage:
        """The body; of one that is too long, the task's id. Large ones get more time."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Retryable("the sequencer compressed its reply, although it was asked not to")
        body, salvage = io.BytesIO(), None
        while chunk := response.read1(CHUNK, decode_content=False):
            limit.grant(len(chunk) / RATE)
            if salvage is None:
                body.write(chunk)
                if body.tell() <= self._max_reply:
                    continue
                salvage, chunk = Salvage(), body.getvalue()
                body.close()
            salvage.feed(chunk)
            if salvage.found or salvage.size > LONGEST_SCAN * self._max_reply:
                return salvage  # the rest is not read
        response.release_conn()  # urllib3 does not release it after an empty body
        return salvage or body.getvalue()


def _failure(path: str, response: urllib3.BaseHTTPResponse, data: bytes | Salvage) -> Retryable:
    """The error for any other status."""
    status = response.status
    said = "" if isinstance(data, Salvage) else _said(data)
    if status in (401, 403):
        return Unauthorized(
            f"the sequencer refused this miner ({status}){said}",
            retry_after=UNAUTHORIZED_PAUSE,
            hint="check XALORA_MINER_ID and XALORA_API_KEY; `xalora-miner config` shows the settings in force",
        )
    return Retryable(f"{answered('the sequencer', status)} to {path}{said}", retry_after=retry_after(response.headers))


def _said(data: bytes) -> str:
    try:
        body = parse_object(data)
    except Retryable:
        return ""
    said = body.get("message") or body.get("error")
    return f": {cut(said, 200)!a}" if isinstance(said, str) else ""
