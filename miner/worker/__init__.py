"""The worker: lanes that lease, render and answer tasks, and the supervisor that starts, reloads and drains them."""
