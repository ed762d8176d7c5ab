"""Where a file can be downloaded: at a plain URL, or from Hugging Face, which signs a new URL each time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from miner.net.references import HubFile as HubFile
from miner.net.references import hub_file as hub_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A URL that is valid for now, and what is known of its file."""

    url: str = field(repr=False)  # its query can hold a secret
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    display_url: str  # without a query; to compare and to show
    size: int | None = None  # bytes
    sha256: str = ""
    identity: str = ""  # the hub's hash of the content: same identity, same bytes, whatever the URL


Locate = Callable[[], Source]
"""Called before each attempt, since signed URLs expire. Blocks; raises Retryable and MachineFault."""


def account_hint(url: str) -> str:
    """What to do about a page in place of a file."""
    if hub_file(url) is not None:
        return "if it needs an account, set HF_TOKEN to a token with access; check HF_ENDPOINT, if it is set"
    if url.startswith("civitai:"):
        return "if it needs an account, set XALORA_LORAS_CIVITAI_TOKEN to an API key of yours"
    return "open it in a browser: if it needs an account, add your token to the URL, as in ?token=…"


def without_query(url: str) -> str:
    """`url` without the parts that can hold a secret: user, query, fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
