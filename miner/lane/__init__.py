"""A lane: one ComfyUI on one GPU, with a thread each to prepare, render and deliver, and a heartbeat."""

from miner.lane.lane import Lane

__all__ = ["Lane"]
