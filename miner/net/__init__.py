"""HTTP to addresses that a task names: which may be reached, for how long, and what a failure is called."""
