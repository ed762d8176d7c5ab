"""A lane: one ComfyUI on one GPU, with threads for prepare, render, deliver, heartbeat and refresh."""

from miner.worker.lane.lane import Lane

__all__ = ["Lane"]
