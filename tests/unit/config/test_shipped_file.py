"""The bundled config.toml, the settings and the workflows agree."""

from __future__ import annotations

import re
import tomllib

import pytest

from miner.config import load_settings
from miner.config.bundled import CONFIG_TOML, WORKFLOWS
from miner.config.keys import EVERYDAY, FIELDS
from miner.config.settings import Settings
from tests.unit.config.conftest import Machine

KEY_LINE = re.compile(r"(?:# )?(\w+) = (.+)")
ENVIRON = {"HOME": "/home/operator"}


def shipped_keys() -> list[tuple[str, str]]:
    """Each key, also if commented out, with the line above it."""
    keys, section, above = [], "", ""
    for line in CONFIG_TOML.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := KEY_LINE.fullmatch(line):
            keys.append((f"{section}.{match[1]}", above))
        above = line
    return keys


@pytest.mark.usefixtures("machine")
def test_the_shipped_file_says_the_defaults() -> None:
    shipped = load_settings(config_file=CONFIG_TOML, environ=ENVIRON)
    assert shipped.settings == load_settings(environ=ENVIRON).settings
    assert shipped.warnings == ()


def test_the_shipped_file_has_every_key_once_and_in_order() -> None:
    assert [key for key, _ in shipped_keys()] == list(FIELDS)


@pytest.mark.parametrize(("key", "above"), shipped_keys())
def test_every_key_is_explained_by_the_line_above_it(key: str, above: str) -> None:
    assert re.fullmatch(r"# .+", above), key
    assert not KEY_LINE.fullmatch(above), key


def test_every_key_of_the_settings_has_a_description() -> None:
    assert [key for key, field in FIELDS.items() if not field.description] == []


def test_only_keys_without_a_default_are_commented_out() -> None:
    sections = tomllib.loads(CONFIG_TOML.read_text(encoding="utf-8"))
    live = {f"{section}.{name}" for section, table in sections.items() for name in table}
    assert set(FIELDS) - live == {key for key, field in FIELDS.items() if field.is_required() or field.default is None}


def test_commented_out_keys_are_valid(machine: Machine) -> None:
    text = CONFIG_TOML.read_text(encoding="utf-8").replace('"…"', '"k"')
    machine.write(
        "\n".join(line.removeprefix("# ") if KEY_LINE.fullmatch(line) else line for line in text.splitlines())
    )
    loaded = machine.load()
    assert set(loaded.origin.values()) == {f"config.toml {machine.config}"}


@pytest.mark.parametrize(
    "name",
    [
        *EVERYDAY,
        "XALORA_MINER_ID",
        "XALORA_COMFYUI_URL",
        "XALORA_COMFYUI_HOME",
        "XALORA_MODELS_DIR",
        "XALORA_STATE_DIR",
        "XALORA_NETWORK_ALLOW",
    ],
)
def test_the_file_names_the_everyday_variables(name: str) -> None:
    assert name in CONFIG_TOML.read_text(encoding="utf-8")


def test_all_bundled_workflows_are_enabled_but_the_one_without_a_model() -> None:
    bundled = {folder.name for folder in WORKFLOWS.iterdir() if (folder / "workflow.toml").is_file()}
    assert set(Settings.model_fields["workflows"].default.enabled) == bundled - {"upscaler-lanczos"}
