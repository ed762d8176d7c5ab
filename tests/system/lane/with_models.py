"""The embedded engine with the nodes that list models, torch or not: for tests that have models listed and run none."""

from __future__ import annotations

from miner.engine.__main__ import main
from miner.engine.nodes import upscale

if __name__ == "__main__":
    raise SystemExit(main(upscale.NODES))
