"""`python -m tests.support.deaf_engine`: an engine that tells its clients nothing, as long as it has a file `deaf`.

Each start takes one character off that file, and the last one deletes it: so a restart can mend it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from miner.engine.__main__ import main
from miner.engine.hub import Hub
from tests.support.trial_nodes import NODES


class _Nothing:
    """In the place of a method that would send."""

    def __call__(self, *_: object) -> None: ...


if __name__ == "__main__":
    file = Path(sys.argv[0]).parent / "deaf"
    if file.exists():
        left = file.read_text()[1:]
        file.write_text(left) if left else file.unlink()
        setattr(Hub, "_enqueue", _Nothing())  # noqa: B010  # the whole point
    raise SystemExit(main(NODES))
