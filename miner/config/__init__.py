"""Settings: flag > environment > systemd credential > .env > config.toml > default; nothing else reads the environment.

`load_settings` gives settings that are valid and frozen, or a ConfigError with one line for each thing that is wrong.
"""

from miner.config.loading import Loaded, Row, load_settings, render_settings
from miner.config.settings import Settings

__all__ = ["Loaded", "Row", "Settings", "load_settings", "render_settings"]
