"""The operator's own LoRAs: safetensors only, since a pickle can run code."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from miner.models.catalogue import ModelFile
from miner.models.source import account_hint, hub_file, without_query
from miner.net.addresses import Refused
from miner.net.environment import trust
from miner.net.errors import answered, in_words
from miner.net.references import parse_reference
from miner.task.errors import ConfigError, MachineFault

FOLDER = "loras"
MAX_BYTES = 20 * 10**9  # bytes of a file of unknown size; LoRAs have up to 2 GB
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,230}\.safetensors")  # 255 bytes with .part.json
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")
_TIMEOUT = (10.0, 30.0)  # seconds


def lora(source: str, *, name: str = "") -> ModelFile:
    """The file at `source`: https://… or hf://org/repo[@revision]/file.safetensors.

    Its name is `name`, else the one in the URL, else the server's, which costs a request. Raises ConfigError for what
    cannot be a LoRA, MachineFault where the server does not answer.
    """
    if (civitai := _civitai(source)) and not name:
        raise ConfigError(f"loras: {civitai} has no file name", hint="name it: --name ink")
    if civitai:
        source = civitai
    url = source if "://" in source or civitai else f"https://{source}"
    at_hub = hub_file(url)
    said = name or name_in_url(at_hub.path if at_hub else urlsplit(url).path) or ("" if at_hub else _server_name(url))
    if name and not name.endswith(_SUFFIX):
        said = name + _SUFFIX
    if not _NAME.fullmatch(said):
        what = f"'{said}' is not the name of a LoRA" if said else f"{without_query(source)} has no file name"
        raise ConfigError(
            f"loras: {what}: it has to end in {_SUFFIX}, the only format that cannot run code",
            hint="use the URL of such a file, and --name to name it",
        )
    return ModelFile(folder=FOLDER, name=said, url=url)


def _civitai(source: str) -> str:
    """`civitai:` and the number of the model version that `source` means; "" for what is elsewhere."""
    try:
        reference = parse_reference(source)
    except Refused:
        return ""
    return f"civitai:{reference.place}" if reference is not None and reference.kind == "civitai" else ""


def name_in_url(path: str) -> str:
    """The sanitized name of the safetensors file that a URL's path ends in, or ""."""
    last = PurePosixPath(unquote(path)).name
    return sanitized(last) if last.lower().endswith(_SUFFIX) else ""


def sanitized(name: str) -> str:
    """`name` with characters that are safe in every shell and file system."""
    stem = _UNSAFE.sub("_", name[: -len(_SUFFIX)]).strip("_.-+ ") or "lora"
    return stem[:200] + _SUFFIX


def disposition_name(header: str) -> str:
    """The sanitized name of a safetensors file in a Content-Disposition (RFC 6266), or ""."""
    message = Message()
    message["Content-Disposition"] = header
    return name_in_url((message.get_filename() or "").replace("\\", "/"))


def _server_name(url: str) -> str:
    """The server's name of the file, or ""."""
    host = urlsplit(url).hostname or "the server"
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT, verify=trust().path) as response:
            if response.status_code in (401, 403):
                text = f"loras: {answered(host, response.status_code)}"
                raise MachineFault(text, hint=account_hint(url))
            said = disposition_name(response.headers.get("Content-Disposition", "")) or name_in_url(
                urlsplit(response.url).path
            )
            if not said and response.headers.get("Content-Type", "").startswith("text/html"):
                text = f"loras: a web page came instead of a file: {without_query(response.url)}"
                raise MachineFault(text, hint=account_hint(url))
            return said
    except requests.RequestException as error:
        # without the cause, whose text can hold the query
        hint = "check the URL and this machine's network"
        raise MachineFault(f"loras: {in_words(error, host)}", hint=hint) from None
