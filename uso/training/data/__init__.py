"""Rows on a disk become batches.

rows.py        what a row is; JSON lines
readers.py     folders of pictures, UNO's JSON and JSON lines as rows
folders.py     pictures and captions in a folder
files.py       sizes and hashes of pictures
check.py       names every row that cannot be used
samples.py     rows as samples of a run
source.py      where samples come from: rows, or your own source
buckets.py     sizes and the order of an epoch
features.py    encoded prompts and pictures, kept on disk
batches.py     stacked features, prefetched
"""
