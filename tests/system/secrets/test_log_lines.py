"""The log's own promise: one line for each event, without secrets, and without what a terminal would act upon."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from miner.telemetry import log, redaction
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


FORMS = {
    "JSON": lambda secret: json.dumps(secret),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"key": secret})),
    "JSON, not escaped": lambda secret: json.dumps(secret, ensure_ascii=False),
    "repr": repr,
    "repr of bytes": lambda secret: repr(secret.encode()),
    "URL": lambda secret: quote(secret, safe=""),
    "URL, lower case": lambda secret: re.sub("%..", lambda match: match[0].lower(), quote(secret)),
    "form": quote_plus,
    "URL in a URL": lambda secret: quote(quote(secret, safe=""), safe=""),
    "HTML": html.escape,
    **{
        f"base64 behind {before} bytes, {encode.__name__}": partial(
            lambda secret, before, encode: encode(b"u" * before + secret.encode() + b"/after").decode(),
            before=before,
            encode=encode,
        )
        for before in range(4)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    },
}
ODD = "p\"\\ä/?&=+ <zqx'%key>"  # each of which is quoted somewhere


def fragments(text: str, length: int) -> set[str]:
    return {text[at : at + length] for at in range(len(text) - length + 1)}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("longest", [10_000, 60, 40, 30])
def test_a_secret_is_hidden_in_every_form_and_before_and_after_a_cut(form: Callable[[str], str], longest: int) -> None:
    secret = f"{ODD}{marked('odd')}{ODD}"
    log.hide(secret)
    said = f"the server said {form(secret)} and more"
    for written in (log.cut(said, longest), log.clean(said[:longest])):
        assert len(written) <= longest
        assert fragments(form(secret)[8:-8], 12) & fragments(written, 12) == set()


def test_a_tasks_strings_are_hidden_while_it_is_in_hand_and_nothing_else(written: Write) -> None:
    prompt = f"a lighthouse {ODD}\nby the sea, {marked('prompt')}"
    redaction.hide_task("t", [prompt, "Berlin", "a"])
    said = f"node failed on {prompt[5:40]!r} for Berlin, then on {json.dumps(prompt)[20:]} a second time"
    text = written(reason=said, workflow="Berlin")
    assert leaks(text) == []
    assert "lighthouse" not in text
    assert "Berlin" not in text.replace("workflow=Berlin", "").replace('"workflow": "Berlin"', "")
    assert "node failed on" in text
    assert "a second time" in text
    redaction.task_ended("t")
    for number in range(redaction.ENDED):
        assert "Berlin" not in written(reason="for Berlin")
        redaction.hide_task(f"t{number}", [])
        redaction.task_ended(f"t{number}")
    assert "for Berlin" in written(reason="for Berlin")


def test_a_picture_as_text_is_hidden(written: Write) -> None:
    picture = base64.b64encode(SECRET.encode() * 20).decode()
    text = written(reason=f"no picture: data:image/png;base64,{picture}, {picture} it says")
    assert picture[:40] not in text
    assert "it says" in text


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
