"""Upload targets: signed URLs and temporary S3 credentials, given with a lease and checked at the store.

It promises that a target opens one task's object and nothing else, and no longer than `upload_ttl` seconds. It never
tells a wrong signature from a right one by how long it takes.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from miner.devnet.options import DevnetOptions
from miner.devnet.sequencer import Leased
from miner.devnet.wire import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Temporary S3 credentials, and whose they are. `expires_at` is Unix seconds."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    task_id: str
    miner_id: str
    expires_at: float


class Targets:
    """Gives upload targets and checks them. `secret` signs the URLs."""

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
            return {"credential": self._new_credential(leased, expires)}
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
            raise Refusal(403, f"the signature is not one for {method} of this object")
        if int(expires) < now:
            raise Refusal(403, "the URL has expired")

    def credential(self, access_key_id: str) -> Credential | None:
        """The credentials with this id, expired or not."""
        row = self._db.execute("SELECT * FROM credentials WHERE access_key_id = ?", (access_key_id,)).fetchone()
        return Credential(**dict(row)) if row else None

    def task_of(self, key: str) -> str:
        """The task that a presigned URL for `key` was made for; empty where it is none's."""
        row = self._db.execute("SELECT task_id FROM leases WHERE key = ?", (key,)).fetchone()
        return row["task_id"] if row else ""

    def refuse_if_answered(self, task_id: str) -> None:
        """A task's object must not change once its answer counts. Raises Refusal with 409."""
        found = self._db.execute("SELECT 1 FROM answers WHERE task_id = ? AND verdict = 'first'", (task_id,))
        if found.fetchone() is not None:
            raise Refusal(409, f"task {task_id} is answered, so its object must not change")

    def _new_credential(self, leased: Leased, expires: float) -> dict[str, str]:
        public = {
            "access_key_id": f"DEVNET{secrets.token_hex(7).upper()}",
            "secret_access_key": secrets.token_urlsafe(30),
            "session_token": secrets.token_urlsafe(60),
        }
        self._db.execute(
            "INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?)",
            (*public.values(), leased.task_id, leased.miner_id, expires),
        )
        return public

    def _signature(self, method: str, bucket: str, key: str, expires: str) -> str:
        return hmac.digest(self._secret, "\n".join((method, bucket, key, expires)).encode(), "sha256").hex()
