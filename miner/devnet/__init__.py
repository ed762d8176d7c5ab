"""A sequencer and an object store on loopback, to try and test a miner with.

`options` says what can be varied, `serve` starts it, `app` builds it. Nothing is imported here, so that the engine,
which is a process of its own, starts without the web server's imports.
"""
