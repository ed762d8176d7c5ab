"""`xalora-miner` whose pauses after faults last half a second, not a minute."""

from __future__ import annotations

from miner.cli.main import main
from miner.task.blame import Health

if __name__ == "__main__":
    Health.FIRST_PAUSE = 0.5
    Health.LONGEST_PAUSE = 1.0
    main()
