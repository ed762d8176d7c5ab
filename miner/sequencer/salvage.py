"""The task's id in a reply that is too long, too deep or not JSON: such a task is answered, not lost.

One pass over the bytes as they arrive, in constant memory. Never: parses a value other than the id.
"""

from __future__ import annotations

import json
import re

_OUTSIDE = re.compile(rb'["{}\[\]:,]')
_INSIDE = re.compile(rb'["\\]')
_LONGEST = 16_384  # bytes of a string that is kept: an id of 4096 characters, all escaped, is no longer than that


class Salvage:
    """`task_id`: the string of that name in the outermost object, "" until it is found. `is_task`: `task_details` is
    there too, so the reply is a lease and not a remark about one.
    """

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self.task_id = ""
        self.is_task = False
        self._depth = 0
        self._string: bytearray | None = None  # the one that is open
        self._escaped = False
        self._last = ""  # the string that ended last in the outermost object
        self._key = ""

    @property
    def found(self) -> bool:
        return bool(self.task_id) and self.is_task

    def feed(self, data: bytes) -> None:
        if not self.size and not data.lstrip().startswith(b"{"):
            self._depth = -(1 << 60)  # never an object
        self.size += len(data)
        at = 0
        while at < len(data) and not self.found:
            at = self._outside(data, at) if self._string is None else self._inside(data, at)

    def _outside(self, data: bytes, at: int) -> int:
        mark = _OUTSIDE.search(data, at)
        if mark is None:
            return len(data)
        match mark[0]:
            case b'"':
                self._string = bytearray(b'"')
            case b"{" | b"[":
                self._depth += 1
            case b"}" | b"]":
                self._depth -= 1
            case b":" if self._depth == 1:
                self._key = self._last
                self.is_task = self.is_task or self._key == "task_details"
            case b"," if self._depth == 1:
                self._key = ""
        return mark.end()

    def _inside(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(data[at : at + 1])
            return at + 1
        mark = _INSIDE.search(data, at)
        end = len(data) if mark is None else mark.end()
        self._keep(data[at:end])
        if mark is not None:
            self._escaped = mark[0] == b"\\"
            if not self._escaped:
                self._end_string()
        return end

    def _keep(self, piece: bytes) -> None:
        if self._string is not None and self._depth == 1 and len(self._string) <= _LONGEST:
            self._string += piece

    def _end_string(self) -> None:
        whole, self._string = self._string, None
        if self._depth != 1 or whole is None or len(whole) > _LONGEST:
            return
        try:
            self._last = json.loads(whole)
        except ValueError:
            self._last = ""
        if self._key == "task_id":
            self.task_id = self._last
