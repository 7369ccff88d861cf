"""The step graph, and the graphs composed from it."""
