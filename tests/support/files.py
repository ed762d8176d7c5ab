"""Files of a folder that somebody else may be deleting."""

from __future__ import annotations

import os
from pathlib import Path


def files_under(folder: Path) -> list[Path]:
    """Every file below; folders that vanish meanwhile count as empty."""
    found = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return [path for path in found if path.is_file()]
