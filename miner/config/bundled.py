"""Paths of the bundled files: the workflows, and the config.toml with every setting.

In a wheel they are inside the package, in a checkout at the top.
"""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "_bundled"  # see pyproject.toml
_TOP = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2]

WORKFLOWS = _TOP / "workflows"
CONFIG_TOML = _TOP / "config.toml"
