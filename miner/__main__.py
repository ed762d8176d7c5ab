"""`python -m miner` is `xalora-miner`."""

from miner.cli.main import main

main()
