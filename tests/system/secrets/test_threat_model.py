"""docs/security.md names tests and code: each of them exists, and each attack has one or says why it has none."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules, resolve_name

import pytest

import miner
from tests.support.paths import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (ROOT / "docs" / "security.md").read_text().splitlines()
    if line.startswith("| ")
]
HEADS = [row for row in ROWS if row[-1] == "test"]
ATTACKS = [row for row in ROWS if len(row) == 3 and row not in HEADS and row[-1] != "---"]
TESTS = sorted(set(re.findall(r"([a-z_/]+/test_[a-z0-9_]+)\.py::(test_\w+)", str(ROWS))))
ROOMS = "|".join(room.name for room in iter_modules(miner.__path__))
CODE = sorted({name for row in ATTACKS for name in re.findall(rf"`((?:{ROOMS})\.[\w.]+)`", row[1])})


@pytest.mark.parametrize(("module", "name"), TESTS)
def test_every_test_that_the_threat_model_names_is_collected(module: str, name: str) -> None:
    assert callable(getattr(import_module("tests." + module.replace("/", ".")), name))


@pytest.mark.parametrize("name", CODE)
def test_the_code_that_stops_an_attack_is_there(name: str) -> None:
    resolve_name(f"miner.{name}")


def test_every_attack_has_a_test_or_says_why_it_has_none() -> None:
    assert len(ATTACKS) > 30
    assert len(CODE) > 15
    assert [row[0] for row in ATTACKS if "::test_" not in row[2] and not row[2].startswith("none: ")] == []
