"""A random campaign of faults over devnet, engine and worker: is ever a task lost, or answered twice?"""
