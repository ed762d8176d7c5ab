"""A result on its way home: by whatever URL the sequencer named, to a file.

It promises that only public addresses are reached, or the sequencer's own, so that nobody can have this machine ask
its own network; that a download which breaks leaves what was there (`<name>.part` is written first); and that no
message shows a URL's query, which may be a secret. It never follows a redirect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from miner.net.addresses import Allow, Refused, is_loopback, parse_url
from miner.net.deadline import Standstill
from miner.net.session import Guard, Session
from miner.sdk.errors import ConnectionFailed, WorkflowError
from miner.sdk.replies import WorkflowTaskResult, refusal
from miner.sdk.settings import DEFAULT_WORKFLOW_URL, WORKFLOW_URL, read_setting
from miner.sdk.transport import USER_AGENT, call_of
from miner.task.errors import Retryable

SILENCE = 60.0  # seconds without a byte
LONGEST = 86400.0  # seconds in all
_CHUNK = 1 << 18  # bytes


def download(
    result: WorkflowTaskResult | str,
    destination: Path,
    *,
    workflow_url: str | None = None,
    env_file: str | None = ".env",
) -> int:
    """Download a result, or a URL, to `destination`, replacing it. Returns the size in bytes; blocks.

    `workflow_url`: the sequencer that named it, else the one of the settings. Raises WorkflowError: for a result
    without a URL, a URL that is refused, and the disk; ConnectionFailed and APIError for the network.
    """
    url = result if isinstance(result, str) else result.result_url
    if url is None:
        raise WorkflowError("the result has no URL: the sequencer returned an object key alone")
    sequencer = workflow_url or read_setting(WORKFLOW_URL, env_file=env_file) or DEFAULT_WORKFLOW_URL
    part = destination.with_name(f"{destination.name}.part")
    call = call_of("GET", url)
    try:
        with _written(destination), part.open("wb") as file:
            size = _fetch(url, file, destination, call=call, allow=_allowed(url, sequencer))
        with _written(destination):
            part.replace(destination)
    except Refused as refused:
        raise WorkflowError(f"{call} was not made: {refused}") from None
    except Retryable as error:
        raise ConnectionFailed(f"{call} failed: {error.message}") from None
    finally:
        part.unlink(missing_ok=True)
    return size


@contextmanager
def _written(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkflowError(f"{destination} cannot be written: {error.strerror}") from error


def _allowed(url: str, sequencer: str) -> Allow:
    """The URL's host, where it is the sequencer's own, or this machine beside a sequencer on this machine."""
    place, home = parse_url(url), parse_url(sequencer)
    near = place.host == home.host or (is_loopback(place.host) and is_loopback(home.host))
    return frozenset({(place.host, place.port)}) if near else frozenset()


def _fetch(url: str, file: IO[bytes], destination: Path, *, call: str, allow: Allow) -> int:
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    limit = Standstill(SILENCE, longest=LONGEST)
    with (
        limit,
        closing(Session(Guard(allow=allow))) as session,
        session.exchange("GET", url, headers=headers) as response,
    ):
        if not 200 <= response.status < 300:
            told = response.read(2000, decode_content=False)
            raise refusal(told, call=call, status=response.status, reason=response.reason or "", retry_after=None)
        while chunk := response.read(_CHUNK, decode_content=False):
            with _written(destination):  # here, since the session takes every OSError for the network's
                file.write(chunk)
            limit.sent += len(chunk)
        return file.tell()
