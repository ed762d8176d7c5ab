"""Where the files are that come with the program: the workflows and the config.toml that lists every setting.

An installed miner has them inside its package, a checkout at its top. Reads nothing else, and writes nothing.
"""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "_bundled"  # the wheel's name for them, see pyproject.toml
_TOP = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2]

WORKFLOWS = _TOP / "workflows"
CONFIG_TOML = _TOP / "config.toml"
