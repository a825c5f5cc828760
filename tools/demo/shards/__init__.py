"""Drawn triplets on disk, and a run's samples out of them."""
