"""Downloads one file over HTTP, resuming its partial file however often the connection breaks.

Promises: the file is checked against every known size and hash; bytes are downloaded twice only if the server has no
ranges or has another file by now; `Retry-After` is obeyed. Each error names the file, the reason and the next step,
and no URL with its query.

Never: gives a file its final name, or holds more than a few megabytes of it in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3

from miner import __version__
from miner.models.catalogue import ModelFile
from miner.models.digest import CHUNK
from miner.models.disk import require_free
from miner.models.http_range import classify, origin_of, range_headers, resume_at, total_of
from miner.models.partial_file import PartialFile
from miner.models.progress import Progress, Stop, Stopped
from miner.models.source import Locate, Source, account_hint, without_query
from miner.net.environment import trust
from miner.net.errors import answered, in_words, passing
from miner.task.errors import MachineFault, Retryable
from miner.task.policy import backoff
from miner.telemetry.sizes import gb

_TIMEOUT = (10.0, 30.0)  # seconds: to connect, and without a byte
_LONGEST_WAIT = 900.0  # seconds; the download fails where a server asks for more
_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` in a row without a new byte; `base` and `cap` of the delays are in seconds."""

    attempts: int = 6
    base: float = 0.5
    cap: float = 30.0


class Download:
    """One file into its partial file, in one thread. Run it once."""

    def __init__(
        self,
        file: ModelFile,
        partial: PartialFile,
        locate: Locate,
        *,
        stop: Stop,
        progress: Progress,
        retry: RetryPolicy,
        max_bytes: int | None = None,
    ) -> None:
        """`max_bytes`: limit for a file of unknown size."""
        self._file = file
        self._partial = partial
        self._locate = locate
        self._stop = stop
        self._progress = progress
        self._retry = retry
        self._max_bytes = max_bytes
        self._rng = random.Random()

    def run(self) -> str:
        """The SHA-256 of the file, once the partial file is complete and checked.

        Blocks until then. Raises MachineFault where it cannot be downloaded, and Stopped.
        """
        with requests.Session() as session:
            session.verify = trust().path
            session.headers["User-Agent"] = f"xalora-miner/{__version__}"
            while True:
                source = self._until_complete(session)
                got, wanted = self._partial.sha256(), self._file.sha256 or source.sha256
                if got == wanted or not wanted:
                    return got
                pieces = self._partial.pieces
                self._partial.restart(origin_of(source, {}))
                if pieces <= 1:
                    raise MachineFault(
                        f"{self._file.relative_path}: {_host(source)} sent SHA-256 {got}, expected {wanted}",
                        hint="the file changed there, or this copy is wrong: check its page",
                    )
                self._message("restarting: the assembled pieces are not the file")

    def _until_complete(self, session: requests.Session) -> Source:
        """Attempts until one succeeds."""
        failures, furthest = 0, 0
        while True:
            try:
                return self._attempt(session)
            except Retryable as error:
                failures = failures + 1 if self._partial.length <= furthest else 1
                furthest = max(furthest, self._partial.length)
                self._back_off(error, failures)

    def _back_off(self, error: Retryable, failures: int) -> None:
        if self._stop.is_set():
            raise Stopped
        asked = error.retry_after or 0.0
        if failures >= self._retry.attempts or asked > _LONGEST_WAIT:
            again = f" and asks to wait {asked:.0f} s" if asked > _LONGEST_WAIT else f", {failures} times in a row"
            kept = f"run the same command to resume after {gb(self._partial.length)}"
            hint = error.hint or (kept if self._partial.length else "check this machine's network and try again")
            raise MachineFault(f"{self._file.relative_path}: {error.message}{again}", hint=hint)
        delay = backoff(failures, rng=self._rng, base=self._retry.base, cap=self._retry.cap, at_least=asked)
        self._message(f"{error.message}; retrying in {delay:.1f} s")
        self._stop.wait(delay)

    def _attempt(self, session: requests.Session) -> Source:
        source = self._locate_checked()
        start = resume_at(self._partial.length, self._partial.origin, source, self._file)
        size = self._file.size or source.size
        if start and start == size:
            self._resume()
            return source
        headers = {"Accept-Encoding": "identity", **source.headers, **range_headers(start, self._partial.origin)}
        with self._get(session, source, headers) as response, self._stop.interrupting(lambda: _shut_down(response)):
            self._receive(response, source, start)
        return source

    def _locate_checked(self) -> Source:
        try:
            source = self._locate()
        except MachineFault as error:
            raise MachineFault(f"{self._file.relative_path}: {error.message}", hint=error.hint) from error
        for what, wanted, told in (
            ("size", self._file.size, source.size),
            ("SHA-256", self._file.sha256, source.sha256),
        ):
            if wanted and told and wanted != told:
                raise MachineFault(
                    f"{self._file.relative_path}: {source.display_url} has {what} {told}, expected {wanted}",
                    hint="it changed there: look for a newer version of the workflow",
                )
        return source

    def _receive(self, response: requests.Response, source: Source, start: int) -> None:
        """Append the reply's bytes to the partial file. Raises Retryable where the file is not complete."""
        verdict = classify(response.status_code, response.headers, start=start, origin=self._partial.origin)
        if verdict == "refused":
            raise self._refusal(response, source)
        if verdict == "changed":
            self._partial.restart(origin_of(source, {}))
            raise Retryable(f"the file at {_host(source)} changed")
        if verdict == "complete":
            self._resume()
            return
        total = total_of(response.status_code, response.headers)
        size = self._file.size or source.size
        if response.headers.get("Content-Type", "").startswith("text/html") and (total is None or total != size):
            text = f"{self._file.relative_path}: a web page came instead of the file: {without_query(response.url)}"
            raise MachineFault(text, hint=account_hint(self._file.url))
        if size is not None and total is not None and total != size:
            hint = "the file changed there: check its page"
            raise Retryable(f"{_host(source)} has {total} bytes, expected {size}", hint=hint)
        self._require_an_end(response, source, total if size is None else size)
        if verdict == "rest":
            self._resume()
        else:
            self._partial.restart(origin_of(source, response.headers))
        require_free(self._partial.target.parent, (total or size or 0) - self._partial.length)
        self._read_body(response, source, total if size is None else size)

    def _require_an_end(self, response: requests.Response, source: Source, size: int | None) -> None:
        """Without a known length, a broken connection looks like the end of the file."""
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        known = size is not None or chunked or self._file.sha256 or self._file.name.endswith(".safetensors")
        if not known:
            text = f"{self._file.relative_path}: {_host(source)} does not tell its length, and its hash is unknown"
            raise MachineFault(text, hint="add size or sha256 to its [[models]] in workflow.toml")

    def _read_body(self, response: requests.Response, source: Source, size: int | None) -> None:
        max_bytes = size if size is not None else self._max_bytes
        self._progress.update(self._file.relative_path, self._partial.length, size)
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            if max_bytes is not None and self._partial.length + len(chunk) > max_bytes:
                self._partial.restart(origin_of(source, {}))
                hint = "check its URL"
                text = f"{self._file.relative_path}: {_host(source)} sends more than {max_bytes} bytes"
                raise MachineFault(text, hint=hint)
            self._partial.append(chunk)
            self._progress.update(self._file.relative_path, self._partial.length, size)
            if self._stop.is_set():
                raise Stopped
        if size is not None and self._partial.length < size:
            raise Retryable(f"{_host(source)} closed the connection after {self._partial.length} of {size} bytes")

    def _resume(self) -> None:
        if self._partial.unhashed:
            self._message("hashing the bytes that are present")
        self._partial.resume(
            stop=self._stop, on_read=lambda done: self._progress.update(self._file.relative_path, done, self._file.size)
        )

    def _refusal(self, response: requests.Response, source: Source) -> Retryable | MachineFault:
        status = response.status_code
        if error := passing(_host(source), status, response.headers):
            return error
        says = answered(_host(source), status)
        if source.identity and status in (401, 403, 404):  # an expired signed URL; the next one is new
            return Retryable(says)
        if status == 200:
            says = f"{_host(source)} compresses the file although asked not to"
        hint = account_hint(self._file.url) if status in (401, 403) else "check its URL"
        return MachineFault(f"{self._file.relative_path}: {says}", hint=hint)

    @contextmanager
    def _get(self, session: requests.Session, source: Source, headers: dict[str, str]) -> Iterator[requests.Response]:
        """One GET, its body unread. Raises Retryable for network errors, also while the body is read."""
        try:
            # with an `auth`, requests does not replace the token with ~/.netrc
            auth = _unchanged if source.headers else None
            with session.get(source.url, headers=headers, auth=auth, stream=True, timeout=_TIMEOUT) as response:
                yield response
        except _HOPELESS as error:
            kind = type(error).__name__
            hint = "check its URL"
            raise MachineFault(
                f"{self._file.relative_path}: {source.display_url} is not usable: {kind}", hint=hint
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # without the cause, whose text can hold the query
            raise Retryable(in_words(error, _host(source))) from None

    def _message(self, text: str) -> None:
        self._progress.message(self._file.relative_path, text)


def _host(source: Source) -> str:
    return urlsplit(source.url).hostname or "the server"


def _shut_down(response: requests.Response) -> None:
    """End a wait for its body, from another thread."""
    with suppress(OSError, ValueError, RuntimeError):  # it has already ended
        response.raw.shutdown()


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
