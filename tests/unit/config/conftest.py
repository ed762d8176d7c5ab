"""A folder as the operator's machine; the real environment is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from miner.config import Loaded, load_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The operator's files and environment."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    def write(self, text: str, *, name: str = "config.toml", mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def load(self, flags: Mapping[str, object] | None = None) -> Loaded:
        named = self.config if self.config.exists() else None
        return load_settings(config_file=named, flags=flags or {}, environ=self.environ)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    return Machine(folder=tmp_path, environ={"HOME": str(tmp_path / "home")})
