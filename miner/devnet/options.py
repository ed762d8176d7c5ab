"""The options of a devnet, in one frozen value.

Contradictions are refused when it is made. It never reads the environment or a file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from miner.devnet.errors import DevnetError

Target = Literal["presigned", "s3", "none"]
"""How a task's result is uploaded: a presigned PUT, S3 credentials (`credential`), or not at all."""

DetailsForm = Literal["object", "string", "prompt"]
"""How `task_details` is sent: an object, the same as a JSON string, or the older `{"prompt": "…"}`."""

NothingForm = Literal["null", "absent", "204"]
"""How 'no task' is said: `task_id: null`, no `task_id`, or status 204."""

OnSilence = Literal["requeue", "fail"]
"""What happens to a task whose miner went silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetOptions:
    """A devnet's settings; each default is the public network's behavior. Raises DevnetError for a wrong one."""

    host: str = "127.0.0.1"  # beyond loopback only with a token
    port: int = 0  # 0: any free port
    token: str = field(default="", repr=False)  # Bearer token of the miner's side; also an API key
    public_url: str = ""  # base of the URLs that are handed out; "": as the caller reached us
    state: Path | None = None  # folder that survives a restart; None: a temporary one
    durable: bool = True  # False: no fsync; survives a kill of the process, not of the machine

    leases: int = 1  # tasks that one miner id may hold
    lease_ttl: float = 60.0  # seconds of a miner's silence after which its leases are lost
    on_silence: OnSilence = "requeue"
    task_timeout: float | None = None  # seconds from the lease, for tasks that name none; None: no limit

    wait: bool = True  # honor `Prefer: wait=N`
    max_wait: float = 60.0  # seconds; a longer N is cut to this
    name_canceled: bool = True  # put `canceled: […]` into replies
    details: DetailsForm = "object"
    nothing: NothingForm = "null"

    api_keys: tuple[str, ...] = ()  # keys, or `consumer#key`, that consumers may use; empty: any
    target: Target = "presigned"
    credential: Mapping[str, str] = field(default_factory=dict, repr=False)
    # ^ temporary S3 credentials, handed out as they are with every `s3` task; devnet never looks into their bucket
    bucket: str = "results"
    upload_ttl: float = 3600.0  # seconds that an upload target is good for, from the lease
    upload_headers: Mapping[str, str] = field(default_factory=dict)  # sent with an `upload_url`, and then required
    max_object_mb: float = 4096.0

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise DevnetError(
                f"devnet: host {self.host} is not loopback, and no token is set",
                hint="set a token, or leave host at 127.0.0.1",
            )
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        _require(self.leases >= 1, "leases", self.leases, "1 or more")
        _require(self.lease_ttl > 0, "lease_ttl", self.lease_ttl, "above 0 s")
        _require(self.task_timeout is None or self.task_timeout > 0, "task_timeout", self.task_timeout, "above 0 s")
        _require(self.max_wait > 0, "max_wait", self.max_wait, "above 0 s")
        _require(self.upload_ttl > 0, "upload_ttl", self.upload_ttl, "above 0 s")
        _require(bool(self.bucket) and "/" not in self.bucket, "bucket", self.bucket, "a name without /")
        for key, form in (
            ("on_silence", OnSilence),
            ("details", DetailsForm),
            ("nothing", NothingForm),
            ("target", Target),
        ):
            allowed = get_args(form)
            _require(getattr(self, key) in allowed, key, getattr(self, key), " or ".join(allowed))
        for key in ("upload_headers", "credential"):
            object.__setattr__(self, key, MappingProxyType(dict(getattr(self, key))))


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, brackets allowed) can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise DevnetError(f"devnet: {key} is {value!r}, and must be {wanted}")
