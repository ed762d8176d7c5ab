"""docs/security.md names tests: each of them is there."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"[a-z_/]+/test_[a-z0-9_]+\.py::test_\w+", TEXT))))
def test_every_test_that_the_threat_model_names_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_every_row_names_who_stops_it_or_a_test() -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 40
    assert all(len([cell for cell in row if cell.strip()]) >= 2 for row in rows)
