"""Configuration, address and permissions."""

from __future__ import annotations

import pytest

from miner.doctor.checks.configuration import address, configuration, permissions
from tests.unit.doctor.conftest import levels, only

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # of EIP-55's own examples


@pytest.mark.parametrize(
    ("miner_id", "level", "words"),
    [
        (ADDRESS, "good", "valid checksum"),
        (f"{ADDRESS}-box_1", "good", "box_1"),
        (ADDRESS.lower(), "note", "all one case"),
        ("", "bad", "not set"),
        ("0x" + 40 * "0", "bad", "nobody's"),
    ],
)
def test_an_address_is_a_mark(miner_id, level, words):
    mark = address(miner_id)
    assert mark.level == level
    assert words in mark.says


def test_an_address_without_a_checksum_is_shown_with_it():
    assert ADDRESS in address(ADDRESS.lower()).cure


def test_a_complete_configuration_is_good(facts_of, tmp_path):
    facts = facts_of(file=tmp_path / "config.toml", miner={"id": ADDRESS}, workflows={"enabled": ("upscaler",)})
    assert set(levels(configuration(facts)).values()) == {"good"}


def test_a_workflow_without_an_id_is_noted(facts_of):
    mark = only(configuration(facts_of()), "Workflow ids")
    assert mark.level == "note"
    assert "upscaler-lanczos" in mark.says


def test_an_open_dashboard_without_a_token_is_bad(facts_of):
    facts = facts_of(status={"host": "0.0.0.0"})
    assert only(configuration(facts), "Dashboard").level == "bad"


def test_a_readable_file_with_a_key_is_a_warning(facts_of):
    line = "/etc/x.toml: contains [sequencer] api_key and is readable by others (mode 0644): chmod 600 /etc/x.toml"
    (mark,) = permissions(facts_of(warnings=(line,)))
    assert (mark.level, mark.cure) == ("warning", "chmod 600 /etc/x.toml")


def test_a_readable_state_folder_is_a_warning(facts_of, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    assert [mark.level for mark in permissions(facts_of())] == ["good"]
    (tmp_path / "state").chmod(0o755)
    (mark,) = permissions(facts_of())
    assert mark.level == "warning"
    assert "mode 0755" in mark.says
