"""LoRAs of the operator's choice: safetensors alone, since a pickle is a program."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from miner.models.catalogue import ModelFile
from miner.models.source import hub_file, without_query
from miner.net.errors import answered, in_words
from miner.task.errors import ConfigError, MachineFault

FOLDER = "loras"
MAX_BYTES = 20 * 10**9  # bytes, where the server does not tell the size; LoRAs have up to 2 GB
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,230}\.safetensors")  # with .part.json within a name's 255 bytes
_STRANGE = re.compile(r"[^A-Za-z0-9_.+-]+")
_TIMEOUT = (10.0, 30.0)  # seconds


def lora(source: str, *, name: str = "") -> ModelFile:
    """The file that `source` means: https://…, or hf://org/repo[@revision]/file.safetensors.

    Its name is `name`, else what the address says, else what the server calls it, which is asked then. Raises
    ConfigError for what cannot be a LoRA, MachineFault where the server does not answer.
    """
    url = source if "://" in source else f"https://{source}"
    at_hub = hub_file(url)
    said = name or name_in_url(at_hub.path if at_hub else urlsplit(url).path) or ("" if at_hub else _called(url))
    if name and not name.endswith(_SUFFIX):
        said = name + _SUFFIX
    if not _NAME.fullmatch(said):
        what = f"'{said}' is no name of a LoRA" if said else f"{without_query(source)} names no file"
        raise ConfigError(
            f"loras: {what}: it has to end in {_SUFFIX}, the one form that is data and no program",
            hint="give the address of such a file, and --name for the name it gets",
        )
    return ModelFile(folder=FOLDER, name=said, url=url)


def name_in_url(path: str) -> str:
    """The file name that a URL's path ends in, made plain; "" if it is none of a safetensors file."""
    last = PurePosixPath(unquote(path)).name
    return plain(last) if last.lower().endswith(_SUFFIX) else ""


def plain(name: str) -> str:
    """`name` in letters that are safe in every shell and file system."""
    stem = _STRANGE.sub("_", name[: -len(_SUFFIX)]).strip("_.-+ ") or "lora"
    return stem[:200] + _SUFFIX


def disposition_name(header: str) -> str:
    """The file name in a Content-Disposition (RFC 6266), made plain; "" if it is none of a safetensors file."""
    message = Message()
    message["Content-Disposition"] = header
    return name_in_url((message.get_filename() or "").replace("\\", "/"))


def _called(url: str) -> str:
    """What the server calls the file."""
    host = urlsplit(url).hostname or "the server"
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code in (401, 403):
                text = f"loras: {answered(host, response.status_code)}"
                raise MachineFault(text, hint="it wants an account: put the token that it gave you into the URL")
            return disposition_name(response.headers.get("Content-Disposition", "")) or name_in_url(
                urlsplit(response.url).path
            )
    except requests.RequestException as error:
        # without its cause, whose text can hold the query
        raise MachineFault(
            f"loras: {in_words(error, host)}", hint="see that the URL is right and that this machine reaches it"
        ) from None
