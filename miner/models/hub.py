"""Hugging Face: the current address, size and hash of one of its files.

`huggingface_hub` finds the token (HF_TOKEN, `hf auth login`) and the mirror (HF_ENDPOINT), sends the request and
interprets a refusal. `download` fetches the bytes, since hf_hub_download does not resume: since 1.18 each try starts
again in a new file (huggingface_hub#4228, #4196). Never: sends the token to another server than the hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urljoin, urlsplit

import requests
from huggingface_hub import HfFileMetadata, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's, as it has it
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not declared

from miner import __version__
from miner.models.source import HubFile, Source
from miner.net.environment import trust
from miner.net.errors import answered, in_words, is_passing, retry_after
from miner.task.errors import MachineFault, MinerError, Retryable

_TIMEOUT = 15.0  # seconds for one reply of the hub
_LIBRARY = "xalora-miner"
_RESET = re.compile(r";\s*t=(\d{1,6})")  # draft-ietf-httpapi-ratelimit-headers
_SHA256 = re.compile(r"[0-9a-f]{64}")  # such an ETag is the content's hash: the file is in LFS or Xet

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings would break the progress bars


def locate(file: HubFile, *, page: str) -> Source:
    """Ask the hub for `file`. `page`: URL where its licence is accepted, if the manifest has it.

    Blocks for _TIMEOUT a redirect. Raises Retryable for temporary errors, MachineFault for what needs the operator.
    """
    trust().export()
    try:
        url = hf_hub_url(file.repo, file.path, revision=file.revision)
        found = get_hf_file_metadata(url, timeout=_TIMEOUT, library_name=_LIBRARY, library_version=__version__)
    except (HTTPError, HFValidationError, OSError) as error:
        raise _translated(error, file, page or file.page) from None  # its text holds the whole reply
    if found.etag is None or found.commit_hash is None:
        raise MachineFault(
            f"{urlsplit(url).netloc} does not answer as Hugging Face does",
            hint="check HF_ENDPOINT, and that no captive portal intercepts the connection",
        )
    return _source(found, url, found.etag)


def _source(found: HfFileMetadata, url: str, etag: str) -> Source:
    location = urljoin(url, found.location)
    return Source(
        url=location,
        headers=_auth() if _origin(location) == _origin(constants.ENDPOINT) else {},
        display_url=url,
        size=found.size,
        sha256=etag if _SHA256.fullmatch(etag) else "",
        identity=etag,
    )


def _auth() -> Mapping[str, str]:
    headers = build_hf_headers(library_name=_LIBRARY, library_version=__version__)
    return {key: value for key, value in headers.items() if key.lower() == "authorization"}


def _origin(url: str) -> tuple[str, str]:
    return urlsplit(url).scheme, urlsplit(url).netloc


def _translated(error: Exception, file: HubFile, page: str) -> MinerError:
    """The hub's error as one of ours. GatedRepoError is a RepositoryNotFoundError, so the order matters."""
    match error:
        case OfflineModeIsEnabled():
            return MachineFault("HF_HUB_OFFLINE is set, so Hugging Face cannot be used", hint="unset it")
        case GatedRepoError():
            return MachineFault(
                f"{file.repo} is gated: accept its license at {page}",
                hint="then set HF_TOKEN to a token of that account",
            )
        case RepositoryNotFoundError():
            hint = "if it is private, set HF_TOKEN to a token with access"
            return MachineFault(f"Hugging Face has no {file.repo}, or it is private", hint=hint)
        case RevisionNotFoundError() | RemoteEntryNotFoundError() | HFValidationError():
            return MachineFault(f"{file.repo} has no {file.path} at {file.revision}", hint=f"check {page}")
        case HfHubHTTPError():
            return _refused(error, file)
    return Retryable(in_words(error, "Hugging Face"))


def _wanted_wait(error: HfHubHTTPError) -> float | None:
    """Seconds that the hub asks to wait, in `Retry-After` or as `t` in `RateLimit`."""
    response = cast("requests.Response", error.response)  # httpx's, with the same headers
    reset = _RESET.search(error.response.headers.get("RateLimit", ""))
    return retry_after(response.headers) or (float(reset[1]) if reset else None)


def _refused(error: HfHubHTTPError, file: HubFile) -> MinerError:
    status = error.response.status_code
    if is_passing(status):
        return Retryable(answered("Hugging Face", status), retry_after=_wanted_wait(error))
    hint = "check HF_TOKEN" if status in (401, 403) else f"check {file.page}"
    return MachineFault(f"{answered('Hugging Face', status)} for {file.repo}", hint=hint)
