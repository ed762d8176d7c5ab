"""Prompt ids: as ComfyUI wants them, and whose they are."""

from __future__ import annotations

import uuid

import pytest

from miner.task.prompt_ids import is_of, is_prompt_id, new_prompt_id


def test_an_id_is_a_new_canonical_uuid_of_version_8_that_tells_its_owner() -> None:
    ids = {new_prompt_id("0xme") for _ in range(1000)}
    assert len(ids) == 1000
    for one in ids:
        parsed = uuid.UUID(one)
        assert (str(parsed), parsed.version, parsed.variant) == (one, 8, uuid.RFC_4122)
        assert (is_of(one, "0xme"), is_of(one, "0xme-1"), is_prompt_id(one)) == (True, False, True)


def test_an_older_versions_id_is_nobodys() -> None:
    old = str(uuid.uuid4())
    assert (is_prompt_id(old), is_of(old, "0xme")) == (True, False)
    own = new_prompt_id("0xme")
    assert not is_of(f"{own[:14]}4{own[15:]}", "0xme")  # version 4 with the same last bits


OWN = "1645e3b9-a44e-8a31-8dd4-061e3a62c7eb"  # of 0xme


@pytest.mark.parametrize("name", ["", "..", OWN.upper(), f"{{{OWN}}}", OWN.replace("-", ""), "holiday"])
def test_any_other_name_is_not_ours(name: str) -> None:
    assert is_of(OWN, "0xme")
    assert (is_prompt_id(name), is_of(name, "0xme")) == (False, False)
