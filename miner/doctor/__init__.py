"""The doctor: every check that an operator would make, each with a mark, a sentence and a cure.

A check is a function from `Facts` to marks; `examination` runs them side by side with limits on their time. `selftest`
renders on the real ComfyUI, and `bench` measures it. Nothing here asks the sequencer for a task.

Nothing is imported here: the command line imports what a command needs.
"""
