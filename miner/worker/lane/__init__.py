"""A lane: one ComfyUI on one GPU, with a thread each to prepare, render and deliver, a heartbeat, and one that
sees when what it can offer has changed."""

from miner.worker.lane.lane import Lane

__all__ = ["Lane"]
