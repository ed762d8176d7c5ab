"""Where a file can be fetched, in the words of those who name it: `hf://`, `civitai:` or a web address. Pure.

Promises: several spellings of one file are one `Reference`, with one `key`; `shown` and `key` hold no secret.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from miner.net.addresses import Refused, parse_url

LONGEST = 2048  # characters
SUFFIX = ".safetensors"

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PATH = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<path>.+)")
_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)")
_CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red")
_CIVITAI = re.compile(r"(?:urn:air:[\w.-]+:lora:)?civitai:(?:[0-9]{1,12}@)?(?P<version>[0-9]{1,12})(?:\.safetensors)?")
_CIVITAI_PATH = re.compile(r"/api/download/models/(?P<version>[0-9]{1,12})/?")
_LOOKS = re.compile(r"[a-z][a-z0-9+.-]*://|hf:|civitai:|urn:", re.IGNORECASE)
_SHA256 = re.compile(r"sha256[=:]([0-9a-fA-F]{64})")


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

    @property
    def route(self) -> str:
        """The path of the file's address on the hub."""
        return f"/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(self.path)}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One file elsewhere."""

    kind: Literal["hub", "civitai", "web"]
    place: str = field(repr=False)  # hf://…, a model version's number, or a URL, whose query can hold a secret
    sha256: str = ""  # in hex, where given

    @property
    def text(self) -> str:
        """The reference, for `parse_reference`."""
        place = f"civitai:{self.place}" if self.kind == "civitai" else self.place
        return f"{place}#sha256={self.sha256}" if self.sha256 else place

    @property
    def key(self) -> str:
        """Names the reference without telling it: the hash of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def shown(self) -> str:
        """For operators. Of a web address the host alone, since its path may be the secret."""
        if self.kind == "web":
            parts = urlsplit(self.place)
            return f"{parts.scheme}://{parts.netloc}/…"
        return f"civitai:{self.place}" if self.kind == "civitai" else self.place

    @property
    def hub(self) -> HubFile | None:
        """The file on Hugging Face, if it is there."""
        return hub_file(self.place) if self.kind == "hub" else None


def parse_reference(text: str) -> Reference | None:
    """The reference in `text`; None where it is a plain name. Raises Refused, with a clause, for a wrong one.

    `#sha256=…` at the end is the hash that the file must have. Civitai's model versions are also read from its
    addresses and its AIR names, as in `civitai:618692@691639`.
    """
    text = text.strip(" \t\r\n")
    if not _LOOKS.match(text):
        return None
    if len(text) > LONGEST or not text.isprintable() or " " in text:
        raise Refused(f"the reference has spaces, control characters, or more than {LONGEST} characters")
    place, _, fragment = text.partition("#")
    hash_ = _SHA256.fullmatch(fragment)
    if fragment and hash_ is None:
        raise Refused("after # only sha256= and 64 hexadecimal digits may follow")
    sha256 = hash_[1].lower() if hash_ else ""
    if version := _civitai_version(place):
        return Reference(kind="civitai", place=version, sha256=sha256)
    if (file := hub_file(place)) is not None:
        return Reference(kind="hub", place=_hub_place(file), sha256=sha256)
    if place.lower().startswith(("http://", "https://")):
        parse_url(place)
        return Reference(kind="web", place=place, sha256=sha256)
    forms = "hf://org/repo/file.safetensors, civitai: and the number of a model version, or an https URL"
    raise Refused(f"the reference must be {forms}")


def _civitai_version(place: str) -> str:
    """The model version's number, or "" for what is not Civitai's. Raises Refused for a page without a version."""
    if found := _CIVITAI.fullmatch(place):
        return found["version"]
    parts = urlsplit(place)
    if parts.hostname not in _CIVITAI_HOSTS:
        return ""
    if found := _CIVITAI_PATH.fullmatch(parts.path):
        return found["version"]
    version = parse_qs(parts.query).get("modelVersionId", [""])[0]
    if re.fullmatch(r"[0-9]{1,12}", version) and parts.path.startswith("/models/"):
        return version
    if parts.path.startswith("/models/"):
        raise Refused("the page of a model on Civitai has several versions: add ?modelVersionId=… or use civitai:…")
    return ""


def _hub_place(file: HubFile) -> str:
    if not file.path.lower().endswith(SUFFIX):
        raise Refused(f"the file has to end in {SUFFIX}")
    if ".." in (*file.path.split("/"), *file.repo.split("/"), *file.revision.split("/")):
        raise Refused("the reference must not contain ..")
    revision = "" if file.revision == "main" else f"@{quote(file.revision, safe='')}"
    return f"hf://{file.repo}{revision}/{quote(file.path)}"
