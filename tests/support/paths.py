"""Where the checkout's folders are, for every test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "tests" / "contract" / "recordings"  # of two real ComfyUIs
STAND_INS = Path(__file__).parent / "stand_ins"  # small workflows that the embedded engine runs without models
