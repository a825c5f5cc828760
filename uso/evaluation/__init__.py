"""How good a model is.

bench/           what is measured: benchmarks, their references and prompts
pictures.py      which picture belongs to which entry; what a folder of results is made of
making.py        pictures of a benchmark
metrics/         encoders
features.py      vectors, each computed once
measure.py       vectors to scores.json
scores.py        scores of every picture
records.py       scores.json, read back
statistics.py    means over subjects, their intervals, differences of two models
page/            the report
report.py        figures with intervals, tables
sheet.py         contact sheets
compare.py       a faster way beside the released one, by the same seeds
"""
