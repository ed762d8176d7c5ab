"""The machine: its GPUs, the room on its disks, and what its bench measured."""
