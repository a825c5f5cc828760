"""Drawn triplets on disk, and a run's samples from them.

shards.py    raw bytes in .npy files
files.py     PNG and rows.jsonl, of any size, for people and for reader-sizes-mini
arrays.py    encoded features as arrays
samples.py   the samples that a run reads
source.py    shards as a run's data, and their features
sizes.py     rows of files, of other sizes, beside shards
"""
