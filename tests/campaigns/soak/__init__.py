"""A miner at full speed for an hour: does anything that it holds grow?"""
