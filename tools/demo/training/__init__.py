"""What the demo model's runs have that the program's trainer has not.

config.py      configs of parts and stages
loop.py        a run of one part
prefetch.py    the next batch is read during a step
muon.py        the optimizer
words.py       teacher of stage 1: the base's answer to words
guided.py      teacher of the joint stage: what a guidance scale does
reader.py      the image encoder learns with the projector
kept.py        its answers of before as targets
"""
