"""The names of the routes: what counters, violations and faults call them. Pure."""

from __future__ import annotations

CONSUMER_ROUTES = ("resource_request", "task_create", "task_result_query", "task_cancel")
MINER_ROUTES = ("miner_request", "miner_submit")
STORE_ROUTES = ("store_put", "store_get", "s3_put", "s3_post", "s3_get", "s3_delete", "input_put", "input_get")
ROUTES = CONSUMER_ROUTES + MINER_ROUTES + STORE_ROUTES

CONTROL = "control"
UNKNOWN = "unknown"

_FOLDERS = {"store": "store", "s3": "s3", "inputs": "input"}
_VERBS = {"HEAD": "get"}


def route_name(method: str, path: str) -> str:
    """The route of a request, one of ROUTES, else CONTROL or UNKNOWN."""
    first = path.removeprefix("/").partition("/")[0]
    if first == "_devnet":
        return CONTROL
    if first in _FOLDERS:
        name = f"{_FOLDERS[first]}_{_VERBS.get(method, method.lower())}"
        return name if name in STORE_ROUTES else UNKNOWN
    return first if first in CONSUMER_ROUTES + MINER_ROUTES and path == f"/{first}" else UNKNOWN
