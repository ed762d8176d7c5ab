"""The network's own SDK and older miner, both as they are published, against devnet and our miner."""
