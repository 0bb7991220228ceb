"""Mesh and sharding, optimizer, step, loop and checkpoints; one loop for every task."""
