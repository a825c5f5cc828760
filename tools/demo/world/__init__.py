"""Drawn training data: subjects x places x styles, every sample a function of (seed, index). No torch, no files."""
