"""Where a file can be downloaded: at a plain URL, or from Hugging Face, which signs a new URL each time. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A URL that is valid for now, and what is known of its file."""

    url: str = field(repr=False)  # its query can hold a secret
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    display_url: str  # without a query; to compare and to show
    size: int | None = None  # bytes
    sha256: str = ""
    identity: str = ""  # the hub's hash of the content: same identity, same bytes, whatever the URL


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file in a model repository on Hugging Face."""

    repo: str  # org/name
    revision: str
    path: str

    @property
    def page(self) -> str:
        """The repository's page, where a licence is accepted."""
        return f"https://huggingface.co/{self.repo}"


Locate = Callable[[], Source]
"""Called before each attempt, since signed URLs expire. Blocks; raises Retryable and MachineFault."""

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PATH = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<path>.+)")
_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)")


def hub_file(url: str) -> HubFile | None:
    """The file of a Hugging Face URL: `hf://org/repo[@revision]/path`, or a web address with `resolve` or `blob`.

    None for other URLs.
    """
    parts = urlsplit(url)
    if parts.scheme == "hf":
        found = _HF.fullmatch(url)
    elif parts.hostname in _HUB_HOSTS:
        found = _HUB_PATH.fullmatch(parts.path)
    else:
        found = None
    if found is None:
        return None
    revision, path = unquote(found["revision"] or "main"), unquote(found["path"])
    return HubFile(repo=found["repo"], revision=revision, path=path)


def account_hint(url: str) -> str:
    """What to do about a page in place of a file."""
    if hub_file(url) is not None:
        return "if it needs an account, set HF_TOKEN to a token with access; check HF_ENDPOINT, if it is set"
    return "open it in a browser: if it needs an account, add your token to the URL, as in ?token=…"


def without_query(url: str) -> str:
    """`url` without the parts that can hold a secret: user, query, fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
