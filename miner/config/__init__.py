"""Settings: flag > environment > systemd credential > .env > config.toml > default; nothing else reads the environment.

`load_settings` returns valid, frozen settings, or raises ConfigError with one line per problem.
"""

from miner.config.loading import Loaded, Row, load_settings, render_settings
from miner.config.settings import Settings

__all__ = ["Loaded", "Row", "Settings", "load_settings", "render_settings"]
