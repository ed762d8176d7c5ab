"""Where the SDK's two settings come from: an argument, else the environment, else `.env`, else the default.

It reads `XALORA_API_KEY` and `XALORA_WORKFLOW_URL`, or the same with `HEURIST_`, the network's former name, which its
Node SDK reads. It knows nothing of the miner's own settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from miner.sdk.errors import ConfigurationError

API_KEY = "XALORA_API_KEY"
WORKFLOW_URL = "XALORA_WORKFLOW_URL"
DEFAULT_WORKFLOW_URL = "https://sequencer-v2.xalora.xyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The two halves of a combined key."""

    consumer_id: str
    api_key: str = field(repr=False)


def split_key(combined: str) -> Credentials:
    """The first two parts of a combined key at `#`, or without one at `-`, as the network's Node SDK has it.

    Raises ConfigurationError where a half is missing. The message does not repeat the key.
    """
    separator = "#" if "#" in combined else "-"
    consumer_id, api_key = (*combined.strip().split(separator), "")[:2]
    if not consumer_id or not api_key:
        raise ConfigurationError(
            f"the API key is not <consumer id>#<key> or <consumer id>-<key>: set {API_KEY}, or pass api_key=, as issued"
        )
    return Credentials(consumer_id=consumer_id, api_key=api_key)


def read_setting(name: str, *, env_file: str | os.PathLike[str] | None) -> str | None:
    """The value of `name` in the environment, else in `env_file` if that is a file; in each, under the former name if
    not under this one. An empty value counts as missing.

    Raises ConfigurationError for a file that cannot be read. Reads a file, so it blocks on the disk.
    """
    names = name, name.replace("XALORA_", "HEURIST_")
    value = next(filter(None, (os.environ.get(one, "").strip() for one in names)), "")
    if value or env_file is None or not Path(env_file).is_file():
        return value or None
    try:
        values = dotenv_values(env_file)
        return next(filter(None, ((values.get(one) or "").strip() for one in names)), None)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{os.fspath(env_file)} cannot be read: {error}") from error


def check_url(url: str) -> str:
    """The base URL without its last slash. Raises ConfigurationError unless it is http(s) with a host."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, a broken IPv6 address
        usable = False
    if not usable:
        raise ConfigurationError(f"{WORKFLOW_URL} is not an http(s) URL with a host: {url!r}")
    return url.strip().rstrip("/")
