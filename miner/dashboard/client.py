"""The status server's client, for the commands and the doctor.

requests is imported on first use, to keep this cheap to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from miner.task.errors import Retryable

TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusClient:
    """A running worker's API. Methods block for TIMEOUT at most, and raise Retryable."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def press(self, button: str) -> Any:
        return self._ask("POST", f"/api/{button}")

    def everything(self) -> dict[str, Any]:
        """All that the page shows, except the history."""
        return {name: self.get(f"/api/{name}") for name in ("now", "past", "health", "workflows")}

    def _ask(self, method: str, path: str) -> Any:
        import requests

        headers = {"X-Xalora-Action": "1", **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        try:
            with requests.Session() as session:
                session.trust_env = False
                reply = session.request(method, self.url + path, headers=headers, timeout=TIMEOUT)
                body = reply.json()
        except (requests.RequestException, ValueError) as error:
            hint = "start it with `xalora-miner run`, and check that its [status] is enabled"
            raise Retryable(f"no worker answers at {self.url}", hint=hint) from error
        if reply.status_code != 200:
            hint = "set XALORA_STATUS_TOKEN to the worker's" if reply.status_code == 401 else ""
            raise Retryable(f"{self.url} answered {reply.status_code}: {body.get('message', '')}", hint=hint)
        return body
