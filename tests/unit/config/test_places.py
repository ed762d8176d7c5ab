"""Where config.toml is found, where paths start, and who may read a file with secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.config import load_settings
from miner.config.sources import config_places
from miner.task.errors import ConfigError
from tests.unit.config.conftest import Machine


def test_config_is_found_here_then_in_the_users_folder_then_in_etc() -> None:
    places = config_places({"HOME": "/home/op"}, Path("/srv"))
    assert [str(place) for place in places] == [
        "/srv/config.toml",
        "/home/op/.config/xalora-miner/config.toml",
        "/etc/xalora-miner/config.toml",
    ]


@pytest.mark.parametrize(
    ("environ", "users"),
    [
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/xdg"}, ["/xdg/xalora-miner/config.toml"]),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "not/absolute"}, ["/h/.config/xalora-miner/config.toml"]),
        ({}, []),
    ],
)
def test_the_users_folder_follows_xdg(environ: dict[str, str], users: list[str]) -> None:
    assert [str(place) for place in config_places(environ, Path("/srv"))[1:-1]] == users


def test_the_nearest_config_wins(machine: Machine) -> None:
    xdg = machine.folder / "xdg"
    machine.environ["XDG_CONFIG_HOME"] = str(xdg)
    machine.write("[miner]\nprefetch = 4\n", name="xdg/xalora-miner/config.toml")
    loaded = load_settings(environ=machine.environ)
    assert (loaded.file, loaded.settings.miner.prefetch) == (xdg / "xalora-miner/config.toml", 4)

    machine.write("[miner]\nprefetch = 3\n")
    assert load_settings(environ=machine.environ).settings.miner.prefetch == 3

    named = machine.write("[miner]\nprefetch = 2\n", name="named.toml")
    machine.environ["XALORA_CONFIG"] = "named.toml"
    assert load_settings(environ=machine.environ).file == named

    flagged = machine.write("[miner]\nprefetch = 1\n", name="flagged.toml")
    assert load_settings(config_file=flagged, environ=machine.environ).settings.miner.prefetch == 1


def test_without_any_config_the_defaults_hold(machine: Machine) -> None:
    loaded = load_settings(environ=machine.environ)
    assert loaded.file is None
    assert set(loaded.origin.values()) == {"default"}
    assert loaded.warnings == ()


def test_a_missing_named_config_is_an_error(machine: Machine) -> None:
    machine.environ["XALORA_CONFIG"] = "gone.toml"
    missing = machine.folder / "gone.toml"
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=machine.environ)
    assert caught.value.message == f"environment XALORA_CONFIG: {missing} is missing, unreadable or not a file"
    with pytest.raises(ConfigError, match=r"^flag --config: .* is missing, unreadable"):
        load_settings(config_file=missing, environ={})


def test_dotenv_beside_the_config_counts_and_not_the_one_here(machine: Machine) -> None:
    machine.write("XALORA_MINER_PREFETCH=1\n", name=".env")
    machine.write("XALORA_MINER_PREFETCH=2\n", name="etc/.env")
    config = machine.write("", name="etc/config.toml")
    assert load_settings(config_file=config, environ={}).settings.miner.prefetch == 2
    assert load_settings(environ={}).settings.miner.prefetch == 1


def test_paths_start_at_the_file_that_names_them_and_tilde_is_home(machine: Machine) -> None:
    config = machine.write(
        '[workflows]\nfolders = ["mine", "~/ours"]\n[comfyui]\nhome = "~"\n[state]\ndir = "state"\n',
        name="etc/config.toml",
    )
    machine.environ["XALORA_MODELS_DIR"] = "models"
    settings = load_settings(config_file=config, environ=machine.environ).settings
    home = machine.folder / "home"
    assert settings.workflows.folders == (machine.folder / "etc/mine", home / "ours")
    assert settings.state.dir == machine.folder / "etc/state"
    assert settings.models.dir == machine.folder / "models"
    assert settings.comfyui.home == home


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"HOME": "/h"}, "/h/.local/state/xalora-miner"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/xdg"}, "/xdg/xalora-miner"),
        ({}, "/var/lib/xalora-miner"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_state_folder_follows_xdg(environ: dict[str, str], state: str) -> None:
    assert load_settings(environ=environ).settings.state.dir == Path(state)


def test_credentials_of_systemd_are_read(machine: Machine) -> None:
    folder = machine.write("from-systemd\n", name="credentials/api_key").parent
    machine.write("t0ken\n", name="credentials/status_token")
    machine.environ["CREDENTIALS_DIRECTORY"] = str(folder)
    loaded = machine.load()
    key, token = loaded.settings.sequencer.api_key, loaded.settings.status.token
    assert key
    assert token
    assert (key.get_secret_value(), token.get_secret_value()) == ("from-systemd", "t0ken")
    assert loaded.origin["sequencer.api_key"] == f"credential {folder / 'api_key'}"


@pytest.mark.parametrize("name", ["config.toml", ".env"])
def test_a_file_with_a_secret_that_others_may_read_gets_a_warning(machine: Machine, name: str) -> None:
    secret = {"config.toml": '[sequencer]\napi_key = "k"\n', ".env": "XALORA_API_KEY=k\n"}[name]
    path = machine.write(secret, name=name, mode=0o640)
    assert machine.load().warnings == (
        f"{path}: contains [sequencer] api_key and is readable by others (mode 0640): chmod 600 {path}",
    )
    path.chmod(0o600)
    assert machine.load().warnings == ()


def test_a_file_without_a_secret_may_be_read_by_all(machine: Machine) -> None:
    machine.write("[miner]\nprefetch = 2\n", mode=0o644)
    assert machine.load().warnings == ()
