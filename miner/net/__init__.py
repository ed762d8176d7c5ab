"""HTTP: which addresses may be reached, for how long, how, and what a failure is called and whose it is."""
