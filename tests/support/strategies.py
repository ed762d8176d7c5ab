"""What hypothesis makes up: any JSON, tasks that are almost right, replies that are almost right, and bytes.

`TASKS` knows the real workflows' parameters, so that most of what it makes gets past the first check and meets the
next one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from miner.workflows import Library
from miner.workflows.parameters import (
    BoolParameter,
    EnumParameter,
    FloatParameter,
    ImageParameter,
    IntParameter,
    LoraParameter,
    Parameter,
    SeedParameter,
    StringParameter,
)

LORAS = ("detail.safetensors", "sub/line.safetensors")
WORDS = st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))
TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    # lone surrogates, controls, what a shell, a path, a template or a tokenizer would act upon
    ["", " ", "\0", "\ud800", "\udfff\ud800", "é", "e\u0301" * 30, "\u202egnp", "{a|b}", "embedding:x",
     "(embedding:x:1)", "../../etc/passwd", "/etc/passwd", "C:\\x", "$(id)", "{{7*7}}", "%s%n", "a\r\nHost: x",
     "__proto__", "true", "NaN", "1e400", "0x10", "１２", "12 ", "+1", "1_000", "\x1b[2J", "a" * 1000]
)  # fmt: skip
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, 2**31, 2**53, 2**63, 2**64, -(2**64), 10**400, 0.1, -0.0, 5e-324, 1.7e308, 10**18])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)
"""Any JSON value."""

HOSTILE_URLS = st.sampled_from(
    ["http://127.0.0.1/x", "https://[::1]/x", "https://[x", "https://a\uff03b/x", "https://u:p@127.0.0.1/", "file:///x",
     "https://127.0.0.1:99999/", "http://0x7f.1/", "https://10.0.0.1/x?sig=1", "//127.0.0.1", "https://", "https://?",
     "data:image/png;base64,", "data:image/png;base64,iVBORw0KGgo=", "data:,", "http://169.254.169.254/latest",
     "https://[::ffff:127.0.0.1]/%0d%0a", "https://127.0.0.1/\ud800", "s3://b/k", "https://127.0.0.1\\@x/"]
)  # fmt: skip
"""None of these leads anywhere that answers, so no case waits for a network."""


def values_of(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Values that the parameter takes; of pictures, none that could be fetched."""
    match parameter:
        case IntParameter():
            return st.integers(parameter.min, parameter.max)
        case FloatParameter():
            return st.floats(parameter.min, parameter.max)
        case SeedParameter():
            return st.integers(parameter.min, parameter.max)
        case EnumParameter():
            return st.sampled_from(parameter.values)
        case BoolParameter():
            return st.booleans()
        case ImageParameter():
            return HOSTILE_URLS
        case LoraParameter():
            return st.sampled_from(LORAS)
        case StringParameter():
            return st.text(WORDS, min_size=1, max_size=20)


def parameters_of(known: Mapping[str, Parameter]) -> st.SearchStrategy[dict[str, Any]]:
    """A task's parameters: the workflow's own and right, and then up to two that are anything."""
    right = st.fixed_dictionaries(
        {name: values_of(parameter) for name, parameter in known.items() if parameter.required},
        optional={name: values_of(parameter) for name, parameter in known.items() if not parameter.required},
    )
    wrong = st.dictionaries(st.sampled_from(sorted(known)) | TEXTS, ANYTHING, min_size=1, max_size=2)
    return right | st.builds(lambda own, others: own | others, right, wrong)


def details(library: Library, ids: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    """`task_type`, `workflow_id` and `task_details` of a task for one of `ids`."""

    def of(workflow_id: str) -> st.SearchStrategy[dict[str, Any]]:
        workflow = library.get(library.ids[workflow_id][0])
        right = parameters_of(workflow.manifest.parameters).map(lambda p: {"parameters": p})
        return st.fixed_dictionaries(
            {
                "task_type": st.just(workflow.task_type),
                "workflow_id": st.just(workflow_id),
                "task_details": right | right.map(json.dumps) | ANYTHING,
            }
        )

    return st.sampled_from(ids).flatmap(of)


HEADERS = st.dictionaries(TEXTS, ANYTHING, max_size=3) | ANYTHING
CREDENTIALS = ANYTHING | st.fixed_dictionaries(
    {"access_key_id": TEXTS, "secret_access_key": TEXTS, "session_token": TEXTS}
)
EXTRAS: dict[str, st.SearchStrategy[Any]] = {
    "upload_url": HOSTILE_URLS | ANYTHING,
    "upload_headers": HEADERS,
    "credential": CREDENTIALS,
    "timeout_seconds": NUMBERS | ANYTHING,
    "msg": TEXTS | ANYTHING,
    "canceled": st.lists(TEXTS, max_size=5) | ANYTHING,
}
"""Further fields of a task. None of them can make the miner wait for another machine."""


def replies(library: Library, ids: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Bodies of `/miner_request`'s replies: tasks for the most part, almost tasks, any JSON, any bytes."""
    extras = st.fixed_dictionaries({"task_id": st.just("t")}, optional=EXTRAS)
    tasks = st.builds(lambda extra, task: extra | task, extras, details(library, ids)).map(encoded)
    fields = {
        "task_id": TEXTS | ANYTHING,
        "task_type": TEXTS | ANYTHING,
        "workflow_id": st.sampled_from(ids) | ANYTHING,
    }
    almost = st.fixed_dictionaries({}, optional={**fields, "task_details": ANYTHING, **EXTRAS}).map(encoded)
    kinds = (tasks, tasks, tasks, tasks, almost, ANYTHING.map(encoded), tasks.flatmap(spoilt), st.binary(max_size=60))
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def spoilt(data: bytes) -> st.SearchStrategy[bytes]:
    """The same with something wrong on the wire: cut, a byte changed, a word of JavaScript, a number without end."""
    at = st.integers(0, max(len(data) - 1, 0))
    words = st.sampled_from([b"NaN", b"Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b"[" * 2000, b"\xff", b"\0"])
    return st.one_of(
        at.map(lambda end: data[:end]),
        st.tuples(at, st.binary(min_size=1, max_size=2)).map(lambda p: data[: p[0]] + p[1] + data[p[0] + 1 :]),
        words.map(lambda word: data.replace(b"null", word).replace(b"true", word)),
        words.map(lambda word: b'{"task_id": "t", "task_details": {"parameters": {"steps": ' + word + b"}}}"),
    )
