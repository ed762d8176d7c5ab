"""How to find the file behind a model's address: the question, which is asked before each attempt."""

from __future__ import annotations

from urllib.parse import urlsplit

from miner.models.catalogue import ModelFile
from miner.models.source import Locate, Source, hub_file, without_query
from miner.task.errors import ConfigError


def locate_at(file: ModelFile) -> Locate:
    """How to find the file of `file.url`. Raises ConfigError for what is no address of a file."""
    at_hub = hub_file(file.url)
    if at_hub is not None:
        from miner.models import hub  # a quarter of a second and 20 MB

        return lambda: hub.locate(at_hub, page=file.gated)
    parts = urlsplit(file.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"models: {without_query(file.url)} is no address of a file",
            hint="give https://…, or hf://org/repo/file.safetensors",
        )
    source = Source(url=file.url, display_url=without_query(file.url))
    return lambda: source
