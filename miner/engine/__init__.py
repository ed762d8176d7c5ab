"""The embedded engine: ComfyUI's protocol over real sockets, with the image nodes run for real on the CPU.

It speaks ComfyUI's protocol (routes, events and their order, error shapes) for the nodes that it has; any other node is
unknown, as in ComfyUI. It never fakes a result, never listens beyond loopback, and knows nothing of the miner. It runs
in a process of its own: `python -m miner.engine --port 0`.

Facts about ComfyUI come from recorded transcripts of 0.3.64 and 0.33.0 and from the contract tests, which run against
both. The code is our own.
"""
