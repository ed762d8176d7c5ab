"""Where a file can be had: a plain address, or a file of Hugging Face's, which is asked for its address each time.

Pure. `locate` makes the question that is asked of Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An address that is good for now, and what is known of the file behind it."""

    url: str = field(repr=False)  # its query can be a secret
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    display_url: str  # the address to compare and to show: without a query
    size: int | None = None  # bytes
    sha256: str = ""
    identity: str = ""  # the hub's hash of the content: same identity, same bytes, whatever the address


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file in a repository of models of Hugging Face."""

    repo: str  # org/name
    revision: str
    path: str

    @property
    def page(self) -> str:
        """The repository's page, where a licence is accepted."""
        return f"https://huggingface.co/{self.repo}"


Locate = Callable[[], Source]
"""Asked before each attempt, since signed addresses expire. Blocks; raises Retryable and MachineFault."""

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PATH = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<path>.+)")
_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)")


def hub_file(url: str) -> HubFile | None:
    """The file that `url` means, if it is one of Hugging Face's: `hf://org/repo[@revision]/path`, or its web address,
    `resolve` or `blob`. None for all others."""
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


def without_query(url: str) -> str:
    """`url` without what can be a secret in it: a user's name, a query, a fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
