"""The doctor: checks of everything that mining needs, each with a mark, a sentence and a cure.

A check is a function from `Facts` to marks; `runner` runs them in parallel with time limits. `selftest` renders on the
real ComfyUI and `bench` measures it. Never: asks the sequencer for a task, or prints.

Import from the modules: each command needs few of them.
"""
