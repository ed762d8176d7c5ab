"""`python -m miner` is `xalora-miner`."""

from miner.cli import main

main()
