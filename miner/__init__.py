"""xalora-miner: turns a GPU box into a worker of the Xalora network."""

__version__ = "0.1.0"
