"""The names of the routes, with those that are the tests' own. Pure."""

from __future__ import annotations

from miner.devnet.routes import CONSUMER_ROUTES, MINER_ROUTES, STORE_ROUTES, route_name

S3_ROUTES = ("s3_put", "s3_post", "s3_get", "s3_head", "s3_delete")
UPLOAD_ROUTES = STORE_ROUTES + S3_ROUTES
ROUTES = CONSUMER_ROUTES + MINER_ROUTES + UPLOAD_ROUTES
CONTROL = "control"
BUCKET = "results"


def route_of(method: str, path: str) -> str:
    """The route of a request: one of ROUTES, else CONTROL or the product's UNKNOWN."""
    match path.split("/")[1]:
        case "_devnet":
            return CONTROL
        case first if first == BUCKET:
            return f"s3_{method.lower()}"
        case _:
            return route_name(method, path)
