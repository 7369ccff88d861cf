"""Ways on from weights: runs that go on, and runs that start with those of another."""
