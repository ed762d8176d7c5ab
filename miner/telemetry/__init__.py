"""Log, metrics, liveness of the loops, health marks."""
