"""The names of the routes. Pure."""

from __future__ import annotations

CONSUMER_ROUTES = ("resource_request", "task_create", "task_result_query", "task_cancel")
MINER_ROUTES = ("miner_request", "miner_submit")
STORE_ROUTES = ("store_put", "store_get", "input_put", "input_get")
UNKNOWN = "unknown"

_FOLDERS = {"store": "store", "inputs": "input"}
_VERBS = {"HEAD": "get"}


def route_name(method: str, path: str) -> str:
    """The route of a request, or UNKNOWN."""
    first = path.removeprefix("/").partition("/")[0]
    if first in _FOLDERS:
        name = f"{_FOLDERS[first]}_{_VERBS.get(method, method.lower())}"
        return name if name in STORE_ROUTES else UNKNOWN
    return first if first in CONSUMER_ROUTES + MINER_ROUTES and path == f"/{first}" else UNKNOWN
