"""What is told of the program: log, metrics, liveness of its loops, health marks."""
