"""The log's own promise: one line for each event, without secrets, and without what a terminal would act upon."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from miner.telemetry import log
from tests.support.canary_secrets import leaks, marked
from tests.support.strategies import ANYTHING, TEXTS

SECRET = marked("secret")
CONTROLS = [
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "\r",
    "\n",
    "\u2028",
    "\u2029",
    "\x85",
    "\v",
    "\u202e",
    "\x08" * 9,
    "\0",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["console", "json"])
def written(request: pytest.FixtureRequest) -> Any:
    """What an event makes of the log, in either style."""
    style: Literal["console", "json"] = request.param

    def write(**event: Any) -> str:
        out = io.StringIO()
        log.setup(level="DEBUG", style=style, out=out)
        structlog.get_logger().info("event", **event)
        return out.getvalue()

    yield write
    structlog.reset_defaults()


Write = Callable[..., str]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_nothing_that_a_terminal_acts_upon_is_written(written: Write, control: str) -> None:
    forged = f'x{control}{{"event": "task_done"}}'
    text = written(reason=forged, names=[forged], more={forged: forged}, error=ValueError(forged))
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@pytest.mark.parametrize(
    "value",
    [
        f"https://u:{SECRET}@host/path",
        f"https://{SECRET}@host",
        f"ws://u:{SECRET}@host:1/ws",
        f"no answer from http://u:{SECRET}@host:8188 in time",
        f"https://host/k?X-Amz-Signature={SECRET}",
        f"https://host/k?a=b&sig={SECRET}#x",
        f"HTTPS://HOST/K?SIG={SECRET}",
        f"PUT <https://host/k?sig={SECRET}>",
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}, and more",
        [f"https://host/?{SECRET}"],
        {"url": (f"https://host/?{SECRET}",)},
        {"session_token": SECRET},
        f"https://host/?{SECRET}".encode(),
        ConnectionError(f"https://host/?{SECRET}"),
    ],
    ids=str,
)
def test_secrets_in_texts_are_masked(written: Write, value: Any) -> None:
    assert leaks(written(reason=value)) == []


@pytest.mark.parametrize(
    "key", ["api_key", "apikey", "API_KEY", "token", "session_token", "secret_access_key", "password", "credential"]
)
def test_values_of_keys_that_sound_secret_are_masked(written: Write, key: str) -> None:
    assert leaks(written(**{key: SECRET})) == []


def test_a_secret_that_is_known_is_hidden_wherever_somebody_repeats_it(written: Write) -> None:
    known = marked("known")
    log.hide(known)
    assert leaks(written(reason=f"no such key: {known}!", names=[known], error=ValueError(known))) == []


def test_the_traceback_of_a_bug_is_one_line_without_secrets() -> None:
    out = io.StringIO()
    log.setup(level="DEBUG", style="json", out=out)
    try:
        raise ValueError(f"https://u:{SECRET}@host/k?sig={SECRET}\n\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("loop_failed")
    structlog.reset_defaults()
    assert out.getvalue().count("\n") == 1
    assert leaks(out.getvalue()) == []


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,10}", fullmatch=True), ANYTHING | TEXTS, max_size=3))
def test_any_event_is_one_json_line(event: dict[str, Any]) -> None:
    out = io.StringIO()
    log.setup(level="DEBUG", style="json", out=out)
    structlog.get_logger().info("event", **{f"x{key}": value for key, value in event.items()})
    structlog.reset_defaults()
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue())["event"] == "event"
    out.getvalue().encode()
