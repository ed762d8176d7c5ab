"""The demo: the whole way of a task on one machine, with real pictures and real processes.

It starts devnet, an engine and the worker, sends pictures as a consumer would, shows what happens, and keeps what
comes out. Nothing in it is part of the worker.
"""

from miner.demo.run import run_demo

__all__ = ["run_demo"]
