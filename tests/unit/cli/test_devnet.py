"""The command `devnet`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from miner.cli.main import app
from miner.task.errors import ConfigError

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.mark.parametrize("missing", NAMES)
def test_credentials_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "" if name == missing else "something")
    done = CliRunner().invoke(app, ["devnet", "--target", "s3", "--port", "0"])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.message == f"devnet: --target s3 needs {missing}"
