"""What `xalora-miner config` prints, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from miner.config import Settings, render_settings
from miner.config.keys import FIELDS
from tests.unit.config.conftest import Machine


def rendered(machine: Machine) -> dict[str, tuple[str, str]]:
    return {row.key: (row.value, row.origin) for row in render_settings(machine.load())}


def test_every_key_is_shown_in_the_files_order(machine: Machine) -> None:
    assert [row.key for row in render_settings(machine.load())] == list(FIELDS)


def test_values_are_formatted(machine: Machine) -> None:
    machine.environ.update(XALORA_WORKFLOWS_IDS="1=b,4=a,1=c", XALORA_COMFYUI_ARGS="--fast,--proxy=http://u:p@h/?k=v")
    rows = rendered(machine)
    assert rows["workflows.enabled"] == (
        "upscaler, flux-lora, hunyuan-fp8, mochi-fp8, wan22-5b, wan22-5b-img2vid, flux-img2img",
        "default",
    )
    assert rows["workflows.ids"] == ("1=b, 1=c, 4=a", "environment XALORA_WORKFLOWS_IDS")
    assert rows["comfyui.args"][0] == "--fast, --proxy=http://***@h/?***"
    assert rows["miner.warmup"][0] == "false"
    assert rows["comfyui.max_rss_gb"][0] == "0.0"
    assert rows["comfyui.home"][0] == rows["miner.id"][0] == rows["sequencer.api_key"][0] == "-"


def test_no_secret_is_shown_anywhere(machine: Machine) -> None:
    machine.write('[status]\ntoken = "s3cret"\n[upload]\nendpoint = "https://s3cret@h/?s3cret"\n')
    machine.environ.update(XALORA_API_KEY="s3cret", XALORA_WORKFLOW_URL="https://me:s3cret@host/?key=s3cret")
    loaded = machine.load()
    rows = {row.key: row.value for row in render_settings(loaded)}
    assert rows["sequencer.api_key"] == rows["status.token"] == "********"
    assert rows["sequencer.url"] == "https://***@host/?***"
    assert "s3cret" not in str(rows)
    assert "s3cret" not in str(loaded.origin)
    assert "s3cret" not in str(loaded.warnings)


def test_settings_made_in_code_read_no_environment_and_are_frozen(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XALORA_MINER_PREFETCH", "5")
    monkeypatch.setenv("MINER", "{}")
    machine.write("[miner]\nprefetch = 4\n")
    settings = Settings(state={"dir": machine.folder}, comfyui={"url": "http://127.0.0.1:1"})
    assert (settings.miner.prefetch, settings.comfyui.url) == (1, "http://127.0.0.1:1")
    with pytest.raises(ValidationError, match="frozen"):
        settings.miner.prefetch = 2
    with pytest.raises(ValidationError, match="frozen"):
        settings.miner = settings.miner


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(ValidationError, match="poll_interval"):
        Settings(state={"dir": Path("/state")}, sequencer={"poll_interval": 0})
