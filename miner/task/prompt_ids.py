"""Prompt ids tell whose they are: a folder of ComfyUI that is left behind is named after one.

They are UUIDs of version 8 (RFC 9562) in lower case, as ComfyUI wants them: 74 random bits, then 48 of the miner id's
hash. Pure but for the random bits.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid

_OWNER = (1 << 48) - 1
_VERSION = 0xF << 76
_VARIANT = 0x3 << 62


def new_prompt_id(miner_id: str) -> str:
    """One that nobody has used before."""
    bits = secrets.randbits(128) & ~(_OWNER | _VERSION | _VARIANT) | _owner(miner_id) | 8 << 76 | 2 << 62
    return str(uuid.UUID(int=bits))


def is_prompt_id(name: str) -> bool:
    """Whether a miner of any version may have made it."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def is_of(prompt_id: str, miner_id: str) -> bool:
    """Whether this miner id made it; older versions' ids are nobody's."""
    return is_prompt_id(prompt_id) and uuid.UUID(prompt_id).int & (_OWNER | _VERSION) == _owner(miner_id) | 8 << 76


def _owner(miner_id: str) -> int:
    return int.from_bytes(hashlib.sha256(miner_id.encode()).digest()[:6])
