"""This machine: GPUs, free disk space, and benchmark results."""
