"""Drawn triplets on disk, and a run's samples from them.

shards.py    raw bytes in .npy files
files.py     PNG and rows.jsonl, for people
arrays.py    encoded features as arrays
source.py    the samples of a run
"""
