"""`xalora-miner` whose pauses after faults are short: a test is over before the real ones are."""

from __future__ import annotations

from miner.cli.main import main
from miner.task.blame import Health

Health.FIRST_PAUSE, Health.LONGEST_PAUSE = 0.5, 2.0

if __name__ == "__main__":
    main()
