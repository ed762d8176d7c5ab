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
def test_an_address_is_judged(miner_id, level, words):
    mark = address(miner_id)
    assert mark.level == level
    assert words in mark.says


def test_an_address_without_a_checksum_is_shown_with_it():
    assert ADDRESS in address(ADDRESS.lower()).cure


def test_a_whole_configuration_is_good(facts_of, tmp_path):
    facts = facts_of(file=tmp_path / "config.toml", miner={"id": ADDRESS}, workflows={"enabled": ("upscaler",)})
    assert set(levels(configuration(facts)).values()) == {"good"}


def test_a_workflow_that_no_id_leads_to_is_noted(facts_of):
    mark = only(configuration(facts_of()), "Workflow ids")
    assert mark.level == "note"
    assert "upscaler-lanczos" in mark.says


def test_a_dashboard_that_is_open_to_others_is_bad(facts_of):
    facts = facts_of(status={"host": "0.0.0.0"})
    assert only(configuration(facts), "Dashboard").level == "bad"


def test_a_file_with_a_key_that_others_can_read_is_a_warning(facts_of):
    line = "/etc/x.toml: contains [sequencer] api_key and is readable by others (mode 0644): chmod 600 /etc/x.toml"
    (mark,) = permissions(facts_of(warnings=(line,)))
    assert (mark.level, mark.cure) == ("warning", "chmod 600 /etc/x.toml")


def test_a_state_folder_that_others_can_look_into_is_a_warning(facts_of, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    assert [mark.level for mark in permissions(facts_of())] == ["good"]
    (tmp_path / "state").chmod(0o755)
    (mark,) = permissions(facts_of())
    assert mark.level == "warning"
    assert "mode 0755" in mark.says
