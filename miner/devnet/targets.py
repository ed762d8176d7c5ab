"""Upload targets: signed URLs, given with a lease and checked at the store; or the S3 credentials of the options.

A URL opens one task's object and nothing else, for `upload_ttl` seconds. Signatures are compared in constant time.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from miner.devnet.options import DevnetOptions
from miner.devnet.sequencer import Leased
from miner.devnet.wire import Refusal


class Targets:
    """Issues upload targets and checks them. `secret` signs the URLs."""

    def __init__(self, db: sqlite3.Connection, options: DevnetOptions, *, secret: bytes) -> None:
        self._db = db
        self._options = options
        self._secret = secret

    def fields(self, leased: Leased, *, base_url: str) -> dict[str, Any]:
        """The upload target's fields in the reply that hands out a task."""
        expires = leased.leased_at + self._options.upload_ttl
        if leased.target == "presigned":
            url = self.sign("PUT", self._options.bucket, leased.key, expires=expires, base_url=base_url)
            headers = dict(self._options.upload_headers)
            return {"upload_url": url, "upload_headers": headers} if headers else {"upload_url": url}
        if leased.target == "s3":
            return {"credential": dict(self._options.credential)}
        return {}

    def sign(self, method: str, bucket: str, key: str, *, expires: float, base_url: str) -> str:
        """A URL that lets its bearer do `method` to one object until `expires` (Unix seconds)."""
        signature = self._signature(method, bucket, key, str(int(expires)))
        return f"{base_url}/store/{bucket}/{quote(key)}?expires={int(expires)}&signature={signature}"

    def check(self, method: str, bucket: str, key: str, query: Mapping[str, str], *, now: float) -> None:
        """Check a signed URL. Raises Refusal with 403 and the reason."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        right = self._signature(method, bucket, key, expires)
        if not hmac.compare_digest(right.encode(), signature.encode()):
            raise Refusal(403, f"wrong signature for {method} of this object")
        if int(expires) < now:
            raise Refusal(403, "the URL has expired")

    def task_of(self, key: str) -> str:
        """The task that a presigned URL for `key` was made for; empty for an unknown key."""
        row = self._db.execute("SELECT task_id FROM leases WHERE key = ?", (key,)).fetchone()
        return row["task_id"] if row else ""

    def refuse_if_answered(self, task_id: str) -> None:
        """Raises Refusal with 409 if the task is answered: its object must not change then."""
        found = self._db.execute("SELECT 1 FROM answers WHERE task_id = ? AND verdict = 'first'", (task_id,))
        if found.fetchone() is not None:
            raise Refusal(409, f"task {task_id} is answered, so its object must not change")

    def _signature(self, method: str, bucket: str, key: str, expires: str) -> str:
        return hmac.digest(self._secret, "\n".join((method, bucket, key, expires)).encode(), "sha256").hex()
