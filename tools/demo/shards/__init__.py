"""Drawn triplets on disk, and a run's samples from them.

shards.py    raw bytes in .npy files
files.py     PNG and rows.jsonl, for people
arrays.py    encoded features as arrays
samples.py   the samples that a run reads
source.py    shards as a run's data, and their features
"""
