"""HTTP to places that a task names: which addresses may be reached, and for how long in all."""
