"""A sequencer, an object store and an embedded engine, to try and to test with on one machine.

`options` says what can be varied, `serve` starts it, `app` builds it. Nothing is imported here, so that the engine,
which is a process of its own, starts without the web server's imports.
"""
