"""Made-up tasks and replies for the miner: `make fuzz MINUTES=5` runs long, the tests here run short."""
