"""What the command line prints, when all is well and when it is not: no secret, wherever an operator has put it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.canary_secrets import leaks, marked
from tests.support.paths import ROOT

SECRET = marked("secret")
ID = 'id = "0x00000000000000000000000000000000000d37e0"'
USER = f"https://operator:{SECRET}@example.com"

FILES = {
    "all is well": f'[sequencer]\napi_key = "{SECRET}"\n[status]\ntoken = "{SECRET}"\n',
    "URLs with a password": f'[sequencer]\nurl = "{USER}/?k={SECRET}"\n[comfyui]\nurl = "{USER},{USER}:1/?{SECRET}"\n',
    "an endpoint with a password": f'[upload]\nendpoint = "{USER}/s3"\n',
    "a key that is a list": f'[sequencer]\napi_key = ["{SECRET}"]\n',
    "a key that is a table": f'[sequencer]\napi_key = {{ value = "{SECRET}" }}\n',
    "a token that is a list of tables": f'[status]\ntoken = [{{ a = "{SECRET}" }}]\n',
    "a misspelt key": f'[sequencer]\napi_kye = "{SECRET}"\n',
    "a key in the wrong section": f'[miner]\napi_key = "{SECRET}"\n',
    "a key without a section": f'api_key = "{SECRET}"\n',
    "a misspelt section": f'[sequencr]\napi_key = "{SECRET}"\n',
    "no TOML": f'[sequencer]\napi_key = "{SECRET}\n',
    "no TOML behind a key": f"[sequencer]\napi_key = {SECRET}\n",
    "an invalid URL": f'[sequencer]\nurl = "{USER}:99999999/?{SECRET}"\n',
    "a URL with a blank": f'[sequencer]\nurl = "{USER}/ x?{SECRET}"\n',
    "a URL without a scheme": f'[upload]\nendpoint = "operator:{SECRET}@example.com"\n',
    "an endpoint with a query": f'[upload]\nendpoint = "{USER}/?{SECRET}"\n',
    "something else wrong beside it": f'[sequencer]\napi_key = "{SECRET}"\nheartbeat = "{USER}"\n',
}
ENVIRONMENTS = {
    "all is well": {"XALORA_API_KEY": SECRET, "XALORA_STATUS_TOKEN": SECRET},
    "set twice": {"XALORA_API_KEY": SECRET, "XALORA_SEQUENCER_API_KEY": SECRET + "2"},
    "a misspelt variable": {"XALORA_APIKEY": SECRET},
    "an invalid URL": {"XALORA_WORKFLOW_URL": f"ftp://u:{SECRET}@x/"},
    "a number that is a URL": {"XALORA_SEQUENCER_HEARTBEAT": f"{USER}/?{SECRET}"},
    "an allowed place that is a URL": {"XALORA_NETWORK_ALLOW": f"{USER}:443"},
}
DOTENVS = {
    "all is well": f"XALORA_API_KEY={SECRET}\n",
    "no NAME=value": f"XALORA_API_KEY {SECRET}\n",
    "a quote without an end": f'XALORA_API_KEY="{SECRET}\n',
    "a misspelt variable": f"XALORA_API_KEYS={SECRET}\n",
}


def says(folder: Path, *command: str, environ: dict[str, str] | None = None) -> str:
    """All that a command prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("XALORA_")}
    done = subprocess.run(
        [sys.executable, "-m", "miner", *command],
        cwd=folder,
        env={
            **clean,
            "COLUMNS": "500",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            **(environ or {}),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_config_toml(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.toml").write_text(
        f"{FILES[name]}[miner]\n{ID}\n" if "[miner]" not in FILES[name] else FILES[name]
    )
    assert leaks(says(tmp_path, "config")) == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environment(tmp_path: Path, name: str) -> None:
    assert leaks(says(tmp_path, "config", environ=ENVIRONMENTS[name])) == []


@pytest.mark.parametrize("name", DOTENVS)
def test_the_env_file(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(DOTENVS[name])
    assert leaks(says(tmp_path, "config")) == []


def test_a_file_with_a_key_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(FILES["all is well"])
    config.chmod(0o644)
    said = says(tmp_path, "config")
    assert "chmod 600" in said
    assert leaks(said) == []
    config.chmod(0o600)
    assert "chmod" not in says(tmp_path, "config")


def test_a_start_that_fails_says_why_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FILES["URLs with a password"] + f"[miner]\n{ID}\n")
    state = tmp_path / "state"
    state.write_text("no folder")
    said = says(tmp_path, "run", "--state-dir", str(state), environ={"XALORA_API_KEY": SECRET})
    assert leaks(said) == []
