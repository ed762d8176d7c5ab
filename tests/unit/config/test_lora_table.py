from __future__ import annotations

import pytest

from miner.config import render_settings
from miner.config.lora_table import split_table
from miner.task.errors import ConfigError
from tests.unit.config.conftest import Machine

INK = "hf://org/repo/ink.safetensors"


def test_the_keys_of_the_section_that_are_no_settings_are_loras(machine: Machine) -> None:
    machine.write(
        f'[loras]\nink = "{INK}"\n"my style 2" = "civitai:691639"\non_demand = true\nfiles = {{ own = "{INK}" }}\n'
    )
    loras = machine.load().settings.loras
    assert loras.files == {"own": INK, "ink": INK, "my style 2": "civitai:691639"}
    assert loras.on_demand


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (f"ink={INK}", {"ink": INK}),
        (f"ink={INK},b=civitai:1", {"ink": INK, "b": "civitai:1"}),
        (f" ink = {INK},\n my style=civitai:1 , ", {"ink": INK, "my style": "civitai:1"}),
        ("a=https://x.org/f?b=1,c=2&d=3,e=civitai:1", {"a": "https://x.org/f?b=1,c=2&d=3", "e": "civitai:1"}),
        ("ink", None),
        ("", None),
    ],
)
def test_the_variable_is_a_list_of_names_and_references(text: str, table: dict[str, str] | None) -> None:
    assert split_table(text) == table


def test_the_variable_replaces_the_file_and_secrets_are_masked(machine: Machine) -> None:
    machine.write(f'[loras]\nink = "{INK}"\n')
    machine.environ["XALORA_LORAS"] = "a=https://example.com/f?token=s3cret"
    loaded = machine.load()
    assert loaded.settings.loras.files == {"a": "https://example.com/f?token=s3cret"}
    assert {row.key: row.value for row in render_settings(loaded)}["loras.files"] == "a=https://example.com/f?***"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('ink = "hf://org/repo/ink.ckpt"', "wrong place for the LoRA ink: the file has to end in .safetensors"),
        ('"../ink" = "civitai:1"', "a LoRA named '../ink'"),
        ('"ink.safetensors" = "civitai:1"', "and no suffix"),
        ('files = { ink = "ink" }', "needs a place for the LoRA ink"),
        ("on_demnd = true", "did you mean [loras] on_demand?"),
        ('hosts = ["https://example.com"]', "must be names of hosts"),
    ],
)
def test_what_is_wrong_is_said(machine: Machine, line: str, reason: str) -> None:
    machine.write(f"[loras]\n{line}\n")
    with pytest.raises(ConfigError) as error:
        machine.load()
    assert reason in error.value.message
