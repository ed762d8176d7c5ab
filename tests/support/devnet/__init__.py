"""devnet, observed and broken on demand: the product's strict sequencer with a control endpoint, counters and faults.

`serve` runs one in a thread; `python -m tests.support.devnet` in a process of its own, as `xalora-miner devnet` is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from miner.devnet import serve as product
from miner.devnet.options import DevnetOptions
from tests.support.devnet.build import building


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A devnet that answers at `url`, seen from outside: every method is a request to control, and blocks."""

    url: str
    session: requests.Session

    def stats(self) -> dict[str, Any]:
        return self._control("GET", "stats")

    def tasks(self) -> list[dict[str, Any]]:
        return self._control("GET", "tasks")["tasks"]

    def requests(self, route: str) -> list[dict[str, Any]]:
        return self._control("GET", f"requests?route={route}")["requests"]

    def create(self, **order: Any) -> str:
        """Create a task as `control.TaskOrder` has it; returns its id."""
        return self._control("POST", "tasks", order)["task_id"]

    def fault(self, action: str, *routes: str, **rule: Any) -> None:
        """Add a rule as `faults.Rule` has it; no routes are all routes."""
        chosen = {"routes": list(routes)} if routes else {}
        self._control("POST", "faults", {"rules": [{"action": action, **chosen, **rule}]})

    def faults(self) -> list[dict[str, Any]]:
        """The rules in force, each with how often it has been applied: `hits`."""
        return self._control("GET", "faults")["faults"]

    def clear_faults(self) -> None:
        self._control("DELETE", "faults")

    def reset(self) -> None:
        self._control("POST", "reset")

    def _control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        reply = self.session.request(method, f"{self.url}/_devnet/{path}", json=body, timeout=30)
        if reply.status_code != 200:
            raise RuntimeError(f"devnet: {method} {path} was refused: {reply.text}")
        return reply.json()


@contextmanager
def serve(options: DevnetOptions | None = None) -> Iterator[Running]:
    """A devnet in a thread, for as long as the block lasts."""
    options = options or DevnetOptions()
    with product.serve(options, build=building()) as url, closing(requests.Session()) as session:
        session.trust_env = False
        if options.token:
            session.headers["Authorization"] = f"Bearer {options.token}"
        yield Running(url=url, session=session)
