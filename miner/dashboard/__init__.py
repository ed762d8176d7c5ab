"""The status server: a small web app in a thread of the worker, with a page, JSON, events, health and metrics.

Importing this is cheap; Starlette and uvicorn are imported when the server starts, after the lanes.
"""

from miner.dashboard.bind import require_token
from miner.dashboard.server import Dashboard

__all__ = ["Dashboard", "require_token"]
