"""What is measured: benchmarks as data, and the folder that `prepare` makes of one.

config.py     the files of configs/bench/: references, prompts, tasks
entries.py    a prepared benchmark: its entries and references; also inference.py's JSON
packages.py   files out of wheels and Debian packages, installed or fetched
rcc.py        Qt's resource files
prepare.py    a benchmark's pictures and list, in a folder
"""
