"""Each hostile input gets the error that its line of a table says, or is taken and does no harm.

A newcomer adds a line to one of the tables, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system.hostile import addresses, answers, data_urls, pictures, targets
from tests.system.hostile.cases import ANY, Bench, Case, outcome

TABLES = {
    "address": addresses,
    "answer": answers,
    "data URL": data_urls,
    "picture": pictures,
    "upload target": targets,
}
TABLE = {f"{area}: {case.name}": (case, table.run) for area, table in TABLES.items() for case in table.ROWS}
TELLTALE = re.compile(r"\d+\.\d+\.\d+\.\d+|::|/|\\|Traceback|0x[0-9a-f]{6}|secret|Error|[\r\n]")
"""What no message to a consumer may hold: addresses, paths, URLs, class names, line breaks."""
MAGIC = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xc0\0\x11\x08",
    b"GIF89a",
    b"BM",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8X",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.mark.parametrize("name", TABLE)
def test_a_hostile_input_gets_its_error_and_nothing_else(bench: Bench, name: str) -> None:
    case, run = TABLE[name]
    message = outcome(bench, case, run)
    if case.says is None:
        assert message is None
    elif case.says != ANY:
        assert message is not None
        assert re.search(case.says, message)
    assert not TELLTALE.search(message or "")
    assert len(message or "") < 200


def test_the_tables_hold_150_inputs_and_no_name_twice() -> None:
    assert sum(len(table.ROWS) for table in TABLES.values()) == len(TABLE) >= 150


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text().map(lambda rest: f"http://{rest}"))
def test_any_text_for_an_address_is_refused_in_words(bench: Bench, url: str) -> None:
    message = outcome(bench, Case("any text", url, ANY), addresses.run)
    assert message
    assert not TELLTALE.search(message)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_any_bytes_behind_the_start_of_a_picture_are_a_picture_or_refused_in_words(
    bench: Bench, magic: bytes, rest: bytes
) -> None:
    message = outcome(bench, Case("any bytes", lambda: magic + rest, ANY), pictures.run)
    assert not TELLTALE.search(message or "")
