"""What nothing written by the miner may contain: its own secrets, and the strings of tasks in hand.

Both are found plain and as JSON, `repr`, HTML or a URL quote them; secrets in base64. A fragment is enough, so that
no cut hides one. Pure but for two registers, which any thread may use.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from urllib.parse import quote, quote_plus

SHORTEST = 6  # characters; a shorter string would be found everywhere
OF_SECRETS = 8  # characters of a secret that are too many
OF_TASKS = 12  # of a task's string: fewer are in half the sentences of its language
LONGEST = 20_000  # characters of a task's string that are looked for; longer ones are data
LONG = 2_000  # characters of a text that is searched
ENDED = 8  # tasks that have ended, and whose strings are still hidden

_URL_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.IGNORECASE)
_URL_QUERY = re.compile(r"(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")
_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w.=+-]*)*,[^\s\"'<>]*", re.IGNORECASE)
_BYTES = re.compile(r"[A-Za-z0-9+/_=-]{200,}")  # base64 of somebody's bytes


class Hidden:
    """Strings to hide: fragments of `length` characters, and shorter ones whole."""

    def __init__(self, forms: Iterable[str], *, length: int) -> None:
        self._length = length
        self._block = length // 2  # characters that are looked for first
        lowered = {form.lower() for form in forms}
        self._whole = {form for form in lowered if SHORTEST <= len(form) < length}
        self._long = "\0".join(form for form in lowered if len(form) >= length)

    @cached_property
    def _blocks(self) -> set[str]:
        return {self._long[at : at + self._block] for at in range(len(self._long) - self._block + 1)}

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where something hidden is in `text`: begin and end, in order, apart from each other."""
        found = text.lower()
        if len(found) != len(text):  # a few letters grow
            found = text
        spans = [(at, at + self._length) for at in self._fragments(found)] if self._long else []
        for whole in self._whole:
            at = found.find(whole)
            while at >= 0:
                spans.append((at, at + len(whole)))
                at = found.find(whole, at + 1)
        joined: list[tuple[int, int]] = []
        for begin, end in sorted(spans):
            if joined and begin <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((begin, end))
        return joined

    def _fragments(self, found: str) -> set[int]:
        """Where a fragment begins. Each has a whole block that begins at a multiple of `step`, so few are compared; a
        search through all forms is cheaper than a set of their blocks, unless the text is long."""
        length, block = self._length, self._block
        step = length - block + 1
        known = self._long if len(found) < LONG else self._blocks
        near = (at for at in range(0, len(found) - block + 1, step) if found[at : at + block] in known)
        begins = {begin for at in near for begin in range(max(at - step + 1, 0), at + 1)}
        return {at for at in begins if at + length <= len(found) and found[at : at + length] in self._long}

    def without(self, text: str) -> str:
        """`text` with `***` for what is hidden."""
        for begin, end in reversed(self.spans(text)):
            text = f"{text[:begin]}***{text[end:]}"
        return text


_mutex = threading.Lock()
_secrets: list[str] = []
_hidden_secrets = Hidden((), length=OF_SECRETS)
_tasks: dict[str, tuple[str, ...]] = {}
_hidden_tasks: dict[str, Hidden] = {}  # made when the first line is written
_ended: list[str] = []


def hide(*secrets: str) -> None:
    """Hide these secrets of this process for good."""
    global _hidden_secrets
    with _mutex:
        _secrets.extend(secret for secret in secrets if len(secret) >= SHORTEST and secret not in _secrets)
        forms = [form for secret in _secrets for form in (*quoted(secret), *_encoded(secret))]
        _hidden_secrets = Hidden(forms, length=OF_SECRETS)


def hide_task(task_id: str, strings: Iterable[str]) -> None:
    """Hide the strings of a task, until some time after `task_ended`."""
    with _mutex:
        _tasks[task_id] = tuple(strings)
        _hidden_tasks.pop(task_id, None)
        if task_id in _ended:
            _ended.remove(task_id)


def task_ended(task_id: str) -> None:
    """Forget a task's strings once ENDED more tasks have ended: lines about it may still come."""
    with _mutex:
        if task_id in _tasks and task_id not in _ended:
            _ended.append(task_id)
        while len(_ended) > ENDED:
            old = _ended.pop(0)
            _tasks.pop(old, None)
            _hidden_tasks.pop(old, None)


def without_secrets(text: str) -> str:
    """`text` without secrets: known ones, queries and users of URLs, bearer tokens, pictures as text."""
    text = _DATA.sub("data:***", text)
    text = _URL_QUERY.sub(r"\1?***", _URL_USER.sub(r"\1***@", text))
    text = _hidden_secrets.without(text)
    return _BYTES.sub("***", _BEARER.sub(r"\1***", text))


def without_strings(text: str) -> str:
    """`text` without strings of tasks in hand."""
    if len(text) < SHORTEST:
        return text
    with _mutex:
        for task_id, strings in _tasks.items():
            if task_id not in _hidden_tasks:
                forms = [form for string in strings for form in quoted(string[:LONGEST])]
                _hidden_tasks[task_id] = Hidden(forms, length=OF_TASKS)
        hidden = list(_hidden_tasks.values())
    for one in hidden:
        text = one.without(text)
    return text


def quoted(text: str) -> set[str]:
    """The ways in which programs write a text."""
    plain = {text, unicodedata.normalize("NFC", text), " ".join(text.split())}
    as_json = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    as_python = {repr(text)[1:-1], repr(text.encode(errors="replace"))[2:-1]}
    bare = text.encode(errors="replace")
    in_urls = {quote(bare, safe=""), quote(bare), quote_plus(bare)}
    twice = {json.dumps(form)[1:-1] for form in as_json} | {quote(form, safe="") for form in in_urls}
    return plain | as_json | as_python | in_urls | twice | {html.escape(text)}


def _encoded(secret: str) -> Iterator[str]:
    """In base64, at each place that it can have in what is encoded; without what depends on its neighbors."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * before + secret.encode(errors="replace")).decode().rstrip("=")
            whole = (before + len(secret.encode(errors="replace"))) * 8 // 6
            yield text[-(-before * 8 // 6) : whole]
