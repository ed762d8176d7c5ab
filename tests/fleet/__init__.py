"""A fleet of miners against one sequencer, simulated: `python -m tests.fleet --miners 10000`, or `make fleet`."""
