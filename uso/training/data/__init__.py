"""Rows on a disk become batches.

rows.py        JSON lines
files.py       sizes and hashes of pictures
check.py       names every row that cannot be used
samples.py     rows as samples of a run
source.py      where samples come from: rows, or your own source
buckets.py     sizes and the order of an epoch
features.py    encoded prompts and pictures, kept on disk
batches.py     stacked features, prefetched
"""
