"""A fleet of miners against one sequencer, simulated: `make fleet MINERS=10000`."""
