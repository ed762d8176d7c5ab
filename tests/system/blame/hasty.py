"""`xalora-miner` that tries to deliver for a second past a task's deadline, not for a minute."""

from __future__ import annotations

from miner.cli.main import main
from miner.worker.lane import deliver

if __name__ == "__main__":
    deliver.LATE = 1.0
    main()
