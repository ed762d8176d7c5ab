"""The embedded engine with the nodes that list models, torch or not: for tests that have models listed and run none."""

from __future__ import annotations

from miner.engine.__main__ import main
from miner.engine.nodes import images, upscale

images.NODES = (*images.NODES, *upscale.NODES)

if __name__ == "__main__":
    raise SystemExit(main())
