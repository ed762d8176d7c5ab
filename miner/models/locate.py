"""How to find the file behind a model's URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from miner.models.catalogue import ModelFile
from miner.models.source import Locate, Source, hub_file, without_query
from miner.task.errors import ConfigError


def locate_at(file: ModelFile) -> Locate:
    """A function to call before each attempt. Raises ConfigError where `file.url` is not the URL of a file."""
    at_hub = hub_file(file.url)
    if at_hub is not None:
        from miner.models import hub  # costs 0.25 s and 20 MB

        return lambda: hub.locate(at_hub, page=file.gated)
    if file.url.startswith("civitai:"):
        url = f"{file.endpoint}/api/download/models/{file.url.removeprefix('civitai:')}?type=Model&format=SafeTensor"
        headers = {"Authorization": f"Bearer {file.token}"} if file.token else {}
        civitai = Source(url=url, headers=headers, display_url=without_query(url))
        return lambda: civitai
    parts = urlsplit(file.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"models: {without_query(file.url)} is not the URL of a file",
            hint="use https://… or hf://org/repo/file.safetensors",
        )
    source = Source(url=file.url, display_url=without_query(file.url))
    return lambda: source
