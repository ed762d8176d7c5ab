"""Replies that lie, by name: what a hostile sequencer sends in place of an answer. A new one is a line here.

Each is what `/miner_request` gets, and is to end as Retryable, or in the kind of reply that the line says; and soon,
whatever goes on for ever.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from miner.sequencer.client import MAX_REPLY_BYTES
from miner.sequencer.replies import MAX_REPLY_DEPTH
from tests.support.script import TASK
from tests.support.scripted_server import Answer, bare, floods, reply, says, trickles

Lie = bytes | Answer

OK, CHUNKED = b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"


def task(**changed: Any) -> bytes:
    return reply({**TASK, **changed})


def nested(levels: int) -> bytes:
    """An object that is so many levels deep."""
    return reply(b'{"x":' * (levels - 1) + b"{}" + b"}" * (levels - 1))


def sized(size: int) -> bytes:
    """A reply with nothing to do, padded to so many bytes."""
    return reply(b'{"task_id": null, "msg": "' + b"x" * (size - 28) + b'"}')


def with_number(digits: bytes) -> bytes:
    return reply(json.dumps(TASK).encode().replace(b'"parameters": {}', b'"parameters": {"steps": ' + digits + b"}"))


REFUSED: dict[str, Lie] = {
    # no HTTP
    "nothing": lambda _request: None,
    "ssh": bare(b"SSH-2.0-OpenSSH_9.6"),
    "HTTP/0.9": b"<html>hello</html>\r\n",
    "status of four digits": bare(b"HTTP/1.1 2000 OK", b"Content-Length: 2", body=b"{}"),
    "a status line that a terminal would obey": bare(
        b"\x1b]0;owned\x07\x1b[2J 200 OK", b"Content-Length: 2", body=b"{}"
    ),
    "200 headers": bare(OK, *[b"X-%d: y" % n for n in range(200)], b"Content-Length: 2", body=b"{}"),
    "a header of 100 KB": bare(OK, b"X: " + b"x" * 100_000, b"Content-Length: 2", body=b"{}"),
    "two Content-Lengths": bare(OK, b"Content-Length: 2", b"Content-Length: 20", body=b"{}"),
    "shorter than it said": says(bare(OK, b"Content-Length: 500", body=b"{}")),
    "a chunk of -1": says(bare(OK, CHUNKED, body=b"-1\r\n{}\r\n0\r\n\r\n")),
    "a chunk of 2^64": says(bare(OK, CHUNKED, body=b"FFFFFFFFFFFFFFFF\r\n{}")),
    "chunks without an end": trickles(bare(OK, CHUNKED), b"1\r\n \r\n"),
    # for ever
    "a status line by the letter": trickles(b"HTTP/1.1 200 ", b"x"),
    "a header by the letter": trickles(OK + b"\r\nX: ", b"x"),
    "a header now and then": trickles(OK + b"\r\n", b"X: y\r\n"),
    "100 Continue now and then": trickles(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body by the letter": trickles(bare(OK, b"Content-Length: 100000"), b" "),
    "a body by the letter, without its length": trickles(bare(OK), b" "),
    "silence after the head": trickles(bare(OK, b"Content-Length: 2"), b""),
    # too much
    "1 MiB and a byte": sized(MAX_REPLY_BYTES + 1),
    "64 MiB": says(bare(OK), *[b" " * (1 << 20)] * 64),
    "one level too deep": nested(MAX_REPLY_DEPTH + 1),
    "100,000 levels": reply(b"[" * 100_000),
    "100,000 levels of objects": reply(b'{"x":' * 100_000),
    "gzip though refused": reply(gzip.compress(json.dumps(TASK).encode()), "Content-Encoding: gzip"),
    "a gzip bomb": reply(gzip.compress(bytes(10 << 20)), "Content-Encoding: gzip"),
    "deflate": reply(zlib.compress(b"{}"), "Content-Encoding: deflate"),
    "an encoding that nobody knows": reply({}, "Content-Encoding: x"),
    # no JSON object
    "an empty body": reply(b""),
    "a page": reply(b"<html>502</html>"),
    "null": reply(None),
    "a list": reply([TASK]),
    "a string": reply("task"),
    "a number": reply(1),
    "NaN": reply(b'{"task_id": NaN}'),
    "infinity": reply(b'{"task_id": "t", "timeout_seconds": -Infinity}'),
    "two of them": reply(b"{} {}"),
    "a comma too many": reply(b'{"task_id": null,}'),
    "bytes that are no text": reply(b'{"task_id": "\xff\xfe"}'),
    "NUL": reply(b"\0{}"),
    # ids that are none
    "an id that is true": task(task_id=True),
    "an id that is a list": task(task_id=["t"]),
    "an id that is an object": task(task_id={}),
    "half a surrogate for an id": task(task_id="\ud800"),
    "an id of 4097 letters": task(task_id="t" * 4097),
    # other statuses
    **{f"status {status}": reply({"message": "no"}, status=status) for status in (201, 202, 400, 404, 418, 500, 503)},
    "429 for 10^9 years": reply({}, f"Retry-After: {'9' * 30}", status=429),
    "503 until no day at all": reply({}, "Retry-After: Fri, 31 Feb 9999 25:00", status=503),
    "401": reply({"error": "no"}, status=401),
    "a redirect": reply(b"", "Location: http://127.0.0.1:1/", status=307),
    "a redirect to itself": reply(b"", "Location: /miner_request", status=302),
}
"""These raise Retryable: the miner asks again."""

BROKEN: dict[str, Lie] = {
    "a number of 5000 digits": with_number(b"9" * 5000),
    "half of it": reply(json.dumps(TASK).encode()[:-20]),
    "an id that is a number": task(task_id=5),
    "an id with a line break": task(task_id="t\nu"),
    "an id with an escape": task(task_id="\x1b[31m"),
    "an id with a right-to-left override": task(task_id="\u202egnp.exe"),
    "an id of 257 letters": task(task_id="t" * 257),
    "a task that is too large": task(task_details={"prompt": "x" * MAX_REPLY_BYTES}),
    "a task without an end": floods(bare(OK) + b'{"task_id": "t", "task_details": "', b"x" * 65536),
}
"""These are no tasks, but have an id that can be answered."""

NOTHING: dict[str, Lie] = {
    "1 MiB": sized(MAX_REPLY_BYTES),
    "as deep as may be": nested(MAX_REPLY_DEPTH),
    "an empty id": task(task_id=""),
    "200,000 canceled ids": reply({"task_id": None, "canceled": ["x"] * 200_000}),
    "canceled that is an object": reply({"task_id": None, "canceled": {"a": 1}}),
    "canceled of anything": reply({"task_id": None, "canceled": [None, 1, ["x"], {}, "y"]}),
    "a msg that is a list": reply({"task_id": None, "msg": ["running"]}),
    "204 with a body": bare(b"HTTP/1.1 204 No", b"Content-Length: 0"),
    "UTF-16": reply(json.dumps({"task_id": None}).encode("utf-16")),
    "350,000 lists": reply(b'{"x": [' + b",".join([b"[]"] * 340_000) + b"]}"),
}
"""These say that there is nothing to do."""

WRONG_FIELDS = {
    key: [task(**{key: value}) for value in values]
    for key, values in {
        "task_type": (None, 1, ["upscaler"], {}, "\ud800", "x" * 300, "\x1b[2J"),
        "workflow_id": (None, 4, ["4"], {}, "\ud800", "x" * 300, "../4"),
        "task_details": (None, 1, [], "x", "[]", '{"parameters": 1}', {"parameters": []}, "[" * 9000, {"prompt": 1}),
        "timeout_seconds": (True, "60", 0, -1, 1e300, [], {}),
        "upload_url": (1, [], {}, "", "x", "https://[x", "file:///x", "https://u:p@example.com/"),
        "upload_headers": ({"a": 1}, [], "x", {"Host": "x"}, {"a\r\nb": "c"}, {"\ud800": "\ud800"}),
        "msg": (1, [], {}, "x" * 5000, "task is running"),
    }.items()
}
"""These are tasks all the same: they were taken, so they have to be answered."""
