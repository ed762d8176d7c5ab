"""The status server, in a thread of the worker: page, JSON, events, health, metrics.

Cheap to import: Starlette and uvicorn are imported when the server starts, after the lanes.
"""

from miner.dashboard.bind import require_token
from miner.dashboard.server import Dashboard

__all__ = ["Dashboard", "require_token"]
